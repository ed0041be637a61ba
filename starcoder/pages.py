"""Pages of HTML that need nothing else, with texts of strangers in them."""

import base64
import hashlib

from jinja2 import Environment, PackageLoader

from starcoder.text import visible


def page_environment(package: str) -> Environment:
    """The templates of a package, which escape what is put into them.

    Their filters are `n` for numbers, `visible` for what may not print, and `csp_hash`, by which a page allows its own
    script and no other.

    Args:
        package: Package with a folder `templates`.
    """
    environment = Environment(loader=PackageLoader(package), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"n": "{:,}".format, "visible": visible, "csp_hash": _csp_hash}
    return environment


def _csp_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
