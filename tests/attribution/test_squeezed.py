from hypothesis import given
from hypothesis import strategies as st

from starcoder.attribution.squeezed import squeeze


@given(st.text(alphabet=st.sampled_from("ab \n\t\r\x0b\u00a0\u2003é😀"), max_size=60))
def test_the_view_is_the_words_and_knows_where_they_are(text: str) -> None:
    view = squeeze(text)
    assert view.text == " ".join(text.split())
    assert len(view.places) == len(view.text) + 1
    for place, character in zip(view.places, view.text, strict=False):
        assert text[place] == character or (character == " " and text[place].isspace())
    if view.text:
        start, end = view.original(0, len(view.text))
        assert text[start:end] == text.strip()


def test_a_part_is_found_in_the_original() -> None:
    view = squeeze("  if x:\n\t\treturn  y\n")
    start = view.text.index("return")
    assert view.original(start, start + len("return y")) == (10, 19)


def test_white_space_is_what_python_takes_for_it() -> None:
    everything = "".join(f"a{chr(code)}" for code in range(0x110000))
    assert squeeze(everything).text == " ".join(everything.split())
