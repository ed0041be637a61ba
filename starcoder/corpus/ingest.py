"""From a candidate to a document (paper §3): opt-out, licence, language, budget, reading, malware, and the filters.

All that can be said about a file without looking at any other. What is left out here has no content afterwards, except
by the filters and for a benchmark in it: opinions that the deduplication wants to know stand beside the content. What
is not a file of its own, a commit or a notebook's texts, is judged as the file is that it was made of.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from starcoder.corpus.benchmarks import NO_BENCHMARKS, BenchmarkStrings
from starcoder.corpus.decontamination import Decontaminator
from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.filters import DEFAULTS, STAGE, FilterOptions, decode, reject_reason
from starcoder.corpus.languages import language_of_content
from starcoder.corpus.licenses import PERMISSIVE, file_license, is_vendored, judge_license
from starcoder.corpus.malware import ClamScanner, Quarantine
from starcoder.corpus.optout import OptOut
from starcoder.corpus.sources.base import Candidate
from starcoder.corpus.sources.notebooks import documents_of

NOTEBOOK = "ipynb"
BENCHMARKS = "benchmarks"
_DETECTED_BYTES = 2**20  # largest file without extension that is read to find its language


@dataclass(frozen=True)
class Rules:
    """What decides about a single candidate; picklable.

    Attributes:
        accepted: SPDX ids of the licences to accept.
        opt_out: Owners and repositories that asked to be left out.
        quarantine: Files known to be malicious.
        scanner: Virus scanner for everything else; None does not scan.
        filters: Thresholds of the quality filters.
        max_file_bytes: Largest file to read.
        benchmarks: What must not be in a training set.
    """

    accepted: frozenset[str] = PERMISSIVE
    opt_out: OptOut = field(default_factory=OptOut.none)
    quarantine: Quarantine = field(default_factory=Quarantine.none)
    scanner: ClamScanner | None = None
    filters: FilterOptions = DEFAULTS
    max_file_bytes: int = 10_000_000
    benchmarks: BenchmarkStrings = NO_BENCHMARKS


class Ingest:
    """Judges candidates by `Rules`; remembers what it has decided about a licence."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    @cached_property
    def _decontaminator(self) -> Decontaminator | None:
        return Decontaminator(self.rules.benchmarks) if self.rules.benchmarks.strings else None

    @cached_property
    def _verdicts(self) -> dict[str, tuple[str, ...] | Rejection]:
        return {}

    def listed(self, candidate: Candidate) -> Document:
        """The candidate as a document without content, rejected by what is known before it is read."""
        document = candidate.document
        matched = self.rules.opt_out.matches(document.repository)
        if matched:
            return document.reject("opted out", matched, "opt-out")
        if document.rejection and not document.rejection.stage:
            return document.reject(document.rejection.reason, document.rejection.detail, "readable")
        document = replace(document, evidence=candidate.license.evidence)
        verdict = self._judge(candidate.license.expression)
        if isinstance(verdict, Rejection):
            stated = (
                f"{verdict.detail} ({candidate.license.evidence})" if candidate.license.evidence else "none is stated"
            )
            return document.reject(verdict.reason, stated, "licence")
        if document.kind != "issue" and is_vendored(candidate.file or document.path):
            return document.reject("vendored code", "", "licence")
        document = self._with_language(replace(document, licenses=verdict), candidate.read is not None)
        return self._of_readable_size(document) if candidate.read and not document.rejection else document

    def documents(self, candidate: Candidate, listed: Document) -> Iterator[Document]:
        """Read a candidate that is still kept; a notebook gives two documents."""
        if listed.rejection:
            yield listed
        elif candidate.read is None:
            made = replace(listed, content=candidate.document.content, marks=candidate.document.marks)
            yield self._judge_made(made, candidate.file or listed.path, candidate.texts)
        else:
            yield from self._read(candidate, listed)

    def _judge(self, expression: str) -> tuple[str, ...] | Rejection:
        if expression not in self._verdicts:
            self._verdicts[expression] = judge_license(expression, self.rules.accepted)
        return self._verdicts[expression]

    def _with_language(self, document: Document, readable: bool) -> Document:
        """A notebook is in Jupyter's; what is small and has no extension stays without language until it is read."""
        if document.language:
            return document
        if document.extension == NOTEBOOK:
            return replace(document, language="jupyter")
        undecided = readable and not document.extension and 0 < document.size <= _DETECTED_BYTES
        return document if undecided else _without_language(document)

    def _read(self, candidate: Candidate, listed: Document) -> Iterator[Document]:
        assert candidate.read is not None
        try:
            data = candidate.read()
        except OSError as error:
            yield listed.reject("unreadable", error.strerror or type(error).__name__, "readable")
            return
        document = self._of_readable_size(replace(listed, sha256=hashlib.sha256(data).hexdigest(), size=len(data)))
        known = document.language or document.rejection
        yield from self._judge_data(document if known else _with_language_of_content(document, data), data)

    def _of_readable_size(self, document: Document) -> Document:
        too_large = document.size > self.rules.max_file_bytes
        return document.reject("file too large", f"{document.size} bytes", "readable") if too_large else document

    def _judge_data(self, document: Document, data: bytes) -> Iterator[Document]:
        if document.rejection:
            yield document
        elif virus := self._malware(document.name, data):
            yield document.reject("malware", virus, "malware")
        elif document.extension == NOTEBOOK:
            yield from _alike([self._judge_made(made, made.path) for made in documents_of(document, data)])
        else:
            text = decode(data)
            if isinstance(text, Rejection):
                yield document.reject(text.reason, text.detail, "readable")
            else:
                yield self._judge_text(_legible(replace(document, content=text)))

    def _malware(self, name: str, data: bytes) -> str | None:
        found = self.rules.quarantine.matches(name, data)
        return found or (self.rules.scanner.scan(data) if self.rules.scanner else None)

    def _judge_made(self, document: Document, file: str, texts: Sequence[str] = ()) -> Document:
        """A document that was made of the file at the path `file`: what it is made of may be malware, as any file."""
        document = _legible(document)
        if document.rejection:
            return document
        for text in (document.content, *texts):
            virus = self._malware(f"{document.repository}/{file}", text.encode())
            if virus:
                return document.reject("malware", virus, "malware")
        return self._judge_text(document, texts)

    def _judge_text(self, document: Document, texts: Sequence[str] = ()) -> Document:
        """What a legible text, and the `texts` that it shows parts of, say: their licences, and the opinions on it."""
        if document.kind != "issue":  # a notice that is quoted in a conversation is not about the conversation
            document = self._with_licenses(document, texts or [document.content])
        opinion = None if document.rejection else self._opinion(document)
        return replace(document, rejection=opinion) if opinion else document

    def _with_licenses(self, document: Document, texts: Sequence[str]) -> Document:
        """The document under the licences that each of the texts states for itself; all apply."""
        licenses: set[str] = set()
        for text in texts:
            own = file_license(text, document.licenses, self.rules.accepted)
            if isinstance(own, Rejection):
                return document.reject(own.reason, own.detail, "licence")
            licenses.update(own or document.licenses)
        return replace(document, licenses=tuple(sorted(licenses)))

    def _opinion(self, document: Document) -> Rejection | None:
        """What the filters, or else the benchmarks, have against a document that is legible and licensed."""
        if document.kind in ("code", "notebook-script"):
            filtered = reject_reason(document, self.rules.filters)
            if filtered:
                return replace(filtered, stage=STAGE)
        found = self._decontaminator.reject_reason(document) if self._decontaminator else None
        return replace(found, stage=BENCHMARKS) if found else None


def _legible(document: Document) -> Document:
    """The document with the hash of its content; rejected when it has none, no language, or half a character."""
    if document.rejection:
        return document.reject(document.rejection.reason, document.rejection.detail, "readable")
    if not document.language:
        return _without_language(document)
    try:
        return replace(document, sha256=hashlib.sha256(document.content.encode()).hexdigest())
    except UnicodeEncodeError:  # JSON can spell it
        return document.reject("not UTF-8", "a lone surrogate", "readable")


def _alike(documents: Sequence[Document]) -> Iterator[Document]:
    """The documents of one file, all without content where one shows that it is malware or under another licence."""
    found = [document.rejection for document in documents if document.rejection]
    all_out = next((rejection for rejection in found if rejection.stage in ("malware", "licence")), None)
    for document in documents:
        whole = document.content and all_out
        yield document.reject(whole.reason, whole.detail, whole.stage) if whole else document


def _with_language_of_content(document: Document, data: bytes) -> Document:
    found = language_of_content(data)
    return replace(document, language=found[0], extension=found[1]) if found else _without_language(document)


def _without_language(document: Document) -> Document:
    return document.reject("no language of the table", document.extension, "language")
