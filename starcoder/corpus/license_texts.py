"""Which files hold licences, and which licences the texts of those files are (paper §3)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import PurePosixPath

from licenseclassifier import LicenseIdentificationResult, identify_license

from starcoder.corpus.license_names import parse, reference, resolve

# A usual name with any suffix but that of code or data, or the id of a licence before it. Names that tell of other
# projects' parts, and files for one picture or font such as ICON_LICENSE.md, are not the folder's.
_ID = r"(?:mit|bsd|apache|isc|[al]?gpl|mpl|epl|zlib|boost|cc|cc0|psf|unlicense|ofl)[-_.v\d]*"
_LICENSE_FILE = re.compile(
    rf"(?:{_ID}[-_.])?(?:(?:un)?licen[cs]es?|copying|copyright)\d*(?:[-_.].*)?|{_ID}\.(?:txt|md)", re.IGNORECASE
)
_ANOTHER_FILE = re.compile(
    r".*(?:third|3rd).?part.*|.*(?:external|bundled|vendor|dependenc|header|template).*"
    r"|(?:notice|author|contributor|readme|change|changelog|code_of_conduct|thank|credit|patent|news|history)s?\b.*"
    r"|.*\.(?:py[ci]?|ipynb|[cm]?[jt]sx?|json|ya?ml|toml|xml|csv|c|cc|cpp|h|hpp|go|rs|java|rb|php|sh|bat|cmake|css|svg|png"
    r"|gz|zip|about|spdx|lock|sig|asc|sha\d+)",
    re.IGNORECASE,
)
_METADATA = re.compile(r".+\.(?:dist|egg)-info", re.IGNORECASE)
_STORES = ("licenses", "license_files")

_LONGEST = 2**20
_LONGEST_POINTER = 2000
_UNDERSTOOD = 0.7
_BUNDLED = re.compile(r"\bdistributions?\b[^.]{0,80}?\bbundles?\b", re.IGNORECASE)
# Words that take back what licences grant. A permission for commercial and non-commercial use, the rule that a name
# must not be used to endorse products, and Apache's "not use this file except in compliance" do not.
_VERB = (
    r"(?:us(?:e|ed|ing)|cop(?:y|ied)|modif(?:y|ied)|sublicen[cs]ed?|sell|sold|resell|commerciali[sz]ed?|disclosed?"
    r"|reproduced?|(?:re)?distribut(?:e|ed|ing))"
)
_RESTRICTION = re.compile(
    r"commons\W{1,3}clause"
    r"|(?<!\bcommercial and )(?<!\bcommercial or )(?<!\bcommercial, )\bnon[- ]?commercial\b(?!,? (?:and|or) commercial)"
    rf"|\b(?:may|must|shall|agree) ?not\b[^.;]{{0,40}}?\b{_VERB}\b"
    r"(?![^.;]{0,80}\b(?:except (?:in|as|according|under|pursuant)|endors|promot|advertis|publicity))"
    r"|\bnot\b[^.;]{0,40}?\bfor commercial (?:use|purposes)\b"
    r"|\b(?:not|no) (?:\w+ ){0,4}?(?:redistribut\w+|revers(?:e|ing)[- ]engineer\w*|decompil\w+)"
    r"|\b(?:is|are|be) (?:strictly |expressly )?(?:prohibited|forbidden)\b|\bstrictly prohibited\b"
    r"|\bproprietary and confidential\b|\bconfidential and proprietary\b|\bproprietary (?:to|rights|information)\b"
    r"|\b(?:internal|academic|research|educational|evaluation|personal)(?: \w+)? (?:use|purposes) only\b"
    r"|\b(?:only|solely) for (?:\w+ ){0,3}?(?:internal|academic|research|educational|evaluation|personal|private)\b"
    r"|\blicen[cs]e does not apply to (?:the )?(?:use|any|compan|organi[sz]ation|commercial)"
    r"|\A\W*(?:\w+ ){0,4}?end[- ]user licen[cs]e agreement",
    re.IGNORECASE,
)
_COPYRIGHT_LINE = re.compile(
    r"^[^\w\n]*(?:portions )?(?:copyright\b|\(c\)|©).*|all rights reserved\.?", re.IGNORECASE | re.MULTILINE
)
_POINTER = re.compile(
    r"(?:\.\./)+[\w.-]+|(?=.{0,300}\Z)(?!.*://).*\b(?:see|refer|found in|same)\b.*(?:\.\./|licen[cs]e|copying).*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class LicenseText:
    """What stands in a licence file.

    Attributes:
        ids: SPDX ids in their order; none when most of the text is something else, or something restricts it.
        bundled: Ids below the line that says that what follows is about other works, which a distribution bundles.
        share: Of the characters above that line, those that are the text of a licence.
        seen: Ids of all licences above that line, even when most of the text is something else.
        restriction: Words beside those licences that restrict what may be done; empty when there are none.
        is_pointer: Whether the text is at most a copyright line and a pointer to another file.
    """

    ids: tuple[str, ...]
    bundled: tuple[str, ...]
    share: float
    seen: tuple[str, ...] = ()
    restriction: str = ""
    is_pointer: bool = False


def is_license_file(path: str) -> bool:
    """Whether a file holds the licence of its folder, by its name: LICENSE, COPYING.LESSER, LICENSE-MIT, ….

    All that stands in the `licenses` folder of a .dist-info counts, but for the notices and lists of authors there.
    """
    *folders, name = path.split("/")
    if _ANOTHER_FILE.fullmatch(name):
        return False
    stored = any(_METADATA.fullmatch(folder) and inner in _STORES for folder, inner in pairwise(folders))
    return stored or _LICENSE_FILE.fullmatch(name) is not None


def covered_folder(path: str) -> str:
    """The folder that the licence file at `path` is about; the root is the empty string."""
    *folders, _ = PurePosixPath(path).parts
    at = next((at for at, folder in enumerate(folders) if _METADATA.fullmatch(folder)), None)
    if at is None:
        return "/".join(folders)
    below = folders[at + 1 :]
    return "/".join([*folders[:at], *(below[1:] if below[:1] and below[0] in _STORES else below)])


@lru_cache(512)
def read_license_text(data: bytes) -> LicenseText:
    """Return the licences in the content of a licence file; a short one may be just a name."""
    text = data[:_LONGEST].decode(errors="replace")
    name = resolve(text)
    if name:
        return LicenseText((name,), (), 1.0)
    line = _BUNDLED.search(text)
    own, others = (text[: line.start()], text[line.start() :]) if line else (text, "")
    regions = identify_license(own, coverage_threshold=0)
    share = sum(region.end - region.start for region in regions) / max(len(own), 1)
    restriction = _restriction(own, regions)
    seen = _ids(regions)
    return LicenseText(
        ids=seen if share >= _UNDERSTOOD and not restriction else (),
        bundled=_ids(identify_license(others, coverage_threshold=0)),
        share=share,
        seen=seen,
        restriction=restriction,
        is_pointer=_is_pointer(own),
    )


def _restriction(text: str, regions: Iterable[LicenseIdentificationResult]) -> str:
    """The first words outside the `regions`, which are texts of licences, that restrict."""
    at, outside = 0, []
    for region in sorted(regions, key=lambda region: region.start):
        outside.append(text[at : region.start])
        at = max(at, region.end)
    pieces = (" ".join(piece.split()) for piece in [*outside, text[at:]])
    found = next(filter(None, map(_RESTRICTION.search, pieces)), None)
    return found[0][:60] if found else ""


def _is_pointer(text: str) -> bool:
    if len(text) > _LONGEST_POINTER:
        return False
    rest = " ".join(_COPYRIGHT_LINE.sub("", text).split())
    return not rest.strip("-=#* ") or _POINTER.fullmatch(rest) is not None


def _ids(regions: Iterable[LicenseIdentificationResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(parse(region.id) or reference(region.id)) for region in regions))
