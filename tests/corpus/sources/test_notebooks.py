import ast
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Mark, Rejection
from starcoder.corpus.formatting import segments
from starcoder.corpus.sources.notebooks import documents_of, to_script, to_triplets
from starcoder.tokenizer import SENTINELS, Sentinel

PYTHON = {"language_info": {"name": "python", "file_extension": ".py"}, "kernelspec": {"name": "python3"}}
FILE = Document("owner/name", "docs/intro.ipynb", "", "ipynb", (), 9, stars=3)


def text(*lines: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": "\n".join(lines)}


def code(source: str | list[str], *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {"id": "x1"}, "source": source, "outputs": list(outputs)}


def printed(output: str | list[str]) -> dict[str, Any]:
    return {"output_type": "stream", "text": output}


SHOWN = {"output_type": "execute_result", "data": {"text/plain": "2"}}


def notebook(*cells: dict[str, Any], metadata: Any = PYTHON) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


def script(*cells: dict[str, Any], metadata: Any = PYTHON) -> tuple[str, str]:
    result = to_script(notebook(*cells, metadata=metadata))
    assert not isinstance(result, Rejection)
    return result


def triplets(*cells: dict[str, Any]) -> str:
    """The structured notebook with its control tokens spelled out."""
    result = to_triplets(notebook(*cells))
    assert not isinstance(result, Rejection)
    parts = segments(Document("r", "p", "jupyter", "ipynb", (), 0, result[0], kind="notebook", marks=result[1]), 1)
    return "".join(SENTINELS[part] if isinstance(part, Sentinel) else part for part in parts)


class TestScript:
    def test_markdown_becomes_comments_and_metadata_vanishes(self) -> None:
        cells = (
            text("# Add", "two numbers"),
            code(["x = 1\n", "y = 2"], printed("no")),
            code("%time x + y"),
            code(" \n"),
        )
        assert script(*cells) == ("# # Add\n# two numbers\n\nx = 1\ny = 2\n\n# %time x + y\n", "py")

    @pytest.mark.parametrize(
        ("metadata", "extension"),
        [
            (PYTHON, "py"),
            ({"language_info": {"file_extension": ".py"}}, "py"),
            ({"language_info": {"name": "julia", "file_extension": ".jl"}, "kernelspec": {"name": "julia"}}, "jl"),
            ({"language_info": {"name": "R", "file_extension": ".R"}}, "r"),
            ({"kernelspec": {"display_name": "Python 2", "name": "python2"}}, "py"),
            ({"language_info": {"file_extension": ".unheard-of"}, "kernelspec": {"language": "python"}}, "py"),
            ({"language_info": {"file_extension": ".ipynb"}, "kernelspec": {"language": "python"}}, "py"),
            ({"language_info": {"file_extension": ".md"}, "kernelspec": {"name": "ipykernel"}}, "py"),
        ],
    )
    def test_choice_of_language(self, metadata: dict[str, Any], extension: str) -> None:
        assert script(code("x = 1"), metadata=metadata) == ("x = 1\n", extension)

    @pytest.mark.parametrize(
        "metadata",
        [
            {},
            None,
            [],
            {"kernelspec": {"name": "ir"}},
            {"kernelspec": None, "language_info": "python"},
            {"language_info": {"file_extension": ".txt", "name": "python"}},
            {"jupytext": {"formats": "ipynb,py"}},
        ],
    )
    def test_unknown_language(self, metadata: Any) -> None:
        assert to_script(notebook(code("x = 1"), metadata=metadata)) == Rejection("notebook language unknown")

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, 99).map(lambda n: code(f"x{n} = {n}\n\n\nprint(x{n})")) | st.just(text("Text #"))))
    def test_script_runs_the_same_statements(self, cells: list[dict[str, Any]]) -> None:
        expected = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
        if cells:
            assert ast.dump(ast.parse(script(*cells)[0])) == ast.dump(ast.parse(expected))


