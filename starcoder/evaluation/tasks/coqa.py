"""CoQA: the next question of a conversation about a passage, answered in a few words (§7.2, zero-shot).

The prompt is the passage and the conversation with its true answers; the first line that the model writes is its
answer. F1 over words and exact match are those of the benchmark's own script: case, punctuation and articles do not
count; of several people's answers each is left out in turn, the best match with the others counts, and the mean of
that is the score, so that models are measured as people are.

The usual harness asks only the last question of each of the 500 conversations, and so does `coqa`; `coqa-all` asks all
7,983. StarCoder and StarCoderBase have an F1 of 0.67.

Data: `coqa/coqa-dev-v1.0.json`, an object whose `data` lists conversations: `id`, `source`, `story`, `questions` (each
with `input_text`), `answers` (likewise), `additional_answers` (lists of answers of other people, by name).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import checked, find_files
from starcoder.evaluation.task import Defaults, Matched, Problem
from starcoder.rows import Row, read_object

_FIELDS = ("id", "source", "story", "questions", "answers")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class CoQA(Matched):
    """F1 and exact match of the last answers, a row of the table for each kind of passage."""

    name = "coqa"
    title = "CoQA (zero-shot)"
    section = "§7.2"
    data = "coqa"
    source = "https://downloads.cs.stanford.edu/nlp/data/coqa/coqa-dev-v1.0.json"
    defaults = Defaults(n_samples=1, temperature=0.0, max_new_tokens=64, stop=("\nQ:",))
    every_turn = False

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        found = []
        for file in find_files(folder, self.data, "coqa-dev*.json", source=self.source):
            stories = read_object(file).get("data")
            if not isinstance(stories, list) or not all(isinstance(story, dict) for story in stories):
                raise UserError(f"{file} has no list of conversations under data: download it again")
            for story in checked(file, stories, _FIELDS):
                found += self._turns(file, story)
        return found

    def _turns(self, file: Path, story: Row) -> list[Problem]:
        try:
            questions = [question["input_text"] for question in story["questions"]]
            people = [story["answers"], *story.get("additional_answers", {}).values()]
            answers = [[answer["input_text"] for answer in person] for person in people]
        except (LookupError, TypeError, AttributeError):
            raise UserError(f"{file}: conversation {story['id']} lacks an input_text: download it again") from None
        if not questions or {len(person) for person in answers} != {len(questions)}:
            raise UserError(f"{file}: conversation {story['id']} has not one answer a question: download it again")
        first = 0 if self.every_turn else len(questions) - 1
        return [
            Problem(
                f"{story['id']}/{turn + 1}",
                _prompt(story["story"], questions[: turn + 1], answers[0]),
                reference=answers[0][turn],
                group=story["source"],
                row={"answers": [person[turn] for person in answers]},
            )
            for turn in range(first, len(questions))
        ]

    @override
    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        answer = (completion.strip().splitlines() or [""])[0]
        people = problem.row["answers"]
        return {"f1": leave_one_out(f1, people, answer), "exact_match": leave_one_out(exact_match, people, answer)}


class CoQAAll(CoQA):
    """The same for all questions."""

    name = "coqa-all"
    title = "CoQA, all questions (zero-shot)"
    every_turn = True


def _prompt(story: str, questions: Sequence[str], answers: Sequence[str]) -> str:
    earlier = zip(questions[:-1], answers, strict=False)
    turns = "".join(f"Q: {question}\n\nA: {answer}\n\n" for question, answer in earlier)
    return f"{story}\n\n{turns}Q: {questions[-1]}\n\nA:"


def leave_one_out(score: Callable[[str, str], float], people: Sequence[str], answer: str) -> float:
    """The mean, over the people, of the best score against the answers of all others; of one person, the score."""
    if len(people) == 1:
        return score(people[0], answer)
    others = [[*people[:left_out], *people[left_out + 1 :]] for left_out in range(len(people))]
    return sum(max(score(person, answer) for person in kept) for kept in others) / len(people)


def f1(reference: str, answer: str) -> float:
    """Harmonic mean of the shares of words that reference and answer have in common; 1 when both have none."""
    right, given = words(reference), words(answer)
    if not right or not given:
        return float(right == given)
    common = (Counter(right) & Counter(given)).total()
    return 2 * common / (len(right) + len(given))


def exact_match(reference: str, answer: str) -> float:
    """Whether both have the same words in the same order."""
    return float(words(reference) == words(answer))


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_NO_PUNCTUATION)).split()
