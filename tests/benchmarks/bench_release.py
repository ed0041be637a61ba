"""A release at size: the memory of export and load, and a push that is killed half way and resumed.

* A random model of about 1 GB, as training saves it: how much `export` takes above a tiny model's, against its largest
  tensor and against a file of the release; how much `from_pretrained` takes, against the model.
* 300 MB are pushed to a stand-in for the Hub and killed when half of them have arrived; the second push sends what is
  missing. What the Hub then gives has the same bytes, and a model loaded from there the same logits.

No comparison with others: it shows what holds. Run by `make bench`, or `python -m tests.benchmarks.bench_release`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from starcoder import tokenizer as tokenizers
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import save
from tests.conftest import ROOT, start
from tests.release.conftest import bytes_of, large_bytes
from tests.release.hub import Hub, User
from tests.release.test_export import checkpoint

VOCAB_SIZE = 280
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 32, "context_length": 64}
LARGE = {"n_layer": 24, "n_head": 8, "n_embd": 1024, "context_length": 64}
MIDDLE = {"n_layer": 28, "n_head": 8, "n_embd": 512, "context_length": 64}
REPO = "ada/model"
PEAK = """
import sys
from starcoder.cli import run
if sys.argv[1] == "load":
    from starcoder.model import StarCoder
    StarCoder.from_pretrained(sys.argv[2])
else:
    run(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def model_of(shape: dict[str, int]) -> StarCoder:
    return StarCoder(StarCoderConfig.preset("smoke", vocab_size=VOCAB_SIZE, **shape), seed=1).eval()


def peak(*args: str | Path) -> float:
    """MB that a process takes at most: a command of the kit, or `load` and a folder."""
    command = [sys.executable, "-c", PEAK, *map(str, args)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return int(result.stdout.split()[-1]) / 1e3


def memory(root: Path) -> None:
    places = {}
    for name, shape in (("tiny", TINY), ("large", LARGE)):
        model = model_of(shape)
        places[name] = checkpoint(model, root / name)
        size = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
        tensor = max(parameter.nbytes for parameter in model.parameters()) / 1e6
        del model
    export, load = {}, {}
    for name, place in places.items():
        out = root / f"{name}-release"
        options = ("--tokenizer", root / "tokenizer", "--output", out, "--max_shard_size", "200MB")
        export[name] = peak("export", place, *options)
        load[name] = peak("load", out)
    exported, loaded = export["large"] - export["tiny"], load["large"] - load["tiny"]
    print(f"a model of {size:.0f} MB, its largest tensor {tensor:.0f} MB, in files of 200 MB")
    print(f"export takes {exported:.0f} MB more than for a tiny model: {exported / 200:.2f} of a file")
    print(f"load takes {loaded:.0f} MB more: {loaded / size:.2f} of the model", flush=True)


def push(folder: Path) -> float:
    """Push to the end; seconds."""
    begin = time.perf_counter()
    with start(ROOT, "push", str(folder), "--repo", REPO) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.perf_counter() - begin


def resumption(root: Path) -> None:
    folder, model = root / "release", model_of(MIDDLE)
    with tempfile.TemporaryDirectory() as whole:
        save(model, Path(whole) / "model", tokenizers.load(root / "tokenizer"))
        subprocess.run(
            [sys.executable, "-m", "starcoder.cli", "export", Path(whole) / "model", "--output", folder,
             "--max_shard_size", "30MB"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    total = large_bytes(folder)
    with Hub(root / "hub") as hub:
        os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_" + "loopback" * 4, "HF_HOME": str(root / "home")}
        os.environ |= {
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        hub.users[os.environ["HF_TOKEN"]] = User("ada")
        hub.pause_at = total // 2
        with start(ROOT, "push", str(folder), "--repo", REPO) as process:
            assert hub.paused.wait(300), "the push has not come so far"
            process.kill()
        hub.pause_at = None
        hub.resumed.set()
        kept, before = sum(path.stat().st_size for path in hub.large()), hub.received
        seconds = push(folder)
        sent = hub.received - before
        assert sent == total - kept, "files that had arrived were sent again"
        there = {name: content for name, content in hub.content(REPO).items() if name != ".gitattributes"}
        assert there == bytes_of(folder), "the Hub holds other bytes"
        same = "import torch, sys; from starcoder.model import StarCoder; x = torch.arange(40).view(1, -1)\n"
        same += "a, b = (StarCoder.from_pretrained(s).eval()(x) for s in sys.argv[1:]); assert torch.equal(a, b)"
        subprocess.run([sys.executable, "-c", same, REPO, folder], check=True, cwd=ROOT)
    print(f"a push of {total / 1e6:.0f} MB, killed when {before / 1e6:.0f} MB were sent and {kept / 1e6:.0f} MB kept")
    print(f"the second sent the other {sent / 1e6:.0f} MB in {seconds:.1f} s; bytes and logits are the same")


def main() -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        tokenizers.train(["def f(a):\n    return a\n" * 9], VOCAB_SIZE).save(Path(folder) / "tokenizer")
        memory(Path(folder))
        resumption(Path(folder))


if __name__ == "__main__":
    main()
