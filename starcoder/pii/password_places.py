"""What stands behind the name of a password and is meant as its value: the signs between the two, and what is around.

A quoted value counts behind `=`, `:`, a call or a getter; a bare one where its surroundings are configuration.
"""

import re

from starcoder.pii.password_guards import is_mixed, is_weak_name, may_be_password, snake

VALUE = r"""[^"'`\s\\]{2,64}"""
OPEN = r"""(?:[bBuUrRLN@]?|[rR][bB])(?P<quote>\\?["'`])"""
CLOSE = r"""(?P=quote)(?!["'`])"""
QUOTED = rf"{OPEN}(?P<value>{VALUE}){CLOSE}"
"""A literal without blanks and escapes; quotes may be escaped, as those of JSON in a string are."""

_ASSIGNED = re.compile(
    rf"""(?P<end>\\?["'`])?(?:\)?\]|\[\d{{0,4}}\])?
    (?:[ ]?[?!]?:[ ]?[A-Za-z_][\w.]{{0,30}}(?:[ ]?\|[ ]?[Nn]one|\[str\]|\?)?[ \t]{{0,4}}(?==)
      |[ ][sS]tring(?=[ ]=))?  # a type
    [ \t]{{0,40}}(?P<sign>={{1,3}}>?|:=?|\|\|=|\?\?=|!==?|-eq)[ \t]{{0,20}}(?:\n[ \t]{{0,40}})?\(?{QUOTED}""",
    re.VERBOSE,
)
_CALLED = re.compile(rf"\([ ]?{QUOTED}")
_PAIRED = re.compile(
    rf"""\\?["'`][ ]?(?:,[ \t]{{0,4}}{QUOTED}[ ]?[\])]
    |[^"'\n()<>]{{0,60}}\b(?:value|default)[ ]?=[ ]?(?P<quote2>["'])(?P<value2>{VALUE})(?P=quote2))""",
    re.VERBOSE,
)
_DEFAULT = re.compile(rf"""["'`]?[\])]?[ ](?:\|\||or|\?\?|\?:)[ ]{QUOTED}""")
_SHELL_DEFAULT = re.compile(r"""(?<!:):?[-=](?P<value>[^\s"'`{}$]{2,64})\}""")
_ELEMENT = re.compile(r"""(?P<tag>)>[ ]?(?P<value>[^\s<>"'&]{2,64})[ ]?</""")
_APART = re.compile(rf"""[ \t]{{1,40}}(?:{QUOTED}|(?P<bare>[^\s"'`\\;|&()]{{2,64}})(?=[\s"'`;|&)]|\Z))""")
_LINE = re.compile(
    r"""(?P<sign>[ \t]{0,20}=[ \t]{0,8}|:[ \t]{1,8})(?P<value>[^\s"'`\\,(){}\[\]]{2,64})[ \t]{0,20}
    (?:[#;][^\n]{0,80})?(?=\r?\n|\Z)""",
    re.VERBOSE,
)
_JOINED = re.compile(r"""=(?P<value>[^\s;&"'`,(){}<>\[\]\\$|]{2,64})(?=(?P<after>[;&"'`\\\s]|\Z))""")

_CALLS = re.compile(
    r"(?:set|check|verify|hash|make|with|change|encrypt)_(?:user_)?pass(?:word|wd|phrase)\Z|pass(?:word|wd|phrase)\Z"
)
_GETTERS = re.compile(
    r"(?:get|getenv|getOrDefault|put|set|setProperty|getProperty|define|env|config|setdefault|setenv|fetch|prop|param"
    r"|query|set_?option|put_?string|set_?config|add_?property|update|default)\(\s?[fbu]?\Z",
    re.IGNORECASE,
)
_LINE_START = re.compile(r"[ \t]*(?:(?:export|set|setenv|SET|ENV|ARG|env|[-#;])[ ]{1,2}){0,2}\Z")
_DASHES = re.compile(r"(?:\A|[\s\"'`=,(\[])--?\Z")
_SQL = re.compile(
    r"(?:ENCRYPTED|WITH|LOGIN|SUPERUSER|IDENTIFIED BY|(?:USER|ROLE)\s{1,3}\S{1,60})\s{1,3}\Z", re.IGNORECASE
)
_TARGETS = re.compile(r"[ \t]*[\w.]+,[ ]?(?:self\.)?\Z")
_NETRC = re.compile(r"login[ \t\n]{1,8}\S{1,64}[ \t\n]{1,8}\Z")
_PAIR_BEFORE = re.compile(
    r"(?:user|usr|uid|host|server|source|dbname|database|catalog|login|email|driver|port|username|user id)[ ]?=[^,(){}\n]{1,60}[; ]\Z",
    re.IGNORECASE,
)
_COMMAND_BEFORE = re.compile(
    r"(?:(?:-e|--env|--build-arg|-v|-var|--set|export|sudo|env)[ =][\"']?|(?:\A|&&|;|\|\|)[ ]?\$?[ ]?)\Z"
)
_SOMEBODY = re.compile(
    r"user|usr|login|account|usuario|utilisateur|benutzer|host|admin|root|smtp|ftp|ssh|mysql|ssid", re.IGNORECASE
)
_CONFIG = re.compile(
    r"[ \t]*(?:[#;!][^\n]*|\[[\w .:\"/-]+\]|(?:export |- |-e )?[\"\w./-]{1,60}[ \t]*[=:](?:[ \t]?[^\n(){}\[\],]*|[ \t]*\[.*\])|- [^\n(){},]*|---)\r?\Z"
)
_STATEMENT = re.compile(
    r"[ \t]*(?:else|try|finally|self\.|this\.|return|import|from|let|var|const|local|my|default)\b|.*;\s*\Z"
)


