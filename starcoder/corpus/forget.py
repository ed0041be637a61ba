"""`starcoder corpus opt-out`: take repositories out of what was already made of them (paper §3)."""

from pathlib import Path

from starcoder.corpus.inspect import page_beside
from starcoder.corpus.optout import OptOut, apply_to_corpus
from starcoder.corpus.summary import read_summary, recount, repositories
from starcoder.errors import UserError
from starcoder.training.stream import find_repositories, mark_stale


def forget(opt_out: Path, corpus: Path | None = None, shards: list[Path] | None = None) -> None:
    """Apply an opt-out list to what exists already; the corpus is edited, what cannot be edited is marked as stale.

    Token shards that hold a repository of the list cannot be trained on any more: write them again from the corpus. The
    inspection page beside the corpus, which quotes it, is removed. A run that was killed can be repeated. What was
    trained on the data before is for you to judge.

    Args:
        opt_out: File of owners and repositories, one `owner` or `owner/repo` a line.
        corpus: Folder of a corpus.
        shards: Folders of token shards; of those in an object store the folder that was uploaded, to be uploaded again.

    Raises:
        UserError: The list, the corpus or the shards are missing or damaged.
    """
    if corpus is None and not shards:
        raise UserError("nothing to take out of: name a --corpus, --shards, or both")
    listed = OptOut.read(opt_out)
    if corpus:
        read_summary(corpus)
        moved = apply_to_corpus(corpus, listed)
        recount(corpus, {"opted_out_later": listed.digest})
        page = page_beside(corpus)
        removed = f"; {page}, which quoted it, is removed" if page.exists() else ""
        page.unlink(missing_ok=True)
        print(f"{corpus}: {moved['train'] + moved['validation']:,} documents taken out{removed}")
        unknown = sorted(listed.entries - {listed.matches(name) for name in repositories(corpus)})
        if unknown:
            print(f"{corpus}: nothing in it is called {', '.join(unknown[:10])}{' or …' if len(unknown) > 10 else ''}")
    for folder in shards or ():
        gone = sorted(repository for repository in find_repositories(folder) if repository in listed)
        if gone:
            mark_stale(folder, f"{', '.join(gone[:3])}{' and others' if len(gone) > 3 else ''} opted out")
        print(f"{folder}: {f'stale, {len(gone):,} repositories of it opted out' if gone else 'nothing of the list'}")
