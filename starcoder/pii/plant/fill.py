"""Fills the slots of templates: what is planted, what it is labelled, and where it ends up.

A slot is «name», or «name2» for a second person, or «key:github» for one shape of a key; generated examples add the
number of their template («name@3») so that two templates speak of two people.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

from starcoder.pii.entity import Entity
from starcoder.pii.plant import addresses, people, secrets
from starcoder.pii.plant.nobody import COMPANIES, TERMS
from starcoder.pii.plant.people import Person, Pool
from starcoder.pii.plant.sides import Split, listed, share

SLOT = re.compile(r"«(md5|sha1|sha256|[A-Za-z_]+)(\d*)(?::([\w-]+))?(?:@(\d+))?»")
_PORT = re.compile(r":[«\d]")
_PLANTED = {
    "name": "NAME",
    "cite": "NAME",
    "last": "NAME",
    "first": "NAME",
    "listed": "NAME",
    "initial": "NAME",
    "medline": "NAME",
    "email": "EMAIL",
    "user": "USERNAME",
    "ip": "IP_ADDRESS",
    "key": "KEY",
    "pem": "KEY",
    "password": "PASSWORD",
    "urlpassword": "PASSWORD",
    "id": "ID",
    "ambiguous": "AMBIGUOUS",
    **{f"{name}_{kind}": f"{name.replace('user', 'username').upper()}_{kind.upper()}"
       for name in ("name", "email", "user") for kind in ("license", "example")},
}  # fmt: skip
"""Slot → category of what fills it; other slots are filled with what is nobody's."""

_OF_PERSONS: dict[str, Callable[[Person], str]] = {
    **dict.fromkeys(("name", "name_license"), lambda someone: someone.shown),
    **dict.fromkeys(("email", "email_license"), lambda someone: someone.email),
    **dict.fromkeys(("user", "user_license"), lambda someone: someone.handle),
    "cite": lambda someone: f"{someone.last}, {someone.first[0]}.",
    "last": lambda someone: someone.last,
    "first": lambda someone: someone.first,
    "listed": lambda someone: f"{someone.last}, {someone.first}",
    "initial": lambda someone: f"{someone.first[0]}. {someone.last}",
    "medline": lambda someone: f"{someone.last} {someone.first[0]}",
}

_NOBODY = {
    "name_example": "John Doe|Jane Doe|Foo Bar|Alice|Bob|Joe Bloggs|Max Mustermann|John Smith|Your Name|Juan Pérez",
    "user_example": "username|johndoe|jdoe|foo|your-name|jane_doe|someuser|octocat|user123|exampleuser",
    "email_example": "user|john.doe|jane|me|info|foo|test|bob|admin|you|alice|someone|name",
}
_NO_DOMAINS = (
    "example.com",
    "example.org",
    "example.net",
    "test.com",
    "foo.com",
    "domain.com",
    "localhost.localdomain",
)
# What variables that hold something are called.
_KEY_NAMES = listed("""
    api_key|apikey|auth_token|access_token|secret|client_secret|secret_key|app_secret|token|bearer|bot_token|private_token
    |oauth_token|webhook_secret|signing_key|encryption_key|license_key|session_secret|jwt_secret|service_key|user_token
    |consumer_key|consumer_secret|app_key|application_key|auth_key|authorization|bearer_token|credentials|csrf_token
    |deploy_key|device_token|github_token|hmac_key|id_token|integration_key|master_key|maps_key|private_key|publish_key
    |push_token|refresh_token|repo_token|secret_access_key|security_token|server_key|shared_secret|signature|slack_token
    |storage_key|subscription_key|sync_token|upload_token|write_key|read_key|oauth_secret|salt_key|cookie_secret|account_key
""")
_PASSWORD_NAMES = listed("""
    password|passwd|pwd|passwort|db_password|db_pass|smtp_password|admin_password|user_pass|login_pw|root_password|pass_
    |passphrase|wifi_password|ftp_pass|test_password|default_pwd|pw|sudo_password|vpn_password|mot_de_passe|clave|senha
    |login_password|user_password|secret_password|mysql_pwd|pg_password|redis_password|keystore_password|storepass|keypass
    |mail_pass|imap_password|proxy_password|ssh_pass|sa_password|new_password|old_password|default_password|master_pass
    |wpa_passphrase|pin_code|unlock_code|account_password|auth_pass|basic_password|ldap_pw|bind_password|haslo|contrasena
    |userpwd|dbpwd|dbpass|dbpassword|adminpw|rootpw|wifi_pass|wifi_key|guest_password|panel_password|router_password
""")
_HOST_NAMES = listed("""
    host|server|server_ip|master|gateway|remote|bind_address|peer|upstream|ip|ip_addr|address|broker|nameserver|proxy|addr
    |target|node|db_host|listen|dns|controller|endpoint
    |mqtt_server|mqtt_host|redis_host|db_server|remote_addr|client_ip|source_ip|src_ip|dst_ip|dest_ip|local_ip|public_ip
    |host_ip|static_ip|ip_address|gateway_ip|router|router_ip|ntp_server|dns_server|printer_ip|robot_ip|camera_ip
    |listen_addr|bind_host|hostname|primary|secondary|replica|worker_host|cluster_ip|load_balancer|smtp_host|ftp_host
""")
_SERVICES = (
    "admin",
    "root",
    "postgres",
    "app",
    "sa",
    "test",
    "guest",
    "service",
    "deploy",
    "readonly",
    "ubuntu",
    "mysql",
    "oracle",
    "jenkins",
    "www-data",
    "pi",
    "backup",
    "vagrant",
    "ec2-user",
    "git",
    "elastic",
    "system",
)
_HOSTS = ("api", "www", "db", "git", "mail", "dev", "staging", "registry", "internal", "ci")