class TestTriplets:
    def test_hand_made(self) -> None:
        assert triplets(
            code("import os", printed("before any text")),
            text("# First", "", "a <b>bold</b> word"),
            text("", "  and more"),
            code("x = 1", printed("dropped")),
            code("print(x)", printed(["1\n", "2\n"]), printed("second output")),
            {"cell_type": "raw", "source": "raw"},
            text("## Next"),
            code("x", SHOWN),
            text("after all code"),
        ) == (
            "<jupyter_start>"
            "<jupyter_text>First a bold word and more<jupyter_code>x = 1\nprint(x)<jupyter_output>1\n2\n"
            "<jupyter_text>Next<jupyter_code>x<jupyter_output><empty_output>"
        )

    def test_long_output_is_cut(self) -> None:
        assert triplets(text("a"), code("b", printed("x" * 1000))).endswith(f"<jupyter_output>{'x' * 1000}")
        assert triplets(text("a"), code("b", printed("x" * 1001))).endswith(f"<jupyter_output>{'x' * 1000}[...]")

    def test_only_real_control_tokens_are_marked(self) -> None:
        result = to_triplets(notebook(text("The <jupyter_code> token"), code("'<jupyter_output>'")))
        assert result == (
            "The  token'<jupyter_output>'",  # it looks like an HTML tag
            (
                *(Mark(0, "<jupyter_start>"), Mark(0, "<jupyter_text>"), Mark(10, "<jupyter_code>")),
                *(Mark(28, "<jupyter_output>"), Mark(28, "<empty_output>")),
            ),
        )

    def test_comparisons_are_no_tags(self) -> None:
        assert "<jupyter_text>if a < b and c > d<jupyter_code>" in triplets(text("if a < b and c > d"), code("x"))

    @pytest.mark.parametrize(
        ("cells", "reason"),
        [
            ([], "empty"),
            ([text(" \n"), code("")], "empty"),
            ([code("x")], "notebook without text before code"),
            ([text("x")], "notebook without text before code"),
            ([code("x"), text("x")], "notebook without text before code"),
        ],
    )
    def test_nothing_to_pair(self, cells: list[dict[str, Any]], reason: str) -> None:
        assert to_triplets(notebook(*cells)) == Rejection(reason)

    def test_other_languages(self) -> None:
        metadata = {"language_info": {"name": "R", "file_extension": ".r"}, "celltoolbar": "jupyter"}
        assert to_triplets(notebook(text("a"), code("b"), metadata=metadata)) == Rejection("notebook not in Python")

    @given(st.lists(st.sampled_from(["markdown", "code", "raw"])))
    def test_triplets_cover_what_lies_between_first_text_and_last_code(self, kinds: list[str]) -> None:
        cells = [{"cell_type": kind, "source": f"{kind}{i};"} for i, kind in enumerate(kinds)]
        result = to_triplets(notebook(*cells))
        used = [i for i, kind in enumerate(kinds) if kind != "raw"]
        while used and kinds[used[0]] == "code":
            del used[0]
        while used and kinds[used[-1]] == "markdown":
            del used[-1]
        content = "" if isinstance(result, Rejection) else result[0]
        assert content.replace(" ", "").replace("\n", "") == "".join(str(cells[i]["source"]) for i in used)


class TestDocuments:
    def test_both_kinds(self) -> None:
        first, second = documents_of(FILE, json.dumps(notebook(text("Sum é"), code("1 + 1"))).encode())
        assert (first.kind, first.language, first.extension, first.path) == (
            *("notebook-script", "python", "py"),
            "docs/intro.ipynb",
        )
        assert (first.content, first.size, first.marks) == ("# Sum é\n\n1 + 1\n", 16, ())
        assert (second.kind, second.language, second.extension) == ("notebook", "jupyter", "ipynb")
        assert (second.content, second.size, len(second.marks)) == ("Sum é1 + 1", 11, 5)
        assert {first.stars, second.stars} == {3}
        assert (first.rejection, second.rejection) == (None, None)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "notebook is not JSON"),
            (b"{", "notebook is not JSON"),
            (b"\xff\x00", "notebook is not JSON"),
            (b"[" * 100_000, "notebook is not JSON"),
            (b"[]", "notebook without cells"),
            (b'{"worksheets": []}', "notebook without cells"),
            (b'{"cells": 1}', "notebook without cells"),
            (b'{"cells": [null, 1, {}, {"cell_type": "code", "source": null}]}', "empty"),
            (json.dumps(notebook(text("\ud83d"), code("x"))).encode(), "not UTF-8"),
        ],
    )
    def test_what_is_wrong_with_a_file_is_a_rejection(self, data: bytes, reason: str) -> None:
        found = list(documents_of(FILE, data))
        assert [document.kind for document in found] == ["notebook-script", "notebook"]
        for document in found:
            assert document.rejection is not None
            assert (document.rejection.reason, document.content, document.marks) == (reason, "", ())

    @settings(max_examples=100)
    @given(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda values: (
                st.lists(values, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["cells", "metadata", "cell_type", "source", "outputs", "text", "kernelspec"]),
                    values | st.sampled_from(["code", "markdown", "python"]),
                )
            ),
        )
    )
    def test_no_json_is_fatal(self, value: Any) -> None:
        cells = [value, {"cell_type": "code", "source": value, "outputs": value}, value]
        metadata = {"language_info": value, "kernelspec": "python"}
        for content in (value, notebook(*cells, metadata=metadata)):
            assert len(list(documents_of(FILE, json.dumps(content).encode()))) == 2
