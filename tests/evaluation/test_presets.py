"""Presets against the tasks that they settle; prompt styles on prompts and answers."""

import re
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.languages import LANGUAGES
from starcoder.evaluation.presets import PRESETS, find_preset
from starcoder.evaluation.prompting import STYLES, style
from starcoder.evaluation.tasks import TASKS, open_task

PROMPT = 'def add(a: int, b: int) -> int:\n    """Add two numbers."""'
PAPER = ("humaneval", "mbpp", "mbpp-500", "multipl-e", "ds1000-completion", "ds1000-insertion", "odex", "gsm8k-pal")
OTHERS = ("santacoder-fim", "security-completion", "security-insertion", "human-eval-infilling", "toxicity")


def test_the_papers_evaluations_have_a_preset_each() -> None:
    wanted = {*PAPER, *OTHERS, "humaneval-passk", "humaneval-prompted", "humaneval-assistant", "gsm8k-pal-maj40"}
    wanted |= {"long-context", "return-types", "docstrings", "mmlu", "coqa", "social-bias", "leaderboard"}
    assert wanted <= PRESETS.keys()
    for name, preset in PRESETS.items():
        assert find_preset(name).name == name
        assert preset.description
        assert preset.source
        assert "\n" not in preset.description + preset.source


def test_presets_settle_tasks_styles_and_groups_that_exist() -> None:
    titles = {toolchain.title for toolchain in LANGUAGES.values()}
    for preset in PRESETS.values():
        assert set(preset.tasks) <= TASKS.keys()
        assert preset.prompt in STYLES
        assert set(preset.groups) <= titles
        assert max(preset.k or (1,)) <= (preset.n_samples or 1)


@pytest.mark.parametrize("name", [*PAPER, *OTHERS])
def test_a_task_alone_has_the_settings_of_its_preset(name: str) -> None:
    preset = PRESETS[name]
    for task in preset.tasks:
        defaults = open_task(task).defaults
        assert (preset.temperature, preset.top_p) == (defaults.temperature, defaults.top_p)
        assert (preset.n_samples, preset.max_new_tokens) == (defaults.n_samples, defaults.max_new_tokens)


def test_what_sets_the_variants_apart() -> None:
    assert PRESETS["humaneval"].k == (1,)
    assert (PRESETS["humaneval-passk"].temperature, PRESETS["humaneval-passk"].k) == (0.8, (10, 100))
    assert (PRESETS["humaneval-prompted"].temperature, PRESETS["humaneval-prompted"].prompt) == (0.1, "prompted")
    assert PRESETS["humaneval-assistant"].prompt == "assistant"
    assert (PRESETS["gsm8k-pal-maj40"].n_samples, PRESETS["gsm8k-pal-maj40"].temperature) == (40, 0.7)
    assert PRESETS["leaderboard"].n_samples == 50


def test_an_unknown_preset_is_answered_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"no preset 'human'.*humaneval, humaneval-passk.*leaderboard"):
        find_preset("human")


def test_plain_changes_nothing_and_prompted_puts_the_papers_words_before() -> None:
    plain, prompted = style("plain"), style("prompted")
    assert (plain.apply(PROMPT), plain.extract("\n    return"), plain.stop(("x",))) == (PROMPT, "\n    return", ("x",))
    assert prompted.apply(PROMPT) == (
        "<filename>solutions/solution_1.py\n# Here is the correct implementation of the code exercise\n" + PROMPT
    )
    assert prompted.extract("x") == "x"


def test_the_assistant_is_asked_after_conversations() -> None:
    text = style("assistant").apply(PROMPT + "\n")
    *conversations, question = re.split(r"^-----$", text, flags=re.MULTILINE)
    assert len(conversations) == 3
    assert all("\nHuman: " in one and "\nAssistant: " in one for one in conversations[1:])
    assert question.startswith("\n\nHuman: ")
    assert f"```\n{PROMPT}\n```" in question
    assert text.endswith("\n\nAssistant:")
    assert style("assistant").stop(("\ndef",)) == ("\nHuman:", "\n-----")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (" Like this:\n\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds. ```\nno\n```", None),
        (" ```\ndef add(a, b):\n    return a + b", None),  # cut at the limit of tokens
        ("\ndef add(a, b):\n    return a + b", "\n\ndef add(a, b):\n    return a + b"),
        ("```\n```", "\n"),
        (" ```py\n\n```", "\n"),
    ],
)
def test_the_code_is_the_first_block_of_the_answer(answer: str, code: str | None) -> None:
    found = style("assistant").extract(answer)
    assert found == (code or "\ndef add(a, b):\n    return a + b")
    if "return" in found:
        scope: dict[str, int] = {}
        exec(PROMPT + found + "\nsum = add(2, 3)\n", scope)
        assert scope["sum"] == 5


def test_conversations_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "TA_prompt.txt"
    path.write_text("Below are dialogues.\n\n-----\n\nHuman: Hello\n\nAssistant: Hi\n")
    assert style("assistant", path).apply("x").startswith("Below are dialogues.")
    assert style("assistant", path).digest != style("assistant").digest
    assert {style(name).digest for name in STYLES if name != "assistant"} == {"plain", "prompted"}


def test_bad_styles_and_conversations(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UserError, match="no prompt style 'chat': choose one of plain, prompted, assistant"):
        style("chat")
    with pytest.raises(UserError, match="cannot be read"):
        style("assistant", path)
    path.write_text("Human: but nobody answers")
    with pytest.raises(UserError, match="file holds no conversations"):
        style("assistant", path)
    with pytest.raises(UserError, match="are for the prompt style assistant, not for plain"):
        style("plain", path)
