"""Passwords that have a form; the paper's rules (§4.2) have none for them.

Found are the passwords of URLs (`scheme://user:PASSWORD@host`), literals behind the name of a password in many
languages (`password = "…"`, `"db_passwd": "…"`, `<senha>…</senha>`, `--password=…`, `.set_password("…")`), pairs of a
user and a password (`auth=("ann", "…")`), and the arguments of `sshpass`, `mysql`, `curl` and SQL's `IDENTIFIED BY`.
Without quotes a value counts only where its surroundings are configuration: lines `name=value` and `name: value`, a
data source, a query, an environment variable of a command. `password_places` knows the surroundings, `password_guards`
judges names and values.
"""

import re
from collections.abc import Iterator

from typing_extensions import override

from starcoder.pii.entity import Detector, Entity, first_come
from starcoder.pii.password_guards import is_password_name, may_be_password
from starcoder.pii.password_places import QUOTED, Place

_PASS = re.compile(r"pass(?![ \t]*\n|ed\b|ing\b|es\b|ive)")
_WORDS = (
    *("pw", "clave", "senha", "contrase", "wachtw", "kennwort", "senord", "parola", "mdp"),
    *("hasło", "haslo", "heslo", "salasana", "jelsz", "sifre", "şifre", "adgangskode", "пароль", "密码", "パスワード"),
)
"""What names of passwords hold, in lower case, besides "pass"."""
_BACK = re.compile(r"[\w.-]{0,40}")
_FORWARD = re.compile(r"[\w-]{0,40}")
_LONGEST = 40  # characters of a name on either side of its word

_URL = re.compile(r"""://([^\s/@:"'<>`\\]{0,64}+):([^\s/@"'<>`\\,]{2,64}+)@(?=[\w\[$%{<.-])""")
_REPOSITORY = re.compile(r"(?:git(?:hub|lab|ea)|cvs)\Z")
_USER = r"""[bu]?(?P<q>["'])[^"'\s]{1,80}(?P=q),\s{0,20}"""
_ACCOUNTS = tuple(  # each begins with letters of its own, which `re` finds fast
    re.compile(pattern)
    for pattern in (
        rf"uth(?:enticate)?(?:[ ]?[=:][ ]?)?[\[(][ ]?{_USER}{QUOTED}[ ]?[)\]]",
        rf"UTH[ ]?[=:][ ]?[\[(][ ]?{_USER}{QUOTED}[ ]?[)\]]",
        rf"ogin\([ ]?{_USER}{QUOTED}[ ]?[,)]",
        rf"redentials?\([ ]?{_USER}{QUOTED}[ ]?[,)]",
        rf"getConnection\([^,()\n]{{1,120}},[ ]?{_USER}{QUOTED}[ ]?\)",
        rf"mysql_real_connect\([^,()\n]{{1,40}},[^,()\n]{{1,60}},[ ]?{_USER}{QUOTED}",
        rf"mysqli(?:_connect)?\([^,()\n]{{1,60}},[ ]?{_USER}{QUOTED}",
        rf"create_(?:super)?user\([ ]?{_USER}[^,()\n]{{1,60}},[ ]?{QUOTED}[ ]?[,)]",
        rf",[ ]?(?:self\.)?\w{{0,20}}[pP]ass(?:word|wd)?[ ]?=[ ]?\(?{_USER}{QUOTED}",
        rf"IDENTIFIED[ ]{{1,3}}(?:WITH[ ]{{1,3}}\S{{1,40}}[ ]{{1,3}})?(?:BY|AS)[ ]{{1,3}}(?!`){QUOTED}",
        rf"identified[ ]{{1,3}}by[ ]{{1,3}}(?!`){QUOTED}[ ]?(?:;|[\"\n]|with|\Z)",
        r"""sshpass[ ]{1,2}-p[ ]?["']?(?P<value>[^\s"'`\\|;&)]{2,64})""",
        r"""mysql(?:dump|admin|import)?[ ](?:[^\n|;"'`]{0,80}[ ])?-p["']?(?P<value>[^\s"'`\\|;&)]{2,64})""",
        r"""curl[ ](?:[^\n|;"'`]{0,80}[ ])?(?:-u|--user)[ ]?["']?[^\s:"'$@{}]{1,60}:(?P<value>[^\s"'`\\|;&)]{2,64})""",
        r"""htpasswd[ ]-\w{0,8}b\w{0,8}[ ]\S{1,80}[ ]\S{1,40}[ ]["']?(?P<value>[^\s"'`\\|;&)]{2,64})""",
    )
)
"""Arguments of calls, of SQL and of commands."""


class PasswordDetector(Detector):
    """Finds passwords, in linear time."""

    @property
    @override
    def name(self) -> str:
        return "password"

    @override
    def detect(self, text: str) -> list[Entity]:
        spans = sorted({*_in_urls(text), *_of_names(text), *_of_accounts(text)})
        return first_come(Entity(start, end, "PASSWORD", detector=self.name) for start, end in spans)


def _in_urls(text: str) -> Iterator[tuple[int, int]]:
    """The passwords of accounts in URLs; a number behind a host is a port."""
    for match in _URL.finditer(text):
        port = match[2].isdigit() and ("." in match[1] or match[1] == "localhost")
        repository = _REPOSITORY.search(text, max(0, match.start() - 8), match.start())
        if not port and not repository and may_be_password(match[2]):
            yield match.span(2)


def _of_accounts(text: str) -> Iterator[tuple[int, int]]:
    """What stands behind a user rather than behind the name of a password."""
    for pattern in _ACCOUNTS:
        for match in pattern.finditer(text):
            if may_be_password(match["value"]):
                yield match.span("value")


def _of_names(text: str) -> Iterator[tuple[int, int]]:
    """What stands behind the name of a password."""
    end = 0
    for word in sorted(_words(text)):
        if word < end:
            continue
        start = word - _length(_BACK, text[max(0, word - _LONGEST) : word][::-1])
        end = word + _length(_FORWARD, text[word : word + _LONGEST])
        place = Place(text, start, end)
        if is_password_name(place.name) and (span := place.value()):
            yield span


def _words(text: str) -> Iterator[int]:
    """Where a name of a password may be."""
    folded = text.replace("İ", "i").lower()  # the one letter that would become two
    yield from (match.start() for match in _PASS.finditer(folded))
    for word in _WORDS:
        place = folded.find(word)
        while place >= 0:
            yield place
            place = folded.find(word, place + len(word))


def _length(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0
