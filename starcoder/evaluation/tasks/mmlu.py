"""MMLU: questions of 57 subjects with four choices each, five answered ones of the subject before them (§7.2).

Accuracy over all questions; a row of the table for each of the benchmark's four categories. The model is not asked to
write: the choice whose letter is likeliest after "Answer:" is its answer. StarCoder has 33.9, StarCoderBase 34.2.

Data: the CSV files of the authors' `data.tar`, without header, as `mmlu/dev/SUBJECT_dev.csv` and
`mmlu/test/SUBJECT_test.csv`: question, four choices, letter of the right one. Or `mmlu/all/dev-*.parquet` and
`mmlu/all/test-*.parquet` of the Hub's `cais/mmlu`: `question`, `subject`, `choices`, `answer` (0 to 3).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, checked, find_files, load_rows
from starcoder.evaluation.task import Likelihood, Problem
from starcoder.rows import Row, read_csv

SHOTS = 5
LETTERS = ("A", "B", "C", "D")
_COLUMNS = ("question", *LETTERS, "answer")
_FIELDS = ("question", "subject", "choices", "answer")
_HUB = "cais/mmlu"
_SUBJECTS = {
    "STEM": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
CATEGORIES = {subject: category for category, subjects in _SUBJECTS.items() for subject in subjects.split()}
"""The category of each subject."""


class MMLU(Likelihood):
    """Five-shot accuracy."""

    name = "mmlu"
    title = "MMLU (5-shot)"
    section = "§7.2"
    data = "mmlu"
    source = "https://people.eecs.berkeley.edu/~hendrycks/data.tar or huggingface.co/datasets/cais/mmlu"

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        shots: dict[str, list[Row]] = defaultdict(list)
        for row in _rows(folder, "dev", self.source):
            shots[row["subject"]].append(row)
        numbers: Counter[str] = Counter()
        return [_problem(row, shots[row["subject"]], numbers) for row in _rows(folder, "test", self.source)]

    @override
    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        return [(problem.prompt, f" {letter}") for letter in LETTERS]

    @override
    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        best = min(range(len(LETTERS)), key=lambda choice: sum(nats[choice]))
        return {"accuracy": (float(LETTERS[best] == problem.reference), 1.0)}


def _rows(folder: Path | None, split: str, source: str) -> list[Row]:
    """The questions of "dev" or "test", as the Hub's data set has them."""
    if folder is None or not (folder / "mmlu" / split).is_dir():
        hub = HubFile(_HUB, f"all/{split}-00000-of-00001.parquet")
        return load_rows(folder, "mmlu", f"all/{split}-*.parquet", hub, _FIELDS)
    return list(_csv_rows(find_files(folder, "mmlu", f"{split}/*_{split}.csv", source=source), split))


def _csv_rows(files: Iterable[Path], split: str) -> Iterable[Row]:
    for file in files:
        subject = file.stem.removesuffix(f"_{split}")
        for number, row in enumerate(checked(file, read_csv(file, _COLUMNS), _COLUMNS), start=1):
            if row["answer"] not in LETTERS:
                raise UserError(f"{file}: row {number} has the answer {row['answer']!r}, none of {', '.join(LETTERS)}")
            choices, answer = [row[letter] for letter in LETTERS], LETTERS.index(row["answer"])
            yield {"question": row["question"], "subject": subject, "choices": choices, "answer": answer}


def _problem(row: Row, shots: list[Row], numbers: Counter[str]) -> Problem:
    subject = row["subject"]
    if subject not in CATEGORIES:
        raise UserError(f"mmlu: {subject!r} is none of the benchmark's 57 subjects")
    if len(shots) < SHOTS:
        raise UserError(f"mmlu: {subject} has {len(shots)} answered questions in dev, and {SHOTS} are shown")
    topic = subject.replace("_", " ")
    header = f"The following are multiple choice questions (with answers) about {topic}.\n\n"
    examples = "".join(f"{_question(shot)} {LETTERS[shot['answer']]}\n\n" for shot in shots[:SHOTS])
    number = numbers[subject]
    numbers[subject] += 1
    prompt = header + examples + _question(row)
    return Problem(f"{subject}/{number}", prompt, None, LETTERS[row["answer"]], CATEGORIES[subject], row=row)


def _question(row: Row) -> str:
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question']}{choices}\nAnswer:"
