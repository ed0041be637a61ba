import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils._runtime import is_xet_available
from transformers import AutoModelForCausalLM

from starcoder.cli import main
from starcoder.errors import UserError
from starcoder.model import StarCoder
from starcoder.release import repository
from starcoder.release.card import sealed
from starcoder.release.client import clean
from starcoder.release.push import push
from tests.conftest import ROOT, Tiny, starcoder, start
from tests.release.conftest import CARD, TOKEN, bytes_of, large_bytes, save_release
from tests.release.hub import ALWAYS, Hub, User

REPO = "ada/model"
PROMPT = torch.arange(24).view(1, 24)


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 10 kB are large, and nobody waits."""
    monkeypatch.setattr(repository, "LARGE", 10_000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture(autouse=True)
def secrets_stay(hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Whatever a test does, nothing shows or keeps a secret; gives what was shown so far."""
    shown: list[str] = []

    def look() -> str:
        shown.extend(capfd.readouterr())
        text = "".join(shown)
        assert TOKEN not in text
        assert "never-show-this" not in text
        written = (path for path in tmp_path.rglob("*") if path.is_file())
        assert not [path for path in written if TOKEN.encode() in path.read_bytes() and path.parent.name != "model"]
        assert hub.leaks == []
        return text

    yield look
    look()


def refused(model: Path, look: Callable[[], str], **options: object) -> str:
    """The one line that a push ends in."""
    with pytest.raises(UserError) as error:
        push(model, repo=REPO, **options)  # type: ignore[arg-type]
    look()
    line, trace = str(error.value), "".join(traceback.format_exception(error.value))
    assert "\n" not in line
    assert TOKEN not in trace
    assert "never-show-this" not in trace
    return line