class Place:
    """The name of a password in a text."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.start, self.end = text, start, end
        self.written = text[start:end]
        self.name = snake(self.written)
        self.before = text[max(0, start - 120) : start]
        self.quote = self.before[-1:] if self.before[-1:] in {"'", '"', "`"} else ""

    def value(self) -> tuple[int, int] | None:
        """Where the value stands that is meant, if there is one."""
        for pattern, fits in (
            (_ASSIGNED, self._is_assigned),
            (_CALLED, self._is_called),
            (_PAIRED, self._is_paired),
            (_DEFAULT, self._is_default),
            (_SHELL_DEFAULT, self._is_shell_default),
            (_ELEMENT, self._is_element),
            (_APART, self._is_apart),
            (_LINE, self._is_line),
            (_JOINED, self._is_joined),
        ):
            match = pattern.match(self.text, self.end)
            if match and fits(match):
                group = next(name for name in ("value", "value2", "bare") if match.groupdict().get(name))
                if may_be_password(match[group], self.name) and (self._is_sure() or is_mixed(match[group])):
                    return match.span(group)
        return None

    def _is_sure(self) -> bool:
        return not is_weak_name(self.name) or bool(_SOMEBODY.search(self.before))

    def _is_assigned(self, match: re.Match[str]) -> bool:
        """`password = "…"`, `"password": "…"`, `password == "…"`; not the quote that ends `"password="`."""
        if not match["end"] and self.quote and self.quote == match["quote"][-1]:
            return False
        if _TARGETS.match(self.before.rpartition("\n")[2]) and self.text[match.end() : match.end() + 1] == ",":
            return False
        return match["sign"][:2] not in {"==", "!=", "eq"} or is_mixed(match["value"])

    def _is_called(self, _match: re.Match[str]) -> bool:
        """`user.set_password("…")`."""
        method = snake(self.written.rpartition(".")[2])
        return bool(_CALLS.match(method)) and ("_" in method or "." in self.written or self.written.isupper())

    def _is_paired(self, match: re.Match[str]) -> bool:
        """`get("password", "…")`, `["--password", "…"]`, `name="password" value="…"`."""
        if not self.quote:
            return False
        return bool(match["value2"] or self.written.startswith("--") or _GETTERS.search(self.before[:-1]))

    def _is_default(self, _match: re.Match[str]) -> bool:
        """`process.env.PASSWORD || "…"`."""
        return self.name != self.written

    def _is_shell_default(self, _match: re.Match[str]) -> bool:
        """`${PASSWORD:-…}`."""
        return self.before.endswith("${")

    def _is_element(self, match: re.Match[str]) -> bool:
        """`<password>…</password>`."""
        opened = self.before.endswith(("<", ":"))
        return opened and self.text.startswith(self.written, match.end())

    def _is_apart(self, match: re.Match[str]) -> bool:
        """`--password …`, `#define PASSWORD "…"`, `WITH PASSWORD '…'`, `requirepass …`."""
        if self.written.startswith("--"):
            return match["value"] is not None or is_mixed(match["bare"])
        if match["value"]:
            return self.before.endswith("#define ") or bool(_SQL.search(self.before))
        line = self.before.rpartition("\n")[2].strip(" #")
        return (self.name == "requirepass" and not line) or (
            self.name == "password" and bool(_NETRC.search(self.before))
        )

    def _is_line(self, match: re.Match[str]) -> bool:
        """A line `password: …` or `PASSWORD=…` of a file of configuration."""
        line = self.before.rpartition("\n")[2]
        if not _LINE_START.match(line) or (self.start > 120 and "\n" not in self.before):
            return False
        value, sign = match["value"], match["sign"].strip()
        if sign == "=" and self.written.isupper():
            return True
        if re.fullmatch(r"[A-Za-z]+(?:[._]\w+)+", value) or (sign == ":" and "." in self.written):
            return False
        return self._is_in_config(match.end(), alike=not value.isalpha() or ":" in sign)

    def _is_in_config(self, end: int, alike: bool) -> bool:
        """Whether the lines around are configuration, too, and there are some."""
        above = self.text[max(0, self.start - 400) : self.start].split("\n")[1:-1][-3:]
        below = self.text[end : end + 400].split("\n")[1:][:3]
        lines = [line for line in above + below if line.strip()]
        told = any(map(_SOMEBODY.search, lines)) or any(line.startswith("[") for line in lines)
        good = all(_CONFIG.match(line) and not _STATEMENT.match(line) for line in lines)
        return alike and good and told

    def _is_joined(self, match: re.Match[str]) -> bool:
        """`--password=…`, `?user=…&password=…`, `user=… password=…`, `-e PASSWORD=…`."""
        if self.written.startswith("--") or self.before.endswith(("?", "&", "&amp;")):
            return True
        if self.written.isupper() and (
            _COMMAND_BEFORE.search(self.before.rpartition("\n")[2]) or self.quote == match["after"]
        ):
            return bool(self.quote or match["after"].strip(" ") or match["after"] == " ")
        return bool(_PAIR_BEFORE.search(self.before))
