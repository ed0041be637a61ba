"""What tells passwords from what else stands behind the name of one, and the names of passwords from names like them.

A literal that serves as a password counts, however weak and in tests too; one that only says what belongs there
(`password`, `***`, `<secret>`), a template, a hash, a path, a label or a message does not.
"""

import re

SHORTEST, LONGEST = 2, 64
"""Characters of a password."""

_STRONG = (
    r"password|passwd|passwort|passphrase|kennwort|mot_?de_?passe|senha|contrase(?:ñ|n|ny|ni)a|wachtwoord|l(?:ö|o)senord"
    r"|has(?:ł|l)o|heslo|salasana|jelsz(?:ó|o)|(?:ş|s)ifre|adgangskode|пароль|密码|パスワード"
)
_WEAK = r"pass|pw|pwd|pword|clave|parola|mdp"
_WORDS = rf"{_STRONG}|{_WEAK}"
_HEAD = (
    r"(?:admin|app|auth|bind|client|db|database|e?mail|ftp|imap|jenkins|keystore|ldap|login|mongo|mqtt|my|mysql|pg|pop3?"
    r"|postgres|proxy|rabbit(?:mq)?|redis|require|root|sasl|smtp|sql|ssh|ssid|sta|su|sudo|test|user|usr|wifi|wlan|zip)"
)
_TAIL = (
    r"(?:_?(?:again|confirm(?:ation)?|repeat|retype|verify|value|val|str|string|plain|plaintext|literal|raw|bytes|prod"
    r"|production|dev|test|testing|staging|default|old|new|good|correct|wrong|bad|user|admin|root|db))?_?\d{0,2}"
)
_NAME = re.compile(rf"(?:(?:{_STRONG})|(?:^|_)(?:{_HEAD}_?)?(?:{_WEAK})){_TAIL}$")
_BARE = re.compile(rf"(?:^|_)(?:pass|clave|parola|mdp){_TAIL}$")
_HEADED = re.compile(rf"(?:^|_){_HEAD}_?(?:{_WEAK})")
_OTHER = re.compile(
    r"(?:^|_)(?:allow|ask|by|bypass|can|encompass|encrypted|enter|err|error|expired|field|forgot|forgotten|has|hashed"
    r"|have|hide|incorrect|is|label|lost|max|min|missing|msg|need|no|prompt|recover|regexp?|require_?(?!pass$)|requires"
    r"|reset|salt|show|toggle|type|update|use|without)(?:_(?:\w+_)?)?(?:pass|pw)"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-:]|\.")

