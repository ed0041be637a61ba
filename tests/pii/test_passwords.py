"""Passwords that have a form, and what only looks like one."""

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.pii.combine import combine
from starcoder.pii.detectors import RegexDetector
from starcoder.pii.entity import Entity
from starcoder.pii.password_guards import is_password_name, may_be_password, snake
from starcoder.pii.passwords import PasswordDetector
from starcoder.pii.redaction import Redactor, redact
from tests.pii.fuzz import assert_linear, assert_sound, texts

FOUND = (  # the password stands between « and »
    "postgres://ann:«s3cr3t»@db:5432/x",
    "postgresql+psycopg2://ann:«s3cr3t»@10.0.0.1/x",
    "mongodb+srv://u:«p%40ss9»@cluster0.acme.net/",
    "redis://:«hunter2»@10.0.0.1:6379/0",
    "'amqp://guest:«guest»@localhost:5672//'",
    "ftp://ann:«1234»@ftp.acme.org",
    "https://ann:«pa:ss»@acme.org/path",
    'password = "«hunter2»"',
    "PASSWD: '«hunter2»'",
    '  "db_password": "«hunter2»",',
    'const char *password = "«hunter2»";',
    'char password[64] = "«hunter2»";',
    '#define WIFI_PASSWORD "«hunter2»"',
    'password: str = "«hunter2»"',
    'password: str | None = "«hunter2»"',
    'var password string = "«hunter2»"',
    'val password: String = "«hunter2»"',
    "let adminPassword = `«hunter2»`;",
    'f(user="x", password="«hunter2»", db="y")',
    'settings["password"] = "«hunter2»"',
    "$cfg['db_pass'] = '«hunter2»';",
    "'password' => '«hunter2»',",
    r"{\"password\": \"«hunter2»\"}",
    "password = (\n    '«hunter2»'\n)",
    "define('DB_PASSWORD', '«hunter2»');",
    'os.environ.get("X_PASSWORD", "«hunter2»")',
    'p = os.getenv("DB_PASSWORD") or "«hunter2»"',
    "x = process.env.DB_PASSWORD || '«hunter2»'",
    "${DB_PASSWORD:-«hunter2»}",
    "<password>«hunter2»</password>",
    '<property name="password" value="«hunter2»"/>',
    '<add key="Password" value="«hunter2»"/>',
    'parser.add_argument("--password", default="«hunter2»")',
    "mysql --password=«hunter2» -u root",
    "mysql -u root -p«hunter2» db",
    "foo --password «hunter2» bar",
    "['mysqldump', '--password', '«hunter2»']",
    "sshpass -p '«hunter2»' ssh x@y",
    "curl -u ann:«hunter2» https://x",
    "htpasswd -bc file ann «hunter2»",
    "CREATE USER 'x'@'y' IDENTIFIED BY '«hunter2»';",
    "CREATE USER x WITH ENCRYPTED PASSWORD '«hunter2»';",
    "ALTER ROLE x PASSWORD '«hunter2»';",
    "requirepass «hunter2»",
    'auth=("ann", "«hunter2»")',
    "HTTPBasicAuth('ann', '«hunter2»')",
    "AUTH = ('ann', '«hunter2»')",
    'new UsernamePasswordCredentials("ann", "«hunter2»")',
    'mysql_real_connect(con, "localhost", "ann", "«hunter2»", "db", 0, NULL, 0)',
    "mysqli_connect('localhost', 'ann', '«hunter2»')",
    "create user ann identified by '«hunter2»';",
    'client.login("ann", "«hunter2»")',
    'user.set_password("«hunter2»")',
    "assert user.check_password('«hunter2»')",
    'user, password = "ann", "«hunter2»"',
    'DriverManager.getConnection(url, "ann", "«hunter2»")',
    'User.objects.create_user("ann", "ann@acme.org", "«hunter2»")',
    '"Server=x;Database=y;User Id=sa;Password=«hunter2»;"',
    '"host=10.0.0.1 dbname=x user=y password=«hunter2»"',
    "jdbc:mysql://h:3306/x?user=y&password=«hunter2»",
    "docker run -e POSTGRES_PASSWORD=«hunter2» -d postgres",
    "user = ann\npassword = «hunter2»",
    "DB_PASSWORD=«hunter2»",
    "export DB_PASSWORD=«hunter2»",
    "PGPASSWORD=«hunter2» psql -h x",
    "[db]\nuser = ann\npassword = «hunter2»\nhost = x\n",
    "database:\n  username: ann\n  password: «secret»\n  host: x\n",
    "machine x login ann password «hunter2»",
    "x = 1  # pw: «hunter2»",
    "# the password for the demo is «hunter2».",
    'passwort = "«geheim»"',
    'mot_de_passe = "«hunter2»"',
    'clave = "«hunter2»"',
    'senha: "«hunter2»"',
    'contraseña = "«hunter2»"',
    'lösenord = "«hunter2»"',
    'HASŁO = "«hunter2»"',
    'parola = "«hunter2»"',
    "wachtwoord = '«hunter2»'",
    'İ = 1; password = "«hunter2»"',
    'passphrase=b"«hunter2»"',
    'password1 = "«hunter2»"',
    'password_confirm = "«hunter2»"',
    'if password == "«hunter2»":',
    'password="«M9xl]eMSX5s}Z^Z$t»"',
    'password="«correct-horse-battery-staple»"',
)
NOT_FOUND = (
    'password = "password"',
    'password = "***"',
    'password = "xxxxxxxx"',
    'password = "<password>"',
    'password = "<PASSWORD>"',
    "PASSWORD=<PASSWORD>",
    "x://ann:<PASSWORD>@db",
    'password = "your-password-here"',
    'password = "changeme"',
    'password = "${DB_PASSWORD}"',
    'password = "$PASSWORD"',
    'password = "{{ password }}"',
    'password = f"{user}"',
    'password = "%(password)s"',
    'password = "%s"',
    'password = ""',
    'password = "x"',
    f'password = "{"aB3" * 22}"',
    "password = None",
    "password: str",
    "password: string;",
    "password: Password,",
    'password = getpass("Password: ")',
    'password = os.environ["DB_PASSWORD"]',
    'print("Enter your password: ", end="")',
    '"password": "Enter your password",',
    '"password": "Passwort",',
    '"password": "Пароль"',
    '"password": "string",',
    '"password": "required",',
    '"password": "id_password",',
    '"password": "passwordConfirm",',
    '"password": "auth.password.label",',
    '"password": {"type": "string"},',
    'fields = ("name", "email", "password", "address")',
    "f(user=user, password=password)",
    "self.password = password",
    '<input type="password" name="password" id="id_password">',
    'password_hash = "$2b$12$abcdefghijklmnopqrstuv"',
    'password = "pbkdf2_sha256$1$a$b"',
    'password = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="',
    'password = "5f4dcc3b5aa765d61d8327deb882cf99"',
    'password_field = "hunter2"',
    'invalid_reset_password_url = "hunter2"',
    'password = "/run/secrets/db"',
    'password = "https://acme.org/reset"',
    'password = "^[a-z]{8,}$"',
    '"password="+pwd+"&x"',
    "http://user:${VAR}@host",
    "http://user:{}@host",
    "http://user:%s@host",
    "http://user:<password>@host",
    "http://user:***@host",
    "http://host:8080/@x",
    "//registry.acme.org:8080@sha256",
    "npm install foo://pkg@1.0",
    "github://org:repo@sha/path",
    "git@github.com:ann/x",
    "pwd = os.getcwd()",
    "PWD=/home/x",
    'bypass = "abc123"',
    'compass = "abc123"',
    'render_pass = "shadow"',
    '"pass": "ok",',
    'if "password" in data: x = "foo"',
    'msg = "password must not be empty"',
    "imap.authenticate('LOGIN', 'joe_user', 'joes_password')",
    "use a default login and password to avoid a prompt",
    "work with pass `-Dconf=no` only",
    "cvs://:pserver:anoncvs@acme.org:/cvs/src",
    "'password': '-p',",
    '#define SN_id_revPassphrase "id-revPassphrase"',
    "object identified by `group_name`",
    "<password></password>",
    "class A:\n    user: str\n    password: SecretStr\n    host: str\n",
    "if x:\n    user = foo\nelse:\n    password = default\n",
    "f(\n    user=user,\n    password=passwd2\n)",
    "pass\npass\n",
    "self.user = ann\npassword = hunter2\n",
    "user = ann;\npassword = hunter2\n",
    "[db]\nuser = ann\npassword = Settings.db_pw1\n",
)


