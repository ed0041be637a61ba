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
_UNDERSTOOD = 0.7
_BUNDLED = re.compile(r"\bdistributions?\b[^.]{0,80}?\bbundles?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LicenseText:
    """What stands in a licence file.

    Attributes:
        ids: SPDX ids in their order; none when most of the text is something else.
        bundled: Ids below the line that says that what follows is about other works, which a distribution bundles.
        share: Of the characters above that line, those that are the text of a licence.
    """

    ids: tuple[str, ...]
    bundled: tuple[str, ...]
    share: float


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
    ids = _ids(regions) if share >= _UNDERSTOOD else ()
    return LicenseText(ids, _ids(identify_license(others, coverage_threshold=0)), share)


def _ids(regions: Iterable[LicenseIdentificationResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(parse(region.id) or reference(region.id)) for region in regions))
