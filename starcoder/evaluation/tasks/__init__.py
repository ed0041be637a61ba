"""The benchmarks, one class each, by the names that `--tasks` takes."""

from importlib import import_module

from starcoder.errors import UserError, one_line
from starcoder.evaluation.task import Task

TASKS = {
    "humaneval": "humaneval:HumanEval",
    "mbpp": "mbpp:MBPP",
    "mbpp-paper": "multipl_e:MBPPPaper",
    "humaneval-multipl-e": "multipl_e:HumanEvalMultiPLE",
    "mbpp-multipl-e": "multipl_e:MBPPMultiPLE",
    "ds1000-completion": "ds1000:DS1000Completion",
    "ds1000-insertion": "ds1000:DS1000Insertion",
    "odex": "odex:ODEX",
    "humaneval-infilling-single": "infilling:SingleLineInfilling",
    "humaneval-infilling-multi": "infilling:MultiLineInfilling",
    "humaneval-infilling-random": "infilling:RandomSpanInfilling",
    "humaneval-infilling-random-light": "infilling:RandomSpanLightInfilling",
    "santacoder-fim": "santacoder_fim:SantaCoderFIM",
    "return-types": "return_types:ReturnTypes",
    "docstrings": "docstrings:Docstrings",
    "docstrings-left": "docstrings:DocstringsLeft",
    "line-completion": "lines:LineCompletion",
    "long-context": "long_context:LongContext",
    "bits-per-byte": "bits_per_byte:BitsPerByte",
    "gsm8k-pal": "gsm8k:GSM8KPAL",
    "mmlu": "mmlu:MMLU",
    "coqa": "coqa:CoQA",
    "coqa-all": "coqa:CoQAAll",
    "security-completion": "security:SecurityCompletion",
    "security-insertion": "security:SecurityInsertion",
    "social-bias-stereoset": "bias:StereoSet",
    "social-bias-crows-pairs": "bias:CrowSPairs",
    "toxicity": "toxicity:Toxicity",
    "toxicity-non-toxic": "toxicity:NonToxicPrompts",
}


def open_task(name: str) -> Task:
    """The benchmark of that name, or one of the user's own, `module:Class`.

    Raises:
        UserError: when there is none; it lists those that exist.
    """
    check_name(name)
    module, found = (f"{__name__}.{TASKS[name]}" if name in TASKS else name).split(":")
    try:
        task = getattr(import_module(module), found)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"the task {name} cannot be opened ({one_line(error)})") from None
    if not isinstance(task, Task):
        raise UserError(f"{name} is no starcoder.evaluation.task.Task")
    if lacking := [word for word in ("name", "title", "section") if not isinstance(getattr(task, word, None), str)]:
        raise UserError(f"the task {name} has no {', '.join(lacking)}: each is a text, set in its class")
    return task


def check_name(name: str) -> None:
    """Refuse, as a `UserError`, what is neither one of `TASKS` nor `module:Class`."""
    if name not in TASKS and name.count(":") != 1:
        raise UserError(f"there is no task {name!r}: choose among {', '.join(TASKS)}, say all, or module:Class")