NAMES = (
    *("password", "passwd", "passwort", "passphrase", "kennwort", "mot_de_passe", "senha", "contraseña", "contrasenya"),
    *(
        "wachtwoord",
        "lösenord",
        "losenord",
        "hasło",
        "haslo",
        "heslo",
        "salasana",
        "jelszó",
        "jelszo",
        "şifre",
        "sifre",
    ),
    *("adgangskode", "пароль", "密码", "パスワード", "pass", "pw", "pwd", "pword", "clave", "parola", "mdp", "db_pass"),
)
NO_VALUES = (  # each is known by one guard alone
    *("replace-this", "placeholder1", "redacted!", "removed!", "masked!", "censored!", "hidden!", "mail@example9"),
    *("your-9", "a9_here", "a9-here", "todo!", "fixme!", "insert-9", "enter-9", "fill-9", "must-9", "should-9"),
    *("donot9", "{a1", "<a1", "a1{", "a1$(b", "a1$[b", "$1", "a1$abc", "a1$ABC", "%ABC%1", "a1#[b", "a1@@b", "&a1"),
    *("%A1", "@Ab.c", ":a1", "__a1__", "*" + "0123456789ABCDEF0123456789ABCDEF01234567", "C:\\a1", "a1/b1", "a1.pem"),
    *("a.b1", "a1(b", "a1[b", "AbcDef", "ABC_DEF", "a1-9()9", "a1!::9", "a1!->9", "a1!=>9", "a1.b:c", "^a1$", ".*a1"),
    *("a1!(?9", "-1[^9", "a1![0-9", "a1!.*", ",a1", "=a1", "a1!(", "a1!:", "9a=", ".ab", "--ab", "-Ab1=9", "ab_cd_ef"),
)