def labels_of(template: str) -> tuple[str, ...]:
    """The categories of a template's slots, in their order."""
    return tuple(_PLANTED[slot[1]] for slot in SLOT.finditer(template) if slot[1] in _PLANTED)


class Filler:
    """Fills the slots of one example."""

    def __init__(self, split: Split, random: Random, words: Sequence[str] = ()) -> None:
        """Draw from the pool of `split`; two in three plain words from `words`, those of the host."""
        self._split: Split = split
        self._words = words
        self._random = random
        self._pool: Pool = people.pool(split)
        self._people: dict[str, Person] = {}

    def fill(self, text: str) -> tuple[str, tuple[Entity, ...]]:
        """`text` with its slots filled, and what was planted where."""
        pieces: list[str] = []
        found: list[Entity] = []
        length = at = 0
        for slot in SLOT.finditer(text):
            value = self._value(slot, quote=text[slot.start() - 1 : slot.start()])
            before, after = ("[", "]") if _in_url(text, slot) and ":" in value else ("", "")
            pieces += [text[at : slot.start()], before, value, after]
            start = length + slot.start() - at + len(before)
            if label := _PLANTED.get(slot[1]):
                found.append(Entity(start, start + len(value), label, detector="planted"))
            length = start + len(value) + len(after)
            at = slot.end()
        return "".join([*pieces, text[at:]]), tuple(found)

    def _value(self, slot: re.Match[str], quote: str) -> str:
        name, number, shape, template = slot.groups()
        if of := _OF_PERSONS.get(name):
            return of(self._someone(f"{number}@{template}", quote))
        if self._words and name.lower() == "word" and self._random.random() < 2 / 3:
            word = self._random.choice(self._words)
            return {"word": word, "Word": word.capitalize(), "WORD": word.upper()}[name]
        if shape:
            return secrets.shaped(secrets.SHAPES[self._split][shape], self._random)
        return _FILLERS[name](self._split, self._pool, self._random)

    def _someone(self, which: str, quote: str) -> Person:
        if which not in self._people:
            someone = people.person(self._split, self._random)
            while quote == "'" and "'" in someone.shown + someone.first + someone.last:
                someone = people.person(self._split, self._random)
            self._people[which] = someone
        return self._people[which]


def _in_url(text: str, slot: re.Match[str]) -> bool:
    """Whether an address stands in a URL or before a port, where one of IPv6 has brackets."""
    return slot[1] == "ip" and bool(text.endswith("//", 0, slot.start()) or _PORT.match(text, slot.end()))


_Fill = Callable[[Split, Pool, Random], str]


def _password(split: Split, everybody: Pool, random: Random) -> str:
    return secrets.password(split, everybody.words, everybody.names, random)


def _url_password(split: Split, everybody: Pool, random: Random) -> str:
    while True:
        found = _password(split, everybody, random)
        if re.fullmatch(r"[\w!$*.=~-]+", found):
            return found


def _shaped(shape: str) -> _Fill:
    return lambda split, everybody, random: secrets.shaped(shape, random)


def _one_of(choices: tuple[str, ...]) -> _Fill:
    return lambda split, everybody, random: random.choice(choices)


def _share_of(choices: tuple[str, ...]) -> _Fill:
    shares: dict[Split, tuple[str, ...]] = {"train": share(choices, "train"), "test": share(choices, "test")}
    return lambda split, everybody, random: random.choice(shares[split])


def _range(low: int, high: int) -> _Fill:
    return lambda split, everybody, random: str(random.randint(low, high))


def _word(split: Split, everybody: Pool, random: Random) -> str:
    return random.choice(everybody.words)


def _host(split: Split, everybody: Pool, random: Random) -> str:
    return f"{random.choice(_HOSTS)}.{people.domain(everybody.words, random)}"


