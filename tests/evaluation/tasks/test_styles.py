"""Which tasks may be asked in which prompt style, and what becomes of an assistant's answer."""

from collections.abc import Iterator

import pytest

from starcoder.evaluation import prompting
from starcoder.evaluation.presets import PRESETS
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.task import Executed, Problem
from starcoder.evaluation.tasks import TASKS, open_task

STYLED = ("humaneval", "mbpp", "mbpp-paper")
HUMANEVAL_ROW = {"prompt": 'def f():\n    """One."""\n', "canonical_solution": "    return 1\n", "entry_point": "f"}
HUMANEVAL_ROW["test"] = "def check(candidate):\n    assert candidate() == 1\n"
PROBLEMS = {
    "humaneval": Problem("a", HUMANEVAL_ROW["prompt"].strip(), row=HUMANEVAL_ROW),
    "mbpp": Problem(
        "b",
        '"""\nOne.\nassert f() == 1\n"""\n',
        row={"code": "def f():\n    return 1", "test_list": ["assert f() == 1"]},
    ),
    "mbpp-paper": Problem(
        "c",
        'def f():\n    """One."""',
        row={"language": "py", "tests": "def check(candidate):\n    assert candidate() == 1\ncheck(f)\n"},
    ),
}
ANSWER = " Here:\n\n```python\ndef f():\n    return 1\n```\nIt is one."


def test_only_whole_python_functions_take_every_style() -> None:
    for name in TASKS:
        assert open_task(name).styles == (prompting.STYLES if name in STYLED else ("plain",))


def test_every_preset_is_possible() -> None:
    for preset in PRESETS.values():
        assert all(preset.prompt in open_task(name).styles for name in preset.tasks)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1) as made:
        yield made


@pytest.mark.parametrize("name", STYLED)
def test_an_assistants_block_is_a_program(name: str, sandbox: Sandbox) -> None:
    task, style = open_task(name), prompting.style("assistant")
    assert isinstance(task, Executed)
    for answer, passes in ((ANSWER, True), (ANSWER.replace("1\n", "2\n"), False)):
        program = task.program(PROBLEMS[name], style.extract(answer))
        assert sandbox.submit(program).result().passed is passes