def other_weights(model: Path) -> None:
    """Change one number of a model in a folder; the sizes of its files stay."""
    shard = next(model.glob("model-00001*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def assert_whole(hub: Hub, model: Path, revision: str = "main") -> None:
    there = hub.content(REPO, revision)
    there.pop(".gitattributes")
    assert there == bytes_of(model)


@pytest.mark.parametrize("part_size", [1 << 40, 50_000])
def test_what_was_pushed_comes_back_byte_by_byte_and_computes_the_same(
    hub: Hub, model: Path, secrets_stay: Callable[[], str], part_size: int
) -> None:
    hub.part_size = part_size
    push(model, repo=REPO)
    assert_whole(hub, model)
    assert hub.repos[REPO].private
    assert hub.received == large_bytes(model)
    assert len(hub.repos[REPO].commits) == 2
    copy = Path(snapshot_download(REPO))
    assert {name: content for name, content in bytes_of(copy).items() if name != ".gitattributes"} == bytes_of(model)
    with torch.inference_mode():
        ours, theirs = (StarCoder.from_pretrained(source).eval()(PROMPT) for source in (model, REPO))
    assert torch.equal(ours, theirs)
    push(model, repo=REPO)
    assert "all 13 files were there" in secrets_stay()
    assert len(hub.repos[REPO].commits) == 2
    assert hub.received == large_bytes(model)


FAULTS = {
    "token unknown": (lambda hub: hub.fail("GET", "whoami", 401), ["does not know this token", "hf auth login"]),
    "namespace of others": (lambda hub: hub.fail("POST", "/create", 403), ["may not do that to ada/model", "right to"]),
    "name taken": (lambda hub: hub.fail("POST", "/create", 409, "taken"), ["ada/model is taken", "choose another"]),
    "no rights": (lambda hub: hub.fail("POST", "/preupload/", 403), ["may not do that", "--pr"]),
    "gated": (lambda hub: hub.fail("GET", "/api/models/", 403, "", "GatedRepo"), ["is gated", "ask its owners"]),
    "quota at batch": (lambda hub: hub.fail("POST", "batch", 403, "storage limit reached"), ["no room left", "free"]),
    "payment": (lambda hub: hub.fail("POST", "/commit/", 402, "Payment required"), ["no room left"]),
    "batch down": (lambda hub: hub.fail("POST", "batch", 500, times=6), ["fails with 500", "run again"]),
    "storage down": (lambda hub: hub.fail("PUT", "/upload/", 500, times=6), ["fails", "with 500", "run again"]),
    "dropped": (
        lambda hub: hub.fail("PUT", "/upload/", drop_after=60_000, times=6),
        ["connection to the Hub was lost", "model-0", "run again"],
    ),
    "verify": (lambda hub: hub.fail("POST", "/verify", 422, "size differs"), ["422", "size differs", "run again"]),
    "commit down": (lambda hub: hub.fail("POST", "/commit/", 503, times=4), ["fails with 503", "run again"]),
    "commit refused": (lambda hub: hub.fail("POST", "/commit/", 400, "bad"), ["refuses ada/model with 400 (bad)"]),
    "commit dropped": (lambda hub: hub.fail("POST", "/commit/", drop_after=100), ["connection to the Hub was lost"]),
    "a pause": (lambda hub: hub.fail("POST", "/branch/", 429), ["asks for a pause"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_one_line_and_running_again_finishes_the_job(
    hub: Hub, model: Path, secrets_stay: Callable[[], str], fault: str
) -> None:
    inject, words = FAULTS[fault]
    inject(hub)
    line = refused(model, secrets_stay, branch="next")
    assert all(word in line for word in words), line
    before, there = hub.received, sum(path.stat().st_size for path in hub.large())
    push(model, repo=REPO, branch="next")
    assert_whole(hub, model, "next")
    assert hub.received - before == large_bytes(model) - there  # what had arrived is not sent again


def test_no_quota_is_one_line_and_room_finishes_the_job(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    hub.quota = 200_000
    assert "no room left for ada/model" in refused(model, secrets_stay)
    hub.quota = 1 << 40
    push(model, repo=REPO)
    assert_whole(hub, model)


def test_no_token_is_one_line(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, secrets_stay: Callable[[], str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "no token for the Hub: log in with `hf auth login`" in refused(model, secrets_stay)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 7)
    assert "does not know this token" in refused(model, secrets_stay)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.users[TOKEN].role = "read"
    assert "for reading only" in refused(model, secrets_stay)
    assert hub.count("POST", "") == 0


def test_a_server_that_is_not_there_is_one_line(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, secrets_stay: Callable[[], str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "connection to the Hub was lost" in refused(model, secrets_stay)


def test_a_commit_is_tried_again_while_the_hub_has_no_time(
    hub: Hub, model: Path, secrets_stay: Callable[[], str]
) -> None:
    hub.fail("POST", "/commit/", 503, times=3)
    push(model, repo=REPO)
    assert_whole(hub, model)
    assert secrets_stay().count("503 to the commit: again") == 3


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: Hub, model: Path) -> None:
    hub.fail("POST", "/commit/", drop_answer=5)
    push(model, repo=REPO)
    assert_whole(hub, model)
    assert len(hub.repos[REPO].commits) == 2


def test_somebody_elses_commit_is_noticed_and_kept(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    hub.fail("POST", "/commit/", do=lambda: hub.somebody_commits(REPO))
    assert "somebody else has committed to ada/model meanwhile" in refused(model, secrets_stay)
    sent = hub.received
    push(model, repo=REPO)
    assert hub.received == sent
    assert hub.content(REPO).pop("notes.md") == b"by somebody else\n"
    assert hub.content(REPO)["config.json"] == (model / "config.json").read_bytes()


def test_a_dropped_connection_in_a_file_is_taken_up_again(hub: Hub, model: Path) -> None:
    hub.fail("PUT", "/upload/", drop_after=60_000)
    push(model, repo=REPO)
    assert_whole(hub, model)
    hub.fail("GET", "/cdn/", drop_answer=60_000)
    copy = Path(snapshot_download(REPO))
    assert {name: content for name, content in bytes_of(copy).items() if name != ".gitattributes"} == bytes_of(model)


def test_a_repository_of_others_takes_a_pull_request(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    push(model, repo=REPO, visibility="public", gated="manual")
    assert (hub.repos[REPO].private, hub.repos[REPO].gated) == (False, "manual")
    hub.users[TOKEN] = User("bob", access={REPO})
    (model / "README.md").write_text(CARD + "With a remark.\n")
    assert "may not do that to ada/model" in refused(model, secrets_stay)
    push(model, repo=REPO, pr=True)
    assert_whole(hub, model, "refs/pr/1")
    assert hub.content(REPO)["README.md"] == CARD.encode()
    push(model, repo=REPO, pr=True)
    assert "proposes just that already" in secrets_stay()
    hub.fail("POST", "/commit/", drop_answer=5)
    (model / "README.md").write_text(CARD + "With another remark.\n")
    push(model, repo=REPO, pr=True)
    assert [ref for ref in hub.repos[REPO].refs if "/pr/" in ref] == ["refs/pr/1", "refs/pr/2"]
    hub.users[TOKEN] = User("eve")
    assert "is gated" in refused(model, secrets_stay, pr=True)
    with pytest.raises(UserError, match="neither a folder nor a repository"):
        StarCoder.from_pretrained(REPO)


def test_settings_of_a_repository_change_only_on_demand(hub: Hub, model: Path) -> None:
    push(model, repo=REPO, visibility="public")
    push(model, repo=REPO)
    assert not hub.repos[REPO].private
    assert hub.count("PUT", "/settings") == 0
    push(model, repo=REPO, visibility="private", gated="auto")
    assert (hub.repos[REPO].private, hub.repos[REPO].gated) == (True, "auto")


def test_branches_and_tags(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    push(model, repo=REPO, tag="v1", message="The first")
    first = hub.repos[REPO].find("v1")
    assert first.title == "The first"
    push(model, repo=REPO, tag="v1")
    (model / "README.md").write_text(CARD + "Second.\n")
    assert "has a tag v1 already" in refused(model, secrets_stay, tag="v1")
    push(model, repo=REPO, branch="next", tag="v2")
    assert hub.repos[REPO].find("main").oid == hub.repos[REPO].find("v1").oid == first.oid
    assert_whole(hub, model, "next")
    assert_whole(hub, model, "v2")
    sent = hub.received
    push(model, repo=REPO)
    assert hub.received == sent  # the weights are there, on another branch


def test_weights_of_an_older_release_do_not_stay_beside_the_new_ones(hub: Hub, model: Path, tiny: Tiny) -> None:
    push(model, repo=REPO)
    hub.somebody_commits(REPO)
    save_release(model, tiny.tokenizer, "1GB", seed=2, n_layer=1, n_head=2, n_embd=64)
    push(model, repo=REPO)
    there = hub.content(REPO)
    assert [name for name in there if name.endswith("safetensors")] == ["model.safetensors"]
    assert "model.safetensors.index.json" not in there
    assert "notes.md" in there


def test_what_others_have_put_there_stays(hub: Hub, model: Path, tiny: Tiny, secrets_stay: Callable[[], str]) -> None:
    push(model, repo=REPO)
    theirs = ["model-Q4_K_M.gguf", "model.gguf", "adapter_model.safetensors", ".eval_results/mbpp.yaml", "golden.json"]
    for name in theirs:
        hub.somebody_commits(REPO, name)
    commits = len(hub.repos[REPO].commits)
    push(model, repo=REPO)
    assert len(hub.repos[REPO].commits) == commits
    assert "is removed" not in secrets_stay()
    save_release(model, tiny.tokenizer, "1GB", seed=2, n_layer=1, n_head=2, n_embd=64)
    push(model, repo=REPO)
    shown = secrets_stay()
    assert hub.content(REPO).keys() == bytes_of(model).keys() | {".gitattributes", *theirs[:-1]}
    for name in ("golden.json", "model-00001-of-00004.safetensors", "model.safetensors.index.json"):
        assert f"{REPO} at main: {name} is removed" in shown
    for name in theirs[:-1]:
        assert f"{REPO} at main: {name} stays" in shown


def test_results_that_the_card_wrote_go_with_their_weights(hub: Hub, model: Path) -> None:
    push(model, repo=REPO)
    ours = sealed("- value: 1\n", "# {}").encode()
    hub.somebody_commits(REPO, ".eval_results/humaneval.yaml", ours)
    hub.somebody_commits(REPO, ".eval_results/mbpp.yaml", ours.replace(b"1", b"2", 1))
    push(model, repo=REPO)
    assert ".eval_results/humaneval.yaml" in hub.content(REPO)
    other_weights(model)
    push(model, repo=REPO)
    assert ".eval_results/humaneval.yaml" not in hub.content(REPO)
    assert ".eval_results/mbpp.yaml" in hub.content(REPO)  # somebody has changed that one


def test_a_file_of_the_same_size_with_other_bytes_is_sent(hub: Hub, model: Path) -> None:
    push(model, repo=REPO)
    other_weights(model)
    (model / "README.md").write_text(CARD.replace("small", "smart"))
    push(model, repo=REPO)
    assert_whole(hub, model)


def test_what_the_hub_does_not_keep_is_told(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    hub.ignored = {"model-00002-of-00004.safetensors"}
    assert "does not hold model-00002-of-00004.safetensors as sent" in refused(model, secrets_stay)


def test_what_the_server_repeats_of_a_token_is_not_shown(
    hub: Hub, model: Path, secrets_stay: Callable[[], str]
) -> None:
    hub.fail("POST", "/commit/", 400, f"no {TOKEN}, Bearer never-show-this, see {hub.endpoint}/a?b=never-show-this")
    assert "refuses ada/model with 400 (no …, …" in refused(model, secrets_stay)


def test_a_token_of_any_form_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-an-older-form")
    assert clean("no of-an-older-form,\nBasic abc") == "no …, …"


@pytest.mark.parametrize("logger", ["httpx2", "huggingface_hub", "httpcore2"])
def test_logs_have_no_signed_addresses(hub: Hub, model: Path, caplog: pytest.LogCaptureFixture, logger: str) -> None:
    with caplog.at_level("DEBUG", logger=logger):
        push(model, repo=REPO)
    assert caplog.text
    assert "never-show-this" not in caplog.text
    assert TOKEN not in caplog.text


def test_large_files_go_by_lfs_whatever_is_installed(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    assert is_xet_available()
    push(model, repo=REPO)
    assert_whole(hub, model)
    assert hub.received == large_bytes(model)
    assert is_xet_available()


def test_a_large_file_is_read_once_for_its_hash(hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(file: object) -> bytes:
        raise AssertionError("the client reads a file that is known")

    monkeypatch.setattr("huggingface_hub.lfs.sha_fileobj", never)
    push(model, repo=REPO)
    assert_whole(hub, model)


def test_a_removal_that_fails_is_no_success(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    push(model, repo=REPO)
    hub.somebody_commits(REPO, "golden.json")
    other_weights(model)
    hub.fail("POST", "/commit/", 403)
    assert "may not do that" in refused(model, secrets_stay)
    push(model, repo=REPO)
    assert_whole(hub, model)


def test_a_tag_that_fails_is_made_the_next_time(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    hub.fail("POST", "/tag/", 500)
    assert "fails with 500" in refused(model, secrets_stay, tag="v1")
    push(model, repo=REPO, tag="v1")
    assert_whole(hub, model, "v1")


SECRETS = [
    (".env", b"A=1", "credentials"),
    ("keys/id_rsa", b"x", "credentials"),
    ("server.PEM", b"x", "credentials"),
    ("token", b"x", "credentials"),
    (".aws/config", b"x", "credentials"),
    ("hf_token.txt", b"x", "credentials"),
    ("notes.txt", b"use " + b"hf_" + b"AbCd" * 9 + b" please", "secret"),
    ("setup.sh", b"-----BEGIN OPENSSH PRIVATE KEY-----", "secret"),
    ("mine.txt", TOKEN.encode(), "secret"),
    ("data/train.parquet", b"x", "data set"),
    ("train.jsonl", b"{}\n" * 400_000, "data set"),
    ("chunk-0-0.bin", b"x", "data set"),
    ("last.ckpt", b"x", "training state"),
    *(
        (name, b"x", "credentials")
        for name in (".envrc", "client_secret.json", "api_key.txt", "hf-token.txt", "token_hf")
    ),
    *((name, b"x", "credentials") for name in ("service-account.json", ".docker/config.json")),
    (".config/gh/hosts.yml", b"x", "no part of a release"),
    ("notes.md", b"aws_secret_access_key = " + b"aB3/" * 10, "secret"),
    ("handler.py", b"key = 'AIza" + b"x" * 35 + b"'", "secret"),
    *((name, b"x", "no part of a release") for name in ("train.bin", "optimizer.bin", "a.npy", "b.sqlite", "c.lance")),
    ("corpus.txt", b"a line\n" * 200_000, "data set"),
    ("corpus.json.gz", b"x", "data set"),
    ("LICENSE", b"\n" * 6_000_000 + TOKEN.encode(), "secret"),
    ("copies/model.safetensors", b"x", "no part of a release"),
]


@pytest.mark.parametrize(("name", "content", "word"), SECRETS, ids=[name for name, _, _ in SECRETS])
def test_what_must_not_leave_is_named_and_nothing_is_sent(
    hub: Hub, model: Path, secrets_stay: Callable[[], str], name: str, content: bytes, word: str
) -> None:
    (model / name).parent.mkdir(exist_ok=True, parents=True)
    (model / name).write_bytes(content)
    line = refused(model, secrets_stay)
    assert name in line
    assert word in line
    assert hub.log == []
    assert name in refused(model, secrets_stay, dry_run=True)
    assert f"{name}  REFUSED" in secrets_stay()
    assert hub.log == []


def test_a_link_is_judged_by_what_it_leads_to(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    (model.parent / "id_ed25519").write_bytes(b"x")
    (model / "harmless.txt").symlink_to(model.parent / "id_ed25519")
    assert "harmless.txt looks like credentials" in refused(model, secrets_stay)


def test_a_link_stays_in_the_folder(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    (model.parent / ".aws").mkdir()
    (model.parent / ".aws" / "config").write_text("x")
    (model / ".cache").mkdir()
    (model / ".cache" / "token.txt").write_text("x")
    for target, word in (
        (model.parent / ".aws" / "config", "out of the folder"),
        (model / ".cache" / "token.txt", "stays"),
    ):
        (model / "harmless.txt").symlink_to(target)
        assert word in refused(model, secrets_stay)
        (model / "harmless.txt").unlink()
    for target in (model.parent / "nowhere", model.parent / ".aws"):
        (model / "harmless.txt").symlink_to(target)
        assert "harmless.txt is a link, but to no file" in refused(model, secrets_stay)
        (model / "harmless.txt").unlink()
    assert hub.log == []


def test_what_the_client_has_fetched_can_be_pushed(hub: Hub, model: Path) -> None:
    push(model, repo=REPO)
    fetched = Path(snapshot_download(REPO))
    assert (fetched / "config.json").is_symlink()
    push(fetched, repo="ada/copy")
    assert hub.content("ada/copy") == hub.content(REPO)


def test_more_is_sent_when_it_is_named_but_no_credentials(
    hub: Hub, model: Path, secrets_stay: Callable[[], str]
) -> None:
    for name in ("train.csv", "figures/loss.pdf", "figures/api_key.csv"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    assert "train.csv is no part" in refused(model, secrets_stay, include="figures/*")
    assert "figures/api_key.csv looks like credentials" in refused(model, secrets_stay, include="*.csv, figures/*")
    (model / "figures" / "api_key.csv").unlink()
    push(model, repo=REPO, include="*.csv, figures/*")
    assert_whole(hub, model)


def test_what_belongs_to_a_release_passes(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    for name in ("special_tokens_map.json", "golden.json", "examples.jsonl", ".eval_results/humaneval.yaml"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}")
    for name in (".git/config", "model.safetensors.partial", "__pycache__/a.pyc"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("left out")
    push(model, repo=REPO)
    assert {".eval_results/humaneval.yaml", "examples.jsonl"} < hub.content(REPO).keys()
    assert not {".git/config", "__pycache__/a.pyc", "model.safetensors.partial"} & hub.content(REPO).keys()
    assert "no model card" not in secrets_stay()


def test_what_is_no_release_is_told_before_anything_is_sent(
    hub: Hub, model: Path, secrets_stay: Callable[[], str]
) -> None:
    shard = next(model.glob("model-00001*"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert f"{shard.name} is damaged" in refused(model, secrets_stay)
    shard.unlink()
    assert f"lacks {shard.name}" in refused(model, secrets_stay)
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    assert "model.safetensors.index.json is damaged" in refused(model, secrets_stay)
    (model / "model.safetensors.index.json").unlink()
    assert "the weights in" in refused(model, secrets_stay)
    (model / "config.json").unlink()
    assert "config.json is missing" in refused(model, secrets_stay)
    assert "is no folder" in refused(model / "nowhere", secrets_stay)
    assert hub.log == []


def test_weights_of_another_shape_and_a_missing_tokenizer_are_no_release(
    hub: Hub, model: Path, secrets_stay: Callable[[], str]
) -> None:
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace('"n_layer": 2', '"n_layer": 5'))
    assert "do not fit its config.json" in refused(model, secrets_stay)
    (model / "config.json").write_text(config)
    (model / "tokenizer.json").unlink()
    assert "tokenizer" in refused(model, secrets_stay)
    assert hub.log == []


def test_a_release_without_a_card_is_sent_with_a_warning(
    hub: Hub, model: Path, secrets_stay: Callable[[], str]
) -> None:
    (model / "README.md").unlink()
    push(model, repo=REPO)
    assert secrets_stay().count("has no model card") == 1
    assert_whole(hub, model)


def test_a_dry_run_lists_and_sends_nothing(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, secrets_stay: Callable[[], str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    push(model, repo=REPO, dry_run=True)
    shown = secrets_stay()
    assert all(name in shown for name in bytes_of(model))
    assert "0.1 MB" in shown or "kB" in shown
    assert hub.log == []


def test_a_dry_run_says_what_would_change_on_the_hub(
    hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch, secrets_stay: Callable[[], str]
) -> None:
    push(model, repo=REPO, dry_run=True)
    assert f"{REPO} would be created" in secrets_stay()
    assert REPO not in hub.repos
    push(model, repo=REPO)
    hub.somebody_commits(REPO, "golden.json")
    other_weights(model)
    refs = dict(hub.repos[REPO].refs)
    push(model, repo=REPO, branch="next", dry_run=True)
    shown = secrets_stay()
    assert f"{REPO} at next: 1 of 13 files would be new" in shown
    assert f"{REPO} at next: golden.json would be removed" in shown
    assert hub.repos[REPO].refs == refs
    hub.fail("GET", "/refs", 403, "Forbidden", times=ALWAYS)
    push(model, repo=REPO, dry_run=True)
    assert "the Hub could not be looked at" in secrets_stay()
    monkeypatch.delenv("HF_TOKEN")
    push(model, repo=REPO, dry_run=True)
    assert "there is no token for the Hub, on which nothing was looked at" in secrets_stay()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"repo": "model"}, "OWNER/NAME"),
        ({"repo": "ada/a--b"}, "OWNER/NAME"),
        ({"repo": "ada/x.git"}, "OWNER/NAME"),
        ({"repo": "../.."}, "OWNER/NAME"),
        ({"repo": REPO, "branch": ""}, "--branch '' cannot be"),
        ({"repo": REPO, "tag": "the first"}, "--tag 'the first' cannot be"),
        ({"repo": "https://huggingface.co/ada/model"}, "OWNER/NAME"),
        ({"repo": REPO, "pr": True, "branch": "next"}, "--pr"),
        ({"repo": REPO, "tokenizer": Path("nowhere")}, "--tokenizer"),
        ({"repo": REPO, "dtype": "float16"}, "--dtype"),
        ({"repo": REPO, "run": Path("nowhere")}, "no complete checkpoint"),
    ],
)
def test_wishes_that_cannot_be_are_told(hub: Hub, model: Path, options: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        push(model, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="name the folder"):
        push(repo=REPO)
    with pytest.raises(UserError, match="--branch and --tag are for a folder"):
        push(repo=REPO, run=Path("nowhere"), tag="v1")


def test_a_push_killed_half_way_is_resumed_and_loads_elsewhere(hub: Hub, tmp_path: Path, tiny: Tiny) -> None:
    folder = tmp_path / "model"
    network = save_release(folder, tiny.tokenizer, "4MB", n_layer=9, n_head=4, n_embd=256)
    whole = large_bytes(folder)
    assert whole > 25_000_000
    hub.pause_at = whole // 2
    with start(ROOT, "push", str(folder), "--repo", REPO) as process:
        assert hub.paused.wait(60)
        process.send_signal(signal.SIGKILL)
    hub.pause_at = None
    hub.resumed.set()
    assert len(hub.repos[REPO].commits) == 1
    kept, before = sum(path.stat().st_size for path in hub.large()), hub.received
    assert whole // 4 < kept <= whole // 2
    shown = starcoder(ROOT, "push", str(folder), "--repo", REPO, check=True, begin=start)
    assert hub.received - before == whole - kept
    assert TOKEN not in shown.stdout + shown.stderr
    assert_whole(hub, folder)
    with torch.inference_mode():
        expected, ours = network(PROMPT), StarCoder.from_pretrained(REPO).eval()(PROMPT)
        theirs = AutoModelForCausalLM.from_pretrained(REPO, dtype=torch.float32).eval()(PROMPT).logits
    assert torch.equal(ours, expected)
    assert torch.allclose(theirs, expected, atol=1e-5)


def test_the_command_line_fails_in_one_line(hub: Hub, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hub.fail("POST", "/commit/", 403, "Forbidden", times=ALWAYS)
    with pytest.raises(SystemExit) as stop:
        main(["push", str(model), "--repo", REPO, "--visibility", "public"])
    assert stop.value.code == 2
    errors = capfd.readouterr().err
    assert errors.startswith("starcoder: the token may not do that")
    assert errors.count("\n") == 1
    assert not hub.repos[REPO].private


def test_a_card_that_the_hub_does_not_read_is_told(hub: Hub, model: Path, secrets_stay: Callable[[], str]) -> None:
    for content in (b"---\nlicense: [\n---\n", b"caf\xe9\n"):
        (model / "README.md").write_bytes(content)
        assert "README.md cannot be read as a model card" in refused(model, secrets_stay)
    assert hub.log == []
    (model / "README.md").write_text("---\n- license\n---\n")
    assert "does not read the metadata of the model card README.md" in refused(model, secrets_stay)
    (model / "README.md").write_text(CARD)
    push(model, repo=REPO)
    assert_whole(hub, model)
