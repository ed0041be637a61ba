"""The model's thread: who gets a row, who leaves it, and what happens when the model fails."""

import time
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from starcoder.batch import Batch
from starcoder.generation import generate_tokens
from starcoder.model import StarCoder
from starcoder.sampling import Sampling, never
from starcoder.serving.engine import ClosingError, Engine, Event, FullError, ModelError, Wish
from tests.serving.conftest import Gated

PROMPTS = [[20, 21, 22], [30], [40, 41, 42, 43, 44], [50, 51]]


def wish(prompt: list[int], tokens: int = 6, seed: int = 0) -> Wish:
    return Wish(prompt, Sampling(tokens, temperature=1.0), (seed, 0), never)


@pytest.fixture
def engine(model: StarCoder, gate: type[Gated]) -> Iterator[Engine]:
    engine = Engine(lambda: gate(model, 2), rows=2, queue=2)
    engine.start()
    yield engine
    engine.stop()
    gate.steps.release(1000)
    engine.join()


def tokens(events: "Queue[Any]", choices: int = 1) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(choices)]
    while choices:
        for event in events.get(timeout=30):
            found[event.choice] += [event.token] if event.token is not None else []
            choices -= event.finish is not None
    return found


def test_what_a_completion_gets_does_not_depend_on_the_others(engine: Engine, model: StarCoder) -> None:
    Gated.steps.release(1000)
    alone = [generate_tokens(model, [prompt], Sampling(6, 1.0, seed=7))[0] for prompt in PROMPTS]
    together: list[Queue[Any]] = [Queue() for _ in PROMPTS]
    for prompt, events in zip(PROMPTS, together, strict=True):
        engine.submit([wish(prompt, seed=7)], events.put)
    assert [tokens(events) for events in together] == [[ids] for ids in alone]
    events: Queue[Any] = Queue()
    engine.submit([wish(prompt, seed=7) for prompt in PROMPTS], events.put)
    assert tokens(events, choices=4) == alone
    assert engine.load == (0, 0)


def test_more_than_fit_are_turned_away_and_cancelling_makes_room(engine: Engine) -> None:
    events: Queue[Any] = Queue()
    with pytest.raises(FullError):
        engine.submit([wish([20])] * 5, events.put)
    first = engine.submit([wish([20])] * 2, events.put)
    second = engine.submit([wish([21])] * 2, events.put)
    assert engine.load == (2, 2)
    with pytest.raises(FullError):
        engine.submit([wish([22])], events.put)
    Gated.steps.release()
    assert {event.choice for event in events.get(timeout=30)} == {0, 1}
    engine.cancel(first)
    engine.cancel(second)
    third: Queue[Any] = Queue()
    Gated.steps.release()  # the step that may have begun before they left
    while sum(engine.load):
        time.sleep(0.01)
    assert events.empty()
    engine.submit([wish([22])] * 4, third.put)
    Gated.steps.release(1000)
    assert len(tokens(third, choices=4)) == 4
    assert events.empty()


def test_a_model_that_fails_ends_what_it_held_and_goes_on(engine: Engine) -> None:
    events: Queue[Any] = Queue()
    engine.submit([wish([20])] * 4, events.put)
    Gated.broken = True
    Gated.steps.release()
    assert isinstance(events.get(timeout=30), ModelError)
    Gated.steps.release(1000)
    again: Queue[Any] = Queue()
    engine.submit([wish([20], tokens=3)], again.put)
    assert len(tokens(again)[0]) == 3
    assert events.empty()


def test_closed_it_finishes_what_it_has_and_stopped_it_ends_it(engine: Engine) -> None:
    events: Queue[Any] = Queue()
    engine.submit([wish([20])], events.put)
    assert engine.state == "ok"
    engine.close()
    assert engine.state != "ok"
    with pytest.raises(ClosingError):
        engine.submit([wish([20])], events.put)
    Gated.steps.release()
    assert [type(event) for event in events.get(timeout=30)] == [Event]
    engine.stop()
    Gated.steps.release()
    while not isinstance(last := events.get(timeout=30), ClosingError):
        assert isinstance(last, list)
    engine.join(30)
    assert events.empty()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_request_waits_for_a_model_that_cannot_be_set_up_again(gate: type[Gated], model: StarCoder) -> None:
    batches = iter([gate(model, 2)])
    engine = Engine(lambda: next(batches), rows=2, queue=2)  # there is one only
    engine.start()
    events: Queue[Any] = Queue()
    engine.submit([wish([20])], events.put)
    Gated.broken = True
    Gated.steps.release()
    assert isinstance(events.get(timeout=30), ModelError)
    engine.join(30)
    assert engine.state != "ok"
    with pytest.raises(ClosingError):
        engine.submit([wish([20])], events.put)


def test_it_is_failing_after_failures_in_a_row(engine: Engine) -> None:
    def fail() -> None:
        events: Queue[Any] = Queue()
        Gated.broken = True
        engine.submit([wish([20])], events.put)
        Gated.steps.release()
        assert isinstance(events.get(timeout=30), ModelError)

    for _ in range(2):
        fail()
    assert engine.state == "ok"
    fail()
    assert engine.state == "failing"
    Gated.steps.release(1000)
    events: Queue[Any] = Queue()
    engine.submit([wish([20])], events.put)
    assert len(tokens(events)) == 1
    assert engine.state == "ok"


def test_what_was_given_up_is_no_load_while_a_step_goes_on(engine: Engine) -> None:
    first = engine.submit([wish([20])] * 2, Queue().put)
    while not engine._rows:
        time.sleep(0.01)
    engine.cancel(first)
    assert engine.load == (0, 0)
    events: Queue[Any] = Queue()
    engine.submit([wish([21], tokens=2)] * 4, events.put)  # as many as ever fit
    assert engine.load == (2, 2)
    Gated.steps.release(1000)
    assert len(tokens(events, choices=4)) == 4


def test_stopped_it_ends_all_at_once_though_a_step_goes_on(engine: Engine) -> None:
    events: Queue[Any] = Queue()
    engine.submit([wish([20])] * 4, events.put)
    engine.stop()
    assert isinstance(events.get(timeout=30), ClosingError)
    assert engine.state == "stopped"
    Gated.steps.release(1000)
    engine.join(30)
    assert events.empty()


def test_logits_that_are_not_finite_end_only_the_request_that_has_them(model: StarCoder) -> None:
    class Damaged(Batch):
        """The first sequence fails."""

        def step(self) -> Any:
            grown = super().step()
            self.remove(0)
            return [one._replace(token=None, finish="failed") if one.handle == 0 else one for one in grown]

    engine = Engine(lambda: Damaged(model, 4), rows=4, queue=2)
    ill, sound = Queue[Any](), Queue[Any]()
    engine.submit([wish([20]), wish([21])], ill.put)
    engine.submit([wish([22])], sound.put)
    engine.start()
    while not isinstance(ill.get(timeout=30), ModelError):
        pass
    assert len(tokens(sound)) == 1
    assert ill.empty()
    assert engine.state == "ok"
    engine.stop()
    engine.join(30)
