import pytest

from starcoder.hub import is_repository


@pytest.mark.parametrize("name", ["bigcode/starcoder", "ada/model-1.5_b", "a/b", f"{'a' * 96}/{'b' * 96}"])
def test_owner_and_name_can_be_a_repository(name: str) -> None:
    assert is_repository(name)


@pytest.mark.parametrize(
    "name",
    [
        *("model", "a/b/c", "/a/b", "./model", "../model", "a/", "a/b\n", "a b/c", "ä/b", "-a/b"),
        *("ada/a--b", "ada/a..b", "ada/x.git", f"a/{'b' * 97}", "https://huggingface.co/ada/model"),
    ],
)
def test_nothing_else_can(name: str) -> None:
    assert not is_repository(name)
