import pytest

from starcoder.errors import UserError, needing, one_line


def test_a_missing_package_is_one_line_with_the_extras_that_bring_it() -> None:
    with (
        pytest.raises(UserError, match=r"^no_such_package is not installed: pip install 'starcoder-kit\[some,more\]'$"),
        needing("some,more"),
    ):
        import no_such_package  # noqa: F401


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(KeyError), needing("some"):
        raise KeyError


def test_a_message_is_one_line() -> None:
    assert one_line(ValueError("a\n  b\r\n")) == "a b"
