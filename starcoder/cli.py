"""`starcoder …`: one table of subcommands; each imports its room only when it is called.

A subcommand is a typed function, its options are the function's parameters, its help the docstring. `fit` and
`validate` are LightningCLI and take recipes. Whatever a user can mend ends in one line on stderr and exit code 2.
"""

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import Signature, signature
from itertools import pairwise, takewhile
from typing import Any, NoReturn, get_origin

from starcoder.errors import UserError, needing, one_line

COMMANDS = {
    "corpus build": ("starcoder.corpus.build:build", "build a corpus of permissively licensed code (§3, §5.1)"),
    "corpus inspect": ("starcoder.corpus.inspect:inspect", "show what a corpus holds, what was left out, and why"),
    "corpus opt-out": ("starcoder.corpus.forget:forget", "take repositories out of a finished corpus and its shards"),
    "pii scan": ("starcoder.pii.scan:scan", "find names, e-mails, keys, passwords and IP addresses in files (§4)"),
    "pii redact": ("starcoder.pii.redact:redact", "copy a folder or a parquet file without its PII and secrets (§4)"),
    "pii train": ("starcoder.pii.train:train", "train StarPII, the model that finds names, keys and passwords (§4)"),
    "pii benchmark": ("starcoder.pii.benchmark:benchmark", "precision and recall of PII detectors, side by side (§4)"),
    "tokenizer train": ("starcoder.corpus.vocabulary:train_tokenizer", "train the byte-level BPE on a corpus (§5.3)"),
    "tokenize": ("starcoder.training.shards:tokenize", "write a corpus as token shards"),
    "fit": ("starcoder.training.fit:run", "train: pretraining or fine-tuning, by recipe (§5.5-5.6)"),
    "validate": ("starcoder.training.fit:run", "measure the validation loss of a checkpoint"),
    "plan": ("starcoder.training.planner.plan:plan", "memory, time and cost of a training run, without a GPU (§5.7)"),
    "export": (
        "starcoder.release.export:export",
        "save a training checkpoint as a folder that other programs load (§9)",
    ),
    "copies": (
        "starcoder.release.copies:measure_copies",
        "count the completions that copy training data verbatim (§9)",
    ),
    "card": ("starcoder.release.card:write_card", "write a release's model card from what its training left (§9)"),
    "generate": ("starcoder.generation:complete", "complete a prompt; with --suffix, fill in the middle"),
    "serve": ("starcoder.serving.serve:serve", "answer OpenAI's clients: completion and infilling over HTTP"),
    "playground": ("starcoder.playground.run:playground", "a local page to complete, infill and trace code (§8)"),
    "evaluate": ("starcoder.evaluation.evaluate:evaluate", "the paper's benchmarks, run in a sandbox (§6)"),
    "trace index": ("starcoder.attribution.index:index", "index a corpus to find out where code comes from (§8)"),
    "trace query": ("starcoder.attribution.query:query", "trace a text back to files, repositories and licences (§8)"),
    "trace calibrate": (
        "starcoder.attribution.calibration:calibrate",
        "measure how often people's own code triggers each verdict",
    ),
    "trace serve": ("starcoder.attribution.service:serve", "the membership test that editors ask: POST /overlap (§8)"),
    "verify": ("starcoder.release.verify:verify", "prove that other programs read a folder as we do"),
    "push": ("starcoder.release.push:push", "put a release, or a run's checkpoints, on the Hugging Face Hub (§9)"),
    "smoke": ("starcoder.smoke.run:smoke", "all of the above on real code, in minutes, on a laptop"),
    "smoke report": ("starcoder.smoke.report:report", "write the report of a smoke run again"),
}
LIGHTNING_COMMANDS = ("fit", "validate")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv`, the process's own by default; a mistake exits with 2, an interrupt with 130."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning is several times slower beside other jobs
    os.environ.setdefault("MPLCONFIGDIR", "build/cache/matplotlib")  # not in HOME
    try:
        run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        _fail(str(error), error.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if _disk_is_full(error):
            _fail("the disk is full; free some space and run again")
        if isinstance(error, OSError) and error.filename:
            _fail(f"{error.filename}: {error.strerror}")
        if (cause := _mistake(error)) is not None:
            _fail(str(cause), cause.code)
        raise


def run(argv: list[str]) -> None:
    """Run the command line `argv`, raising what goes wrong.

    Raises:
        UserError: for an unknown subcommand or option, and for whatever the subcommand cannot do with its input.
    """
    name = _command(argv)
    if name is None:
        print(_usage())
        return
    module, function = COMMANDS[name][0].split(":")
    with needing("attribution,corpus,eval,pii,report"):
        target = getattr(import_module(module), function)
    if name in LIGHTNING_COMMANDS:
        target(argv)
    else:
        _call(target, f"starcoder {name}", argv[len(name.split()) :])


def _command(argv: list[str]) -> str | None:
    """The subcommand that `argv` begins with, or None when it asks for help."""
    if not argv or argv[0] in ("-h", "--help"):
        return None
    for name in (" ".join(argv[:2]), argv[0]):
        if name in COMMANDS:
            return name
    room = [name for name in COMMANDS if name.startswith(f"{argv[0]} ")]
    if room:
        raise UserError(f"say one of: {', '.join(f'starcoder {name}' for name in room)}")
    raise UserError(f"no subcommand {argv[0]!r}; `starcoder --help` lists them")


def _call(function: Callable[..., Any], prog: str, args: list[str]) -> None:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog=prog, exit_on_error=False)
    parser.add_argument("--config", action="config", help="A YAML file of these options.")
    parser.add_function_arguments(function, as_positional=False)
    try:
        options = vars(parser.instantiate(parser.parse_args(_spelled_out(args, signature(function)))))
    except ArgumentError as error:
        raise UserError(f"{prog.removeprefix('starcoder ')}: {_plainly(one_line(error))}") from None
    function(**{name: value for name, value in options.items() if name != "config"})


def _spelled_out(args: list[str], options: Signature) -> list[str]:
    """`args` with what a user may leave out: the first option's name, "true" after a switch; `-` is `_` in names.

    Of a first option that is a list, all arguments before any option, and all after `--`, are elements.
    """
    name, option = next(iter(options.parameters.items()), ("", None))
    leading = list(takewhile(lambda arg: arg == "-" or not arg.startswith("-"), args))
    first: list[str] = []
    if option and get_origin(option.annotation) is list:
        rest = args[len(leading) :]
        end = rest.index("--") if "--" in rest else len(rest)
        args, trailing = rest[:end], rest[end + 1 :]
        first = [part for arg in leading + trailing for part in (f"--{name}+", arg)]
    elif leading:
        first = [f"--{name}"]
    switches = {f"--{name}" for name, option in options.parameters.items() if option.annotation is bool}
    whole: list[str] = []
    for arg, following in pairwise([*first, *args, "--"]):
        spelled = re.sub(r"^--[\w-]+", lambda found: "--" + found[0][2:].replace("-", "_"), arg)
        whole += [spelled, "true"] if spelled in switches and following.startswith("--") else [spelled]
    return whole


def _plainly(message: str) -> str:
    """What jsonargparse says of an option that may be null, without the types that it has tried in vain."""
    key = re.match(r'Parser key "([\w.]+)"', message)
    if key and "Expected a <class 'list'>" in message:
        return f"--{key[1]} takes a list: --{key[1]} '[…]', or --{key[1]}+ … for each"
    inner = re.search(r"Problem with given class_path '[\w.]+': (.*?) - Expected a <class 'NoneType'>", message)
    return f"--{key[1]}: {inner[1]}" if key and inner else message


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is at the bottom of `error`; torch and safetensors raise something of their own on top."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _mistake(error: BaseException | None) -> UserError | None:
    """The user's mistake at the bottom of `error`: what a recipe's classes refuse, jsonargparse wraps."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: starcoder SUBCOMMAND [options]\n\n{rows}\n\n`starcoder SUBCOMMAND --help` explains the options."


def _fail(message: str, code: int = 2) -> NoReturn:
    print(f"starcoder: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
