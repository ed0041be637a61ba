"""From repositories on this machine to parquet shards: the thin form of the paper's data pipeline (§3, §5.1).

    repositories ─► licence ─► language ─► share of the byte budget ─► read ─► filters ─► exact duplicates
                                                                                                │
      train-*.parquet ◄─── training repositories ◄──────────────────────────────────── split by repository
                                     ▼                                                          │
      validation-*.parquet ◄─── without near-duplicates of training files ◄─── held-out repositories

Every step takes documents and returns all of them; a rejected one keeps the reason and goes to rejected-*.parquet.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from starcoder.corpus import dedup
from starcoder.corpus.document import Document, Rejection, read_documents, write_documents
from starcoder.corpus.filters import DEFAULTS, FilterOptions, decode, reject_reason
from starcoder.corpus.languages import language_of
from starcoder.corpus.licenses import accepted_licenses, file_license, is_vendored, judge_license
from starcoder.corpus.sampling import fair_share, fit, held_out, random_key
from starcoder.corpus.sources import Repository, find_repositories, fingerprint, single_repository
from starcoder.corpus.summary import FILE, counts_table, read_summary, write_summary
from starcoder.errors import UserError
from starcoder.storage import atomic_folder, check_replaceable

_PROGRESS_EVERY = 20_000_000  # bytes
_OWN = "LicenseRef-Own"


def build(
    output: Path = Path("build/corpus"),
    source: Path | None = None,
    license: str | None = None,
    repository: Path | None = None,
    accept: list[str] | None = None,
    max_bytes: int | None = 80_000_000,
    validation_share: float = 0.05,
    similarity: float = dedup.THRESHOLD,
    filters: FilterOptions = DEFAULTS,
    seed: int = 0,
) -> None:
    """Build a corpus of permissively licensed code found on this machine, without any download.

    The same input and options give byte-identical folders.

    Args:
        output: Folder to write: parquet shards of the splits train, validation and rejected, and corpus.json.
        source: A folder whose sub-folders are repositories; by default the distributions installed in the running
            interpreter and CPython's standard library.
        license: SPDX expression of the repositories in `source`; required with it.
        repository: A folder that is one repository, of your own unless `license` says otherwise; then files are held
            out for validation, instead of repositories.
        accept: SPDX licence ids to accept besides the permissive ones; `LicenseRef-…` for a licence of your own.
        max_bytes: Most bytes of source files to read; large repositories share what small ones leave. Null: no limit.
        validation_share: Share of the bytes to hold out for validation, as whole repositories.
        similarity: Jaccard similarity of word 5-grams that makes a held-out file a near-duplicate of a training file.
        filters: Thresholds of the quality filters.
        seed: Seed of the sample, of the split and of the order of the documents.

    Raises:
        UserError: An option is out of range, a licence id is unknown, `output` is a folder that is not a corpus, or no
            two repositories have files to keep.
    """
    _check_options(max_bytes, validation_share, similarity)
    check_replaceable(output, FILE)
    if repository and source:
        raise UserError("name a source or a repository, not both")
    license = license or (_OWN if repository else None)
    accepted = accepted_licenses([*(accept or ()), *([_OWN] if repository else ())])
    _check_license(license, accepted)
    repositories = (
        [single_repository(repository, license)] if repository and license else find_repositories(source, license)
    )
    listed = [document for repository in repositories for document in _list_files(repository, accepted)]
    _report(f"{len(repositories)} repositories; under an accepted licence, in a language of the table:", listed)
    chosen = listed if max_bytes is None else _share_out(listed, max_bytes, seed)
    filtered = list(_read_all(chosen, repositories, accepted, filters))
    _report("kept by the filters:", filtered)
    unique = list(dedup.drop_exact_duplicates(filtered))
    _report("without exact duplicates:", unique)
    splits = _split(unique, validation_share, similarity, seed)
    options: dict[str, Any] = {"accept": sorted(accept or ()), "max_bytes": max_bytes, "seed": seed}
    options |= {"validation_share": validation_share, "similarity": similarity, "filters": asdict(filters)}
    with atomic_folder(output, FILE) as folder:
        for split, documents in splits.items():
            write_documents(folder, split, documents)
        write_summary(folder, {"source": fingerprint(repositories), "options": options}, splits)
    _report(f"{output}: train", splits["train"])
    _report(f"{output}: validation", splits["validation"])


def inspect(
    folder: Path = Path("build/corpus"),
    split: Literal["train", "validation", "rejected"] = "train",
    documents: int = 3,
    seed: int = 0,
) -> None:
    """Show what a corpus holds by language, licence and repository, what was rejected and why, and a few documents.

    Args:
        folder: Folder of the corpus.
        split: Split to show.
        documents: How many random documents to print, the first 40 lines of each.
        seed: Seed of their choice.

    Raises:
        UserError: The folder is missing, not a corpus, or corrupt.
    """
    summary = read_summary(folder)
    for group, counts in summary.get(split, {}).items():
        if isinstance(counts, dict):
            print(counts_table(f"{split}, {group}", counts), end="\n\n")
    stored = sorted(read_documents(folder, split), key=lambda document: random_key(seed, document.name))
    for document in stored[:documents]:
        print(f"--- {document.name} ({document.language}; {' AND '.join(document.licenses)}; {document.size:,} bytes)")
        print(document.rejection or "\n".join(document.content.splitlines()[:40]))


def _check_options(max_bytes: int | None, validation_share: float, similarity: float) -> None:
    problems = [
        f"{name} must be {wanted}"
        for name, wanted, fine in (
            ("max_bytes", "at least 1, or null for no limit", max_bytes is None or max_bytes >= 1),
            ("validation_share", "between 0 and 1", 0 < validation_share < 1),
            ("similarity", "above 0 and at most 1", 0 < similarity <= 1),
        )
        if not fine
    ]
    if problems:
        raise UserError("; ".join(problems))


def _check_license(license: str | None, accepted: Collection[str]) -> None:
    verdict = None if license is None else judge_license(license, accepted)
    if isinstance(verdict, Rejection):
        raise UserError(f"--license {license}: {verdict.reason}; use an SPDX expression, and --accept for its id")


def _list_files(repository: Repository, accepted: Collection[str]) -> Iterator[Document]:
    """The files of a repository as documents without content; rejected are those that need not be read for it."""
    verdict = judge_license(repository.license, accepted)
    licenses = () if isinstance(verdict, Rejection) else verdict
    for path in repository.paths:
        language, extension = language_of(path) or ("", PurePosixPath(path).suffix.lower().removeprefix("."))
        size = _size(repository.root / path)
        document = Document(repository.name, path, language, extension, licenses, size)
        if isinstance(verdict, Rejection):
            yield replace(document, rejection=verdict)
        elif is_vendored(path):
            yield document.reject("vendored code")
        elif not language:
            yield document.reject("no language of the table", extension)
        else:
            yield document


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _share_out(documents: Sequence[Document], max_bytes: int, seed: int) -> Iterator[Document]:
    """Reject what is over the share of its repository and language in the bytes: a random sample of their files stays.

    Shares go to languages too, or else the rarer ones of a large repository would nearly vanish with its cap.
    """
    sizes: dict[tuple[str, str], dict[str, int]] = {}
    for document in _kept(documents):
        sizes.setdefault((document.repository, document.language), {})[document.path] = document.size
    cap = fair_share((sum(files.values()) for files in sizes.values()), max_bytes)
    chosen = {(repository, path) for (repository, _), files in sizes.items() for path in fit(files, cap, seed)}
    for document in documents:
        over = not document.rejection and (document.repository, document.path) not in chosen
        yield document.reject("over its repository's share", f"{cap} bytes a language") if over else document


def _read_all(
    documents: Iterable[Document], repositories: Sequence[Repository], accepted: Collection[str], filters: FilterOptions
) -> Iterator[Document]:
    """Read and filter the documents that are still kept, with a line of progress now and then."""
    roots = {repository.name: repository.root for repository in repositories}
    read, announced = 0, _PROGRESS_EVERY
    for document in documents:
        if document.rejection:
            yield document
            continue
        yield _read(document, roots[document.repository] / document.path, accepted, filters)
        read += document.size
        if read >= announced:
            announced += _PROGRESS_EVERY
            print(f"corpus: read {read / 1e6:.0f} MB", flush=True)


def _read(document: Document, path: Path, accepted: Collection[str], filters: FilterOptions) -> Document:
    try:
        text = decode(path.read_bytes())
    except OSError as error:
        return document.reject("unreadable", error.strerror or "")
    if isinstance(text, Rejection):
        return replace(document, rejection=text)
    own = file_license(text, document.licenses, accepted)
    if isinstance(own, Rejection):
        return replace(document, rejection=own)
    full = replace(document, content=text, licenses=own or document.licenses)
    rejection = reject_reason(full, filters)
    return full.reject(rejection.reason, rejection.detail) if rejection else full


def _split(documents: Sequence[Document], share: float, similarity: float, seed: int) -> dict[str, list[Document]]:
    """The splits: whole repositories are held out, and from those whatever is nearly the same as a training file.

    If there is one repository alone, single files are held out.
    """
    kept = sorted(_kept(documents), key=lambda document: random_key(seed, document.name))
    alone = len({document.repository for document in documents}) == 1
    units = {document.name: document.name if alone else document.repository for document in kept}
    sizes: Counter[str] = Counter()
    for document in kept:
        sizes[units[document.name]] += document.size
    if len(sizes) < 2:
        what = "files" if alone else "repositories have files"
        raise UserError(f"fewer than two {what} to keep: one is needed to train, another to validate")
    apart = held_out(sizes, share, seed)
    train = [document for document in kept if units[document.name] not in apart]
    checked = _drop_near_duplicates([document for document in kept if units[document.name] in apart], train, similarity)
    rejected = [document for document in [*documents, *checked] if document.rejection]
    return {
        "train": train,
        "validation": _kept(checked),
        "rejected": sorted(rejected, key=lambda document: document.name),
    }


def _drop_near_duplicates(documents: list[Document], train: Sequence[Document], similarity: float) -> list[Document]:
    texts = [document.content for document in documents]
    for found in dedup.near_duplicates(texts, [document.content for document in train], similarity):
        detail = f"{train[found.match].name}, Jaccard {found.similarity:.2f}"
        documents[found.query] = documents[found.query].reject("near-duplicate of a training file", detail)
    return documents


def _kept(documents: Iterable[Document]) -> list[Document]:
    return [document for document in documents if not document.rejection]


def _report(title: str, documents: Iterable[Document]) -> None:
    kept = _kept(documents)
    size = sum(document.size for document in kept)
    print(f"corpus: {title} {len(kept):,} files, {size / 1e6:.1f} MB", flush=True)
