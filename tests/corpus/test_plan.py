from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus.document import Document
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.licenses import Declaration
from starcoder.corpus.plan import Plan, cut_into_tasks, share_out
from starcoder.corpus.redaction import NoRedaction
from starcoder.corpus.sources.base import Candidate, Source, Unit
from starcoder.errors import UserError

File = tuple[str, str, int]


@dataclass(frozen=True)
class InMemory:
    """A source of files (repository, path, bytes) that nobody reads; each repository is a unit."""

    files: tuple[File, ...]
    name: str = "memory"

    def units(self) -> Sequence[Unit]:
        repositories = sorted({repository for repository, *_ in self.files})
        return [Unit(name, sum(size for other, _, size in self.files if other == name), "") for name in repositories]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        for repository, path, size in self.files:
            if repository == unit.name:
                language, extension = ("python", "py") if path.endswith(".py") else ("c", "c")
                document = Document(repository, path, language, extension, (), size, source=self.name)
                yield Candidate(document, Declaration("GPL-3.0-only" if path.startswith("gpl") else "MIT", ""), bytes)


def plan_of(folder: Path, *sources: Source) -> Plan:
    return Plan(
        work=folder / "corpus.work",
        output=folder / "corpus",
        sources=sources,
        tasks=cut_into_tasks(sources, 1000) if sources else (),
        rules=Rules(max_file_bytes=10_000),
        similarity=0.7,
        validation_share=0.05,
        seed=0,
        facts={},
        redactor=NoRedaction(),
    )


_SIZES = st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=6), min_size=1, max_size=4)


@given(_SIZES, st.integers(1, 5000), st.none() | st.integers(1, 10_000))
def test_tasks_are_a_balanced_partition(sizes: list[list[int]], task_bytes: int, max_bytes: int | None) -> None:
    sources = [InMemory(tuple((f"r{n}", "a.py", size) for n, size in enumerate(each))) for each in sizes]
    tasks = cut_into_tasks(sources, task_bytes, max_bytes)
    pieces = [piece for task in tasks for piece in task]
    assert sorted(piece.key for piece in pieces) == sorted(
        f"{n}/{u.name}" for n, s in enumerate(sources) for u in s.units()
    )
    total, largest = sum(map(sum, sizes)), max(map(max, sizes))
    loads = [sum(piece.unit.size for piece in task) for task in tasks]
    assert max(loads) - min(loads) <= largest  # the last piece of the fullest task went to the emptiest
    wanted = min(total, max_bytes or total) / task_bytes
    assert len(tasks) == len(pieces) or len(tasks) == 1 or abs(len(tasks) - wanted) <= 0.5


def test_tasks_do_not_depend_on_the_order_of_units() -> None:
    class Backwards(InMemory):
        def units(self) -> Sequence[Unit]:
            return list(reversed(super().units()))

    files = tuple((f"r{n:02d}", "a.py", 100 + n // 5) for n in range(40))
    tasks = cut_into_tasks([InMemory(files), InMemory(files[:9])], 500)
    assert cut_into_tasks([Backwards(files), Backwards(files[:9])], 500) == tasks
    assert all(list(task) == sorted(task, key=lambda piece: (piece.source, piece.unit.name)) for task in tasks)


def test_nothing_to_read_is_an_error() -> None:
    with pytest.raises(UserError, match="nothing to read"):
        cut_into_tasks([InMemory(())], 1000)


def chosen(plan: Plan) -> list[Document]:
    """What the plan reads, as the first stage does."""
    ingest = Ingest(plan.rules)
    found = []
    for piece in (piece for task in plan.tasks for piece in task):
        names = plan.chosen(piece)
        for candidate in plan.sources[piece.source].candidates(piece.unit):
            document = ingest.listed(candidate)
            if not document.rejection and (names is None or document.name in names):
                found.append(document)
    return found


def test_without_a_budget_everything_is_read(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, InMemory((("a", "x.py", 100), ("b", "y.c", 200))))
    plan.work.mkdir(parents=True)
    assert {plan.chosen(piece) for task in plan.tasks for piece in task} == {None}
    assert len(chosen(plan)) == 2


def test_budget_is_shared_fairly(tmp_path: Path) -> None:
    """The small repositories and languages stay whole, the large ones share the rest; what is left out takes none."""
    large = [("large", f"{n}.py", 100) for n in range(200)] + [("large", f"{n}.c", 100) for n in range(3)]
    other = [("other", f"{n}.py", 100) for n in range(100)]
    small = [(f"small{n}", "a.py", 150) for n in range(8)]
    nothing = [("gpl", f"gpl{n}.py", 100) for n in range(900)] + [("huge", "a.py", 10_001)]
    plan = plan_of(tmp_path, InMemory((*large, *other, *small, *nothing)))
    plan.work.mkdir()
    share_out(plan, 6000)
    read: dict[tuple[str, str], int] = {}
    for document in chosen(plan):
        key = document.repository, document.language
        read[key] = read.get(key, 0) + document.size
    expected = {(f"small{n}", "python"): 150 for n in range(8)} | {("large", "c"): 300}
    assert read == expected | {("large", "python"): 2200, ("other", "python"): 2200}


def test_budget_is_a_random_sample_of_the_seed(tmp_path: Path) -> None:
    source = InMemory(tuple(("large", f"{n:03d}.py", 10) for n in range(500)))
    samples = []
    for number, seed in enumerate((0, 0, 1)):
        plan = replace(plan_of(tmp_path / str(number), source), seed=seed)
        plan.work.mkdir(parents=True)
        share_out(plan, 1000)
        samples.append({document.path for document in chosen(plan)})
    assert samples[0] == samples[1] != samples[2]
    assert 0.05 < sum(path < "250.py" for path in samples[0]) / 100 < 0.95  # not the first ones


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from(["x.py", "y.py", "z.c"]), st.integers(0, 100)), max_size=6
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 400),
)
def test_no_more_than_the_budget_is_read(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[File]], max_bytes: int
) -> None:
    """Also when files of one name are in several sources, or twice in one."""
    sources = [InMemory((*files, ("c", "w.py", 1))) for files in contents]
    plan = plan_of(tmp_path_factory.mktemp("plan"), *sources)
    plan.work.mkdir(parents=True)
    share_out(plan, max_bytes)
    everything = sum(size for source in sources for *_, size in source.files)
    read = sum(document.size for document in chosen(plan))
    assert read <= max_bytes
    assert everything > max_bytes or read == everything