def found(text: str) -> list[str]:
    return [text[entity.start : entity.end] for entity in PasswordDetector().detect(text)]


@pytest.mark.parametrize("marked", FOUND)
def test_a_password_is_found_and_nothing_around_it(marked: str) -> None:
    text = re.sub("[«»]", "", marked)
    start = marked.index("«")
    end = marked.index("»") - 1
    assert PasswordDetector().detect(text) == [Entity(start, end, "PASSWORD", detector="password")]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_is_no_password_is_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_looked_for(name: str) -> None:
    assert found(f'{name} = "hunter2"') == ["hunter2"]


@pytest.mark.parametrize("value", NO_VALUES)
def test_what_is_no_password_whatever_its_name(value: str) -> None:
    assert not may_be_password(value)


def test_a_name_that_means_other_things_too_needs_a_value_that_looks_like_a_password() -> None:
    assert found('pass = "shadow"') == []
    assert found('pass = "shadow1"') == ["shadow1"]
    assert found('db_pass = "shadow"') == ["shadow"]


@pytest.mark.parametrize("marked", FOUND)
def test_after_redaction_the_rules_find_nothing(marked: str) -> None:
    text = re.sub("[«»]", "", marked)
    (result,) = Redactor(PasswordDetector).redact_all([text], [""])
    assert result.text == re.sub("«.*»", "<PASSWORD>", marked)
    assert (result.counts, result.left) == ({"PASSWORD": 1}, {})
    assert found(result.text) == []


def test_python_code_still_parses() -> None:
    text = 'password = "hunter2"\nlogin(user="ann", password=b\'s3cret\')\nurl = f"db://ann:pa55@{host}"\n'
    result = redact(text, RegexDetector().detect(text), "python")
    assert result.counts == {"PASSWORD": 3}
    ast.parse(result.text)


def test_the_rules_find_passwords_beside_the_rest_and_no_address_in_them() -> None:
    text = 'url = "https://ann:s3cret.x@db.acme.org/"  # mail to ann@acme.org\n'
    assert [(entity.label, text[entity.start : entity.end]) for entity in RegexDetector().detect(text)] == [
        ("PASSWORD", "s3cret.x"),
        ("EMAIL", "ann@acme.org"),
    ]


def test_a_rule_counts_more_than_the_model() -> None:
    rule, model = Entity(3, 9, "PASSWORD", 1.0, "regex"), Entity(0, 9, "PASSWORD", 0.99, "ner")
    assert combine([rule], [model]) == [rule]


@pytest.mark.parametrize(
    "name", ["password", "DBPassword", "dbPasswd", "user_pass", "my-pwd", "Passwort2", "sshpass", "sftpPw", "a.pw"]
)
def test_names_of_passwords(name: str) -> None:
    assert is_password_name(snake(name))


@pytest.mark.parametrize(
    "name",
    [
        "bypass",
        "password_file",
        "has_password",
        "passThrough",
        "n_passes",
        "powder",
        "upwd",
        "resetPassword",
        "reset.pw",
    ],
)
def test_other_names(name: str) -> None:
    assert not is_password_name(snake(name))


PASSWORDS = st.text(st.sampled_from("abcdefgXYZ0123456789!#-_"), min_size=4, max_size=64).filter(may_be_password)


@given(PASSWORDS, st.sampled_from(("password", "DB_PASSWD", "smtpPassword", "senha")), st.sampled_from("'\"`"))
def test_a_literal_is_found_whole_wherever_it_is_assigned(value: str, name: str, quote: str) -> None:
    literal = quote + value + quote
    for text in (f"{name} = {literal}", f"{{{name}: {literal}}}", f"x;{name}={literal},", f"d['{name}']={literal}"):
        if not snake(name).endswith(snake(value)):
            assert found(text) == [value]


@given(PASSWORDS)
def test_the_password_of_a_url_is_found_whole(value: str) -> None:
    assert found(f"see mysql://ann:{value}@db.acme.org:3306/x") == [value]


@given(
    st.text(st.characters() | st.sampled_from("=:'\"@/<> \n-pw"), max_size=80), st.sampled_from(("password", "://a:"))
)
def test_entities_are_sound_in_any_text(text: str, word: str) -> None:
    assert_sound(PasswordDetector(), text[:40] + word + text[40:])


def test_entities_are_sound_in_ten_thousand_broken_texts() -> None:
    detector = PasswordDetector()
    for text in texts(10_000, seed=17):
        assert_sound(detector, text)


def test_work_grows_with_the_text_and_not_faster() -> None:
    assert_linear(PasswordDetector())
