"""A small finished corpus, as a build leaves it: every way to be kept or left out, and names that mean harm."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from starcoder.corpus.document import Document, Mark, Rejection, write_documents
from starcoder.corpus.summary import FILE, FORMAT

STAGES = ("source", "licence", "filters", "exact duplicates", "near-duplicates", "kept")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
SHARED = [f"value_{n} = {n}" for n in range(60)]


def file(
    name: str, kilobytes: int, content: str = "", rejection: Rejection | None = None, **fields: object
) -> Document:
    owner, repository, path = name.split("/", 2)
    base = Document(
        f"{owner}/{repository}", path, "python", "py", ("MIT",), 1000 * kilobytes, content, rejection=rejection
    )
    return replace(base, **{"source": "folder", "evidence": "LICENSE: MIT 0.99"} | fields)  # type: ignore[arg-type]


def documents() -> dict[str, list[Document]]:
    changed = [*SHARED[:30], "another = 'line'", *SHARED[31:]]
    evil = Document(HOSTILE, f"{HOSTILE}\x1b[2J\u202e.py", "python", "py", ("MIT",), 70, HOSTILE, source="folder")
    commit = file("ada/engine/log@1", 9, "oldwhynew", kind="commit", language="c")
    train = [
        file("ada/engine/wheel.py", 1000, "\n".join(SHARED), copies=5),
        file("ada/engine/cog.c", 300, "int cog;", language="c", licenses=("BSD-3-Clause", "MIT")),
        replace(commit, marks=(Mark(0, "<commit_before>"), Mark(3, "<commit_msg>"), Mark(6, "<commit_after>"))),
        *(file(f"bob/tools/{n}.py", 10 + n, f"tool = {n}\n" * 50) for n in range(20)),
        evil,
    ]
    validation = [file("eve/held/out.py", 400, "held = True", copies=2)]
    gpl = Rejection("licence not permissive", "GPL-3.0-only", "licence")
    near = Rejection("near-duplicate", "ada/engine/wheel.py, Jaccard 0.83", "near-duplicates")
    rejected = [
        file("bob/tools/big.py", 50_000, "x" * 2000, Rejection("longest line", "2000 > 1000", "filters")),
        file("bob/tools/wheel.py", 990, "\n".join(changed), near),
        file("ada/engine/wheel2.py", 980, "\n".join(SHARED), near),
        file("cat/copy/wheel.py", 990, "", Rejection("exact duplicate", "bob/tools/wheel.py", "exact duplicates")),
        file("cat/copy/out.py", 400, "", Rejection("exact duplicate", "eve/held/out.py", "exact duplicates")),
        file("cat/copy/big.py", 50_000, "", Rejection("exact duplicate", "bob/tools/big.py", "exact duplicates")),
        file("dan/Closed/a.py", 7000, "", Rejection("licence unknown", "Proprietary", "licence"), licenses=()),
        file("dan/Closed/b.py", 6000, "", Rejection("licence unknown", "ask\x07me", "licence"), licenses=()),
        file("dan/gpl/c.py", 500, "", gpl, licenses=()),
        file("zoe/gone/d.py", 123, "", Rejection("opted out", "zoe", "opt-out")),
    ]
    return {"train": train, "validation": validation, "rejected": rejected}


def write_corpus(folder: Path, splits: Mapping[str, Sequence[Document]] | None = None, **facts: object) -> Path:
    """Write `splits`, by default `documents()`, as a corpus; train as two shards."""
    splits = documents() if splits is None else splits
    for split, rows in splits.items():
        write_documents(folder, split, rows, 2 if split == "train" else 1)
    rest = [document for rows in splits.values() for document in rows]
    stages = []
    for stage in STAGES:
        stages.append({"stage": stage, "files": len(rest), "bytes": sum(document.size for document in rest)})
        rest = [document for document in rest if document.rejection is None or document.rejection.stage != stage]
    summary = {"format": FORMAT, "options": {"seed": 0, "accept": [HOSTILE]}, "redactor": "none", "stages": stages}
    summary |= {"sources": [{"name": "folder", "units": 8, "bytes": 9}], "messages": ["two are called folder"], **facts}
    (folder / FILE).write_text(json.dumps(summary))
    return folder
