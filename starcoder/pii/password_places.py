"""What stands behind the name of a password and is meant as its value: the signs between the two, and what is around.

A quoted value counts behind `=`, `:`, a call or a getter; a bare one where its surroundings are configuration.
"""

import re
from collections.abc import Callable

from starcoder.pii.password_guards import is_mixed, is_weak_name, may_be_password, snake

_LOOKED_AT, _AROUND = 120, 400  # characters before a name; on both sides of a line of configuration
VALUE = r"""[^"'`\s\\]{2,64}"""
OPEN = r"""(?:[bBuUrRLN@]?|[rR][bB])(?P<quote>\\?["'`])"""
CLOSE = r"""(?P=quote)(?!["'`])"""
QUOTED = rf"{OPEN}(?P<value>{VALUE}){CLOSE}"
"""A literal without blanks and escapes; quotes may be escaped, as those of JSON in a string are."""

_ASSIGNED = re.compile(
    rf"""(?P<end>\\?["'`])?(?:\)?\]|\[\d{{0,4}}\])?
    (?:[ ]?[?!]?:[ ]?[A-Za-z_][\w.]{{0,30}}(?:[ ]?\|[ ]?[Nn]one|\[str\]|\?)?[ \t]{{0,4}}(?==)
      |[ ][sS]tring(?=[ ]=))?  # a type
    [ \t]{{0,40}}(?P<sign>={{1,3}}>?|:=?|\|\|=|\?\?=|!==?|-eq)[ \t]{{0,20}}\(?(?:\n[ \t]{{0,40}})?{QUOTED}""",
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

_NOTED = re.compile(
    r"""(?P<is>(?:[ ]for[ ][\w ]{1,40})?[ ]is:?)?(?(is)|:)[ ]{1,4}
    (?P<value>[^\s"'`\\,(){}\[\]]{3,63}[^\s"'`\\,(){}\[\]:;.])\.?(?=[ ]*(?:\*/|-->)?[ ]*(?:\r?\n|\Z))""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"(?:#|//|/\*|<!--|--|;|%|[ ]\*)[ ]?\Z")
_CALLS = re.compile(r"(?:(?:set|check|verify|hash|make|with|change|encrypt)_(?:user_)?)?pass(?:word|wd|phrase)\Z")
_GETTERS = re.compile(
    r"(?:get|getenv|getOrDefault|put|set|setProperty|getProperty|define|env|config|setdefault|setenv|fetch|prop|param"
    r"|query|set_?option|put_?string|set_?config|add_?property|update|default)\(\s?[fbu]?\Z",
    re.IGNORECASE,
)
_LINE_START = re.compile(r"[ \t]*(?:(?:export|set|setenv|SET|ENV|ARG|env|[-#;])[ ]{1,2}){0,2}\Z")
_SQL = re.compile(
    r"(?:ENCRYPTED|WITH|LOGIN|SUPERUSER|IDENTIFIED BY|(?:USER|ROLE)\s{1,3}\S{1,60})\s{1,3}\Z", re.IGNORECASE
)
_TARGETS = re.compile(r"[ \t]*[\w.]+,[ ]?(?:self\.)?\Z")
_NETRC = re.compile(
    r"(?:(?:machine[ \t\n]{1,8}\S{1,64}|default)[ \t\n]{1,8}|\n[ \t]{0,8})"
    r"login[ \t\n]{1,8}(?!and\b)\S{1,64}[ \t\n]{1,8}\Z"
)
_PAIR_BEFORE = re.compile(
    r"(?:user|usr|uid|host|server|source|dbname|database|catalog|login|email|driver|port|username|user id)[ ]?="
    r"[^,(){}\n]{1,60}[; ]\Z",
    re.IGNORECASE,
)
_COMMAND_BEFORE = re.compile(
    r"(?:(?:-e|--env|--build-arg|-v|-var|--set|export|sudo|env)[ =][\"']?|(?:\A|&&|;|\|\|)[ ]?\$?[ ]?)\Z"
)
_SOMEBODY = re.compile(
    r"user|usr|login|account|usuario|utilisateur|benutzer|host|admin|root|smtp|ftp|ssh|mysql|ssid", re.IGNORECASE
)
_CONFIG = re.compile(
    r"""[ \t]*(?:[#;!][^\n]*|\[[\w .:"/-]+\]|---|-[ ][^\n(){},]*
    |(?:export[ ]|-[ ]|-e[ ])?["\w./-]{1,60}[ \t]*[=:](?:[ \t]?[^\n(){}\[\],]*|[ \t]*\[.*\]))\r?\Z""",
    re.VERBOSE,
)
_STATEMENT = re.compile(
    r"[ \t]*(?:else|try|finally|self\.|this\.|return|import|from|let|var|const|local|my|default)\b|.*;\s*\Z"
)
_ATTRIBUTES = re.compile(r"[A-Za-z]+(?:[._]\w+)+")


class Place:
    """The name of a password in a text.

    Args:
        text: The text.
        start: Where the name starts.
        end: Where it ends.
    """

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.start, self.end = text, start, end
        self.written = text[start:end]
        self.name = snake(self.written)
        self.before = text[max(0, start - _LOOKED_AT) : start]
        self.line = self.before.rpartition("\n")[2]
        self.quote = self.before[-1:] if self.before[-1:] in {"'", '"', "`"} else ""

    def value(self) -> tuple[int, int] | None:
        """Where the value stands that is meant, if there is one."""
        for pattern, fits in _FORMS:
            match = pattern.match(self.text, self.end)
            if match and fits(self, match):
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
        if _TARGETS.match(self.line) and self.text[match.end() : match.end() + 1] == ",":
            return False  # the first of several values that are assigned to several names
        return match["sign"][:2] not in {"==", "!=", "-e"} or is_mixed(match["value"])

    def _is_called(self, _match: re.Match[str]) -> bool:
        """`user.set_password("…")`."""
        method = snake(self.written.rpartition(".")[2])
        return bool(_CALLS.match(method)) and ("_" in method or "." in self.written or self.written.isupper())

    def _is_paired(self, match: re.Match[str]) -> bool:
        """`get("password", "…")`, `["--password", "…"]`, `name="password" value="…"`."""
        known = match["value2"] or self.written.startswith("--") or _GETTERS.search(self.before[:-1])
        return bool(self.quote and known)

    def _is_default(self, _match: re.Match[str]) -> bool:
        """`process.env.DB_PASSWORD || "…"`."""
        return self.name != self.written

    def _is_shell_default(self, _match: re.Match[str]) -> bool:
        """`${PASSWORD:-…}`."""
        return self.before.endswith("${")

    def _is_element(self, match: re.Match[str]) -> bool:
        """`<password>…</password>`."""
        return self.before.endswith(("<", ":")) and self.text.startswith(self.written, match.end())

    def _is_apart(self, match: re.Match[str]) -> bool:
        """`--password …`, `#define PASSWORD "…"`, `WITH PASSWORD '…'`, `requirepass …`."""
        if self.written.startswith("--"):
            return match["value"] is not None or is_mixed(match["bare"])
        if match["value"]:
            is_sql = self.name == "password" and _SQL.search(self.before)
            return self.before.endswith("#define ") or bool(is_sql)
        if self.name == "requirepass":
            return not self.line.strip(" #")
        return self.name == "password" and bool(_NETRC.search(self.before))

    def _is_line(self, match: re.Match[str]) -> bool:
        """A line `password: …` or `PASSWORD=…` of a file of configuration."""
        value, sign = match["value"], match["sign"]
        if not _LINE_START.match(self.line) or len(self.line) == _LOOKED_AT:
            return False
        if sign == "=" and self.written.isupper():
            return True
        is_yaml = ":" in sign
        if _ATTRIBUTES.fullmatch(value) or (is_yaml and "." in self.written) or (value.isalpha() and not is_yaml):
            return False
        return self._is_in_config(match.end(), is_mixed(value))

    def _is_in_config(self, end: int, is_sure: bool) -> bool:
        """Whether the lines around are configuration, too, and, for a value that could be any word, of an account."""
        whole = 0 if self.start <= _AROUND else 1  # the first line of the stretch may be cut
        above = self.text[max(0, self.start - _AROUND) : self.start].split("\n")[whole:-1][-3:]
        below = self.text[end : end + _AROUND].split("\n")[1:][:3]
        lines = [line for line in above + below if line.strip()]
        told = any(line.startswith("[") or _SOMEBODY.search(line) for line in lines)
        return (
            bool(lines)
            and (is_sure or told)
            and all(_CONFIG.match(line) and not _STATEMENT.match(line) for line in lines)
        )

    def _is_noted(self, match: re.Match[str]) -> bool:
        """A comment `# pw: …` or `the password for the demo is …`."""
        return bool(match["is"] or _COMMENT.search(self.line)) and is_mixed(match["value"])

    def _is_joined(self, match: re.Match[str]) -> bool:
        """`--password=…`, `?user=…&password=…`, `user=… password=…`, `-e PASSWORD=…`."""
        if self.written.startswith("--") or self.before.endswith(("?", "&", "&amp;")):
            return True
        if self.written.isupper() and (self.quote or match["after"].isspace()):
            return bool(_COMMAND_BEFORE.search(self.line)) or self.quote == match["after"]
        return bool(_PAIR_BEFORE.search(self.before))


_FORMS: tuple[tuple[re.Pattern[str], Callable[[Place, re.Match[str]], bool]], ...] = (
    (_ASSIGNED, Place._is_assigned),
    (_CALLED, Place._is_called),
    (_PAIRED, Place._is_paired),
    (_DEFAULT, Place._is_default),
    (_SHELL_DEFAULT, Place._is_shell_default),
    (_ELEMENT, Place._is_element),
    (_APART, Place._is_apart),
    (_LINE, Place._is_line),
    (_NOTED, Place._is_noted),
    (_JOINED, Place._is_joined),
)
"""What may stand behind the name, and whether what stands around it fits; the first that does counts."""
