"""What licences ask of whoever ships code that is under them, in a few words that replace no reading of them."""

from starcoder.corpus.license_declarations import without_exception

_TABLE = {
    "keep its copyright notice, and ship a copy of the licence": """
        AFL-2.1 AFL-3.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause
        BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-3-Clause-Modification BSD-3-Clause-Open-MPI BSD-Source-Code Beerware
        Fair HPND ICU ISC MIT MIT-CMU MIT-Modern-Variant MIT-open-group MulanPSL-1.0 MulanPSL-2.0 NCSA NTP PostgreSQL
        Spencer-94 TCL UPL-1.0 Unicode-3.0 Unicode-DFS-2015 Unicode-DFS-2016 X11 Xnet""",
    "keep its notices and its NOTICE file if it has one, ship a copy of the licence, say which files you changed": """
        Apache-2.0 ECL-2.0""",
    "keep its copyright notice, ship a copy of the licence, and sum up what you changed": """
        CNRI-Python CNRI-Python-GPL-Compatible PSF-2.0 Python-2.0 Python-2.0.1""",
    "keep its copyright notice, ship a copy of the licence, and credit its authors in the words that it gives": """
        Apache-1.0 Apache-1.1 BSD-3-Clause-Attribution BSD-4-Clause BSD-4-Clause-UC MIT-advertising OpenSSL""",
    "credit its author, link to it and to the licence, and say what you changed": """
        CC-BY-3.0 CC-BY-4.0""",
    "keep the notice in the source, mark what you changed, and do not claim to have written the original": """
        Zlib zlib-acknowledgement Libpng libpng-2.0 bzip2-1.0.6""",
    "keep its notice and the licence in the source; a program that ships without source needs neither": """
        BSL-1.0""",
    "asks for nothing; to say where it is from is good manners": """
        0BSD CC-PDDC CC0-1.0 MIT-0 Unlicense WTFPL blessing""",
}
_ASKS = {license_id: words for words, names in _TABLE.items() for license_id in names.split()}


def asks(license_id: str) -> str:
    """What a licence, by its SPDX id, asks for; of those that are not in the table, where its text is."""
    base = without_exception(license_id)
    if base.startswith("LicenseRef-"):
        return "read the terms in the repository, which are its own"
    return _ASKS.get(base, f"read its terms: https://spdx.org/licenses/{base}")