def _email_example(split: Split, everybody: Pool, random: Random) -> str:
    return f"{random.choice(_NOBODY['email_example'].split('|'))}@{random.choice(_NO_DOMAINS)}"


def _date(split: Split, everybody: Pool, random: Random) -> str:
    year, month, day = random.randint(1996, 2024), random.randint(1, 12), random.randint(1, 28)
    form = random.choice(
        ["{0}-{1:02}-{2:02}", "{0}-{1:02}-{2:02}", "{0}/{1:02}/{2:02}", "{2:02}.{1:02}.{0}", "{2}/{1}/{0}"]
    )
    return form.format(year, month, day)


def _version(split: Split, everybody: Pool, random: Random) -> str:
    return ".".join(str(random.randrange(30)) for _ in range(random.choices([2, 3, 4], [3, 6, 1])[0]))


def _build(split: Split, everybody: Pool, random: Random) -> str:
    return f"{random.randrange(4, 120)}.0.{random.randrange(300, 20000)}.{random.randrange(1, 300)}"


def _uuid(split: Split, everybody: Pool, random: Random) -> str:
    found = secrets.shaped("<hex:8>-<hex:4>-4<hex:3>-a<hex:3>-<hex:12>", random)
    return found.upper() if random.random() < 0.2 else found


def _oid(split: Split, everybody: Pool, random: Random) -> str:
    return random.choice(["1.3.6.1.4.1.", "1.2.840.113549.1.", "2.5.29.", "2.16.840.1."]) + ".".join(
        str(random.randrange(1, 40)) for _ in range(random.randint(1, 4))
    )


_FILLERS: dict[str, _Fill] = {
    "ip": lambda split, everybody, random: addresses.address(random),
    "key": lambda split, everybody, random: secrets.key(split, random),
    "pem": lambda split, everybody, random: secrets.pem_body(random),
    "password": _password,
    "urlpassword": _url_password,
    "id": lambda split, everybody, random: secrets.shaped(
        random.choice(["<d:12>", "<d:3>-<d:2>-<d:4>", "E<d:6>"]), random
    ),
    "ambiguous": _shaped("<hex:20>"),
    "name_example": _share_of(tuple(_NOBODY["name_example"].split("|"))),
    "user_example": _share_of(tuple(_NOBODY["user_example"].split("|"))),
    "email_example": _email_example,
    "word": _word,
    "keyvar": _share_of(_KEY_NAMES),
    "KEYVAR": lambda split, everybody, random: random.choice(share(_KEY_NAMES, split)).upper(),
    "passvar": _share_of(_PASSWORD_NAMES),
    "PASSVAR": lambda split, everybody, random: random.choice(share(_PASSWORD_NAMES, split)).upper(),
    "hostvar": _share_of(_HOST_NAMES),
    "HOSTVAR": lambda split, everybody, random: random.choice(share(_HOST_NAMES, split)).upper(),
    "Word": lambda split, everybody, random: _word(split, everybody, random).capitalize(),
    "WORD": lambda split, everybody, random: _word(split, everybody, random).upper(),
    "host": _host,
    "account": _one_of(_SERVICES),
    "company": _share_of(COMPANIES),
    "term": _share_of(TERMS),
    "port": _range(1024, 65535),
    "int": _range(10, 9999),
    "digit": _range(1, 9),
    "year": _range(1994, 2024),
    "stamp": _range(1_000_000_000, 1_700_000_000),
    "time": lambda split, everybody, random: secrets.shaped("1<d:1>:4<d:1>:2<d:1>", random),
    "date": _date,
    "version": _version,
    "four": lambda split, everybody, random: ".".join(str(random.randrange(0, top)) for top in (20, 30, 100, 256)),
    "build": _build,
    "hash": lambda split, everybody, random: secrets.shaped(random.choice(["<hex:7>", "<hex:8>", "<hex:10>"]), random),
    "md5": _shaped("<hex:32>"),
    "sha1": _shaped("<hex:40>"),
    "sha256": _shaped("<hex:64>"),
    "uuid": _uuid,
    "oid": _oid,
    "mac": _shaped("<hex:2>:<hex:2>:<hex:2>:<hex:2>:<hex:2>:<hex:2>"),
    "color": _shaped("<hex:6>"),
    "ticket": lambda split, everybody, random: (
        f"{random.choice(['JIRA', 'PROJ', 'GH', 'OPS'])}-{random.randrange(10, 9999)}"
    ),
    "publickey": _shaped("AAAAB3NzaC1yc2EAAAADAQABAAABAQ<b64:96>"),
    "image": lambda split, everybody, random: "iVBORw0KGgo" + secrets.shaped("<b64:60>", random) + "==",
}