_PLACEHOLDER = re.compile(
    rf"[\W_]*(?:(?:your|the|enter|insert|put|type|new|old|current|confirm|db|database|user|account|admin"
    rf"|login|plain|plaintext|clear|hashed|encrypted|reset|change|forgot|forgotten|no|id|set|get|invalid|empty|missing"
    rf"|keystore|ldap|smtp|email|mail|sudo|server|proxy|http|client|key|with|without|and|or|show"
    rf"|repeat|challenge|user_?name|master|root|ssh|ssl|vault|private_?key|auth|basic|grant|token|api)[\W_]*)*"
    rf"(?:{_WORDS}|passcode|credentials?)(?:e?s)?"
    rf"(?:[\W_]*(?:here|goes|field|confirm|confirmation|again|repeat|hash|hashed|label|input|text|value|prompt|only|reset"
    rf"|change|changed|required|needed|auth|authentication|login|placeholder|hint|help|error|type|file|path|env|var|name"
    rf"|id|key|salt|policy|rules?|strength|validators?|manager|protected|mode|form|view|credentials?|grant|invalid"
    rf"|expired|mismatch|incorrect|wrong|too|short|missing|old|new|current|or|and|is|in|from|for|with|reuse|history"
    rf"|update|updated|store|entry|box|edit|set|not|none|string|[12]))*[\W_]*",
    re.IGNORECASE,
)
_SAYS = re.compile(
    r"change[_ -]?(?:me|this|it)|replace[_ -]?(?:me|this|with)|place_?holder|redacted|removed|masked|censored|hidden"
    r"|example|your[_-]|_here$|-here$|todo|fixme|insert[_-]|enter[_-]|fill[_-]|must[_-]|should[_-]|do[_-]?not",
    re.IGNORECASE,
)
_WORD = re.compile(
    r"(?:abstract|account|any|anything|array|ask|auth|auto|basic|bear?er|binary|blank|boolean|bool|bytea?s?|callable|char"
    r"|confirm|credentials?|current|default|deprecated|dict|digest|disabled?|email|empty|enabled?|env|environment|error"
    r"|exact|expired|fail(?:ed|ure)?|false|field|file|float|function|generated?|get|hash(?:ed)?|ignored?|incorrect|init"
    r"|input|int|integer|invalid|key|keyring|label|list|login|mandatory|md5|mismatch|missing|mixed|never|new|nil|no|none"
    r"|normal|nothing|null|number|object|off|ok|old|on|open|optional|other|pam|plain|post|private|prompt|public|query"
    r"|random|read|ref|regexp?|required?|reset|return|salt|same|sanitized|scram|secretstr|self|sensitive|set|sha\d*"
    r"|skip|skipped|stdin|str|string|strong|success|text|textbox|token|true|type|undefined|unicode|union|unknown|unset"
    r"|unspecified|unused|user|username|user_name|value|varchar|void|warning|weak|write|yes|\d{1,3}px|\d{1,3}%)\??",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(
    r"[{<][^}>]*[}>]|\A[{<]|[{<]\Z|\$[(\[]|\A\$\w|\$[a-z_]{3}|\$[A-Z_]{3}|%(?:\(\w+\))?[sdr](?![a-z0-9])|%[A-Z_]{3,}%"
    r"|#\[|@@|\A%\w+\Z|\A@[A-Z]\w*(?:\.\w+)+\Z|\A:[a-z]\w*\Z|\A__\w+__\Z"
)
_HASH = re.compile(
    r"(?:pbkdf2|argon2|bcrypt|scrypt|sha\d*|md5|crypt)[\w-]*[$:({]"
    r"|(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{56,64})\Z|\*[0-9A-F]{40}\Z"
)
_PATH = re.compile(
    r"[./~]{0,2}/|[A-Za-z]:\\|[\w.+-]+://|(?:[\w.-]+/)+[\w.-]*\Z|[\w.-]+\.(?:txt|key|pem|json|ya?ml|html?|py|js|php|png"
    r"|svg|xml|conf|cfg|ini|log|csv|db|gpg|vue|tsx?)\Z"
)
_CODE = re.compile(
    r"[a-z_]+(?:\.[A-Za-z_]\w*)+\Z|\w+\(|\w+\[|[A-Z][a-z]+(?:[A-Z][a-z]+)+\Z|[A-Z]+(?:_[A-Z]+)+\Z|.*(?:\(\)|::|->|=>)"
    r"|\w+(?:\.\w+)+:\w+\Z"
)
_REGEX = re.compile(r"\^.*[$*+\])]\Z|\.[*+]|.*(?:\(\?|\[\^|\[[a-z0-9]-[a-z0-9]|\.[*+]\Z)")
_EDGES = re.compile(
    r"[,;)+&|=\]]|.*[(,:\[]\Z|.*[a-z]=\Z|\.[a-z]+(?:\(|\Z)|-{1,2}(?:[A-Za-z]|[a-z][a-z-]+)(?:=.*)?\Z|-[A-Z]\w+="
)
_IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z]+){2,}\Z")


def snake(name: str) -> str:
    """`name` in snake case."""
    return _HUMP.sub("_", name).lower().strip("_")


def is_password_name(name: str) -> bool:
    """Whether a name in snake case is one of a password."""
    return bool(_NAME.search(name)) and not _OTHER.search(name)


def is_weak_name(name: str) -> bool:
    """Whether a name of passwords is one of other things as often, as `pass` is: it needs more to go by."""
    return bool(_BARE.search(name)) and not _HEADED.search(name)


def is_mixed(value: str) -> bool:
    """Whether a value looks like a password even without a name: letters and digits, or signs inside of a word."""
    letters, digits = any(map(str.isalpha, value)), any(map(str.isdigit, value))
    signs = any(sign in "!@#$%^&*?+" for sign in value)
    return len(value) > 3 and letters and (digits or signs)


def may_be_password(value: str, name: str = "") -> bool:
    """Whether a value can be a password, whatever stands around it but its name in snake case."""
    if not SHORTEST <= len(value) <= LONGEST or len(set(value)) < 2 or not _has_substance(value):
        return False
    if _PLACEHOLDER.fullmatch(value) or _WORD.fullmatch(value) or _SAYS.search(value):
        return False
    shapes = (_TEMPLATE.search, _HASH.match, _PATH.match, _CODE.match, _REGEX.match, _EDGES.match, _IDENTIFIER.match)
    return not any(shape(value) for shape in shapes) and not name.endswith(snake(value))


def _has_substance(value: str) -> bool:
    """Whether a value has letters or digits, and foreign letters only beside digits, unlike the words of a label."""
    return any(map(str.isalnum, value)) and (value.isascii() or any(map(str.isdigit, value)))
