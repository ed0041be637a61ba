import datetime
import math
import os
from array import array
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.evaluation.jail import strict
from starcoder.evaluation.program import Limits, Program, Result, Status
from starcoder.evaluation.sandbox import Sandbox

LIMITS = Limits(timeout=1.0)
ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
ATOMS |= (
    st.text()
    | st.binary()
    | st.dates()
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.times().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas()
    | st.fractions()
)
ATOMS |= st.decimals(allow_nan=False) | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3))
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(ATOMS)
        | st.frozensets(ATOMS)
        | st.dictionaries(ATOMS, inner)
        | st.binary().map(bytearray)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(1, strict=True) as made:
        yield made


def judged(sandbox: Sandbox, code: str, tests: str, **more: Any) -> Result:
    """The result, which must be the strict mode's if there is an entry point, unless `apart` says otherwise."""
    fields = {name: value for name, value in more.items() if name != "apart"}
    result = sandbox.submit(Program(code, tests, **{"entry_point": "f", "limits": LIMITS, **fields})).result()
    assert result.strict == more.get("apart", more.get("entry_point", "f") is not None)
    return result


@settings(max_examples=100)
@given(VALUES)
def test_plain_values_arrive_as_they_were(value: Any) -> None:
    arrived = strict.decode(strict.encode(value))
    assert arrived == value
    assert spelled(arrived) == spelled(value)


def spelled(value: Any) -> Any:
    """`value` with its types, and the order of dictionaries, but not of sets."""
    if isinstance(value, dict):
        return ["dict", *((spelled(key), spelled(item)) for key, item in value.items())]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(spelled, value)]
    if isinstance(value, set | frozenset):
        return [type(value).__name__, *sorted(map(repr, value))]
    return repr(value)


def test_special_numbers_arrive() -> None:
    more = (..., deque([1, (2,)], 3), deque([deque()]), array("d", [0.5]), array("B", b"x"))
    for value in (math.inf, -math.inf, -0.0, 10**400, -(2**64), True, int, ValueError, *more):
        assert repr(strict.decode(strict.encode(value))) == repr(value)
    assert math.isnan(strict.decode(strict.encode(math.nan)))
    assert strict.decode(strict.encode("\ud800")) == "\ud800"


def test_subclasses_are_reduced_to_what_they_are() -> None:
    class Liar(int):
        def __add__(self, other: object) -> int:
            return 42

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    colour = IntEnum("colour", ["RED"])
    pair = namedtuple("pair", "a b")
    given_ = [
        Liar(1),
        colour.RED,
        pair(1, [2]),
        Counter("aab"),
        OrderedDict(a=1),
        np.float64(0.5),
        np.int64(3),
        np.bool_(1),
    ]
    found = [strict.decode(strict.encode(value)) for value in given_]
    assert found == [1, 1, (1, [2]), {"a": 2, "b": 1}, {"a": 1}, 0.5, 3, True]
    assert [type(value) for value in found] == [int, int, tuple, dict, dict, float, int, bool]


def test_iterators_arrive_with_what_they_hold_and_others_equal_nothing() -> None:
    assert list(strict.decode(strict.encode(map(str, range(3))))) == ["0", "1", "2"]
    assert sorted(strict.decode(strict.encode({1: 2, 3: 4}.values()))) == [2, 4]
    thing = strict.decode(strict.encode(object()))
    assert thing != thing  # noqa: PLR0124
    assert thing != object()
    assert thing != 9
    assert bool(thing)


@pytest.mark.parametrize(
    ("code", "tests", "status"),
    [
        ("def f(x): return x * x", "assert f(3) == 9\nassert f(x=-1) == 1", "passed"),
        ("def f(x): return x", "assert f(3) == 9", "failed"),
        ("class A:\n    __eq__ = lambda a, b: True\ndef f(x): return A()", "assert f(3) == 9", "failed"),
        ("class A(int):\n    __eq__ = lambda a, b: True\ndef f(x): return A()", "assert f(3) == 9", "failed"),
        ("import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 1", "assert abs(f(3) - 9) < 1e-6", "failed"),
        ("abs = lambda x: 0\ndef f(x): return 1", "assert abs(f(3) - 9) < 1e-6", "failed"),
        (
            "import math\nmath.isclose = lambda *a: True\ndef f(x): return 1",
            "import math\nassert math.isclose(f(3), 9)",
            "failed",
        ),
        ("def f(x): return [1, (2,)]", "assert f(0) == [1, (2,)]", "passed"),
        ("def f(x): return [1, 2]", "assert f(0) == (1, 2)", "failed"),
        ("def f(x): x.append(1)", "x = []\nf(x)\nassert x == [1]", "passed"),
        ("def f(x): x[0][0] = 5; x.append(1)", "row = [0]\nx = [row, 2]\nf(x)\nassert x == [[5], 2, 1]", "passed"),
        ("def f(x): x[0][0] = 5", "row = [0]\nx = [row]\nf(x)\nassert row == [5]", "passed"),
        ("def f(x): x.update(b=2); del x['a']", "x = {'a': 1}\nf(x)\nassert x == {'b': 2}", "passed"),
        (
            "def f(x): raise ValueError('no', 3)",
            "try: f(1)\nexcept ValueError as e: assert e.args == ('no', 3)",
            "passed",
        ),
        ("class E(KeyError): pass\ndef f(x): raise E('k')", "try: f(1)\nexcept KeyError: pass", "passed"),
        ("def f(x): raise ValueError", "f(1)", "failed"),
        ("def f(x): raise StopIteration", "assert all(map(lambda x: f(x) == 1, [1, 2]))", "failed"),
        ("def f(x): raise SystemExit", "f(1)", "exited_early"),
        ("def f(x):\n    import os\n    os._exit(0)", "try: f(1)\nexcept Exception: pass", "exited_early"),
        ("def f(x):\n    import os\n    os.abort()", "f(1)", "crashed"),
        ("def f(x): return bytearray(2 << 30)", "f(1)", "out_of_memory"),
        ("def f(x):\n    while True: pass", "f(1)", "timed_out"),
        ("raise ValueError('early')", "pass", "failed"),
        ("import sys; sys.exit()", "pass", "exited_early"),
        ("def g(x): return x", "pass", "failed"),
        ("def f(x): return iter(range(200_000))", "assert f(f(1)) == 1", "failed"),
        ("def f(x): x.append(9)", "x = []\nf(x=x)\nassert x == [9]", "passed"),
        ("def f(x, y): x.append(1); return y", "x = []\nassert f(x, x) == [1]\nassert x == [1]", "passed"),
        ("def f(x, y): x.append(1); return y", "x = []\nassert f(x, y=x) == [1]\nassert f([], []) == []", "passed"),
        (
            "from collections import deque\ndef f(x): x.rotate(1); return deque(x)",
            "from collections import deque\nx = deque([1, 2])\nassert f(x) == x == deque([2, 1])",
            "passed",
        ),
        ("def f(x): return range(200_000)", "assert f(map(str, f(1))) == 1", "failed"),
    ],
)
def test_verdicts(sandbox: Sandbox, code: str, tests: str, status: str) -> None:
    result = judged(sandbox, code, tests)
    assert result.status == status, result


OBJECTS = "class Tree:\n    def __init__(self, depth): self.depth = depth\n"
DEPTH = OBJECTS + "def f(tree): return tree.depth"


@pytest.mark.parametrize(
    ("code", "tests", "reference", "status"),
    [
        ("def f(x): return 1", "assert f(lambda: 1) == 1", "", "passed"),
        ("def f(x): return 2", "assert f(lambda: 1) == 1", "", "failed"),
        (DEPTH, "assert f(Tree(3)) == 3", DEPTH, "passed"),
        (DEPTH + " + 1", "assert f(Tree(3)) == 3", DEPTH, "failed"),
        (DEPTH, "assert f(Tree(3)) == 3\nassert f(Tree(4)) == 4", DEPTH, "passed"),
        (DEPTH + " + 0", "assert f(type('T', (), {'depth': 3})) == 3", DEPTH, "passed"),
        ("def f(x): return x", "assert f(2) == 2\nassert f(print) is print", "def f(y): return y", "passed"),
        (
            "import itertools\ndef f(x): return itertools.count(x)",
            "assert next(f(3)) == 3",
            "def f(x):\n    while True:\n        yield x",
            "passed",
        ),
    ],
)
def test_tests_of_more_than_plain_values_are_left_to_the_default_mode(
    sandbox: Sandbox, code: str, tests: str, reference: str, status: str
) -> None:
    assert judged(sandbox, code, tests, reference=reference, apart=False).status == status


def test_a_candidate_cannot_leave_the_strict_mode(sandbox: Sandbox) -> None:
    equal = "class A:\n    __eq__ = lambda a, b: True\ndef f(x): return A()"
    assert judged(sandbox, equal, "assert f(3) == 9", reference="def f(x): return x * x").status is Status.FAILED
    assert judged(sandbox, equal, "assert f(f(1)) == 1", reference="def f(x): return 1").status is Status.FAILED


def test_programs_that_name_frames_must_pass_in_the_strict_mode_too() -> None:
    honest = "import sys\ndef f(x): return x * x if sys._getframe().f_back else 0"
    with Sandbox(1) as made:
        result = made.submit(Program(honest, "assert f(3) == 9", entry_point="f", limits=LIMITS)).result()
        alone = made.submit(Program(honest, "assert f(3) == 9", limits=LIMITS)).result()
    assert (result.status, result.strict) == (Status.PASSED, True)
    assert (alone.status, alone.strict) == (Status.PASSED, False)


def test_the_candidate_cannot_find_the_tests(sandbox: Sandbox) -> None:
    code = """
import gc, sys
def f(pieces):
    frame, found = sys._getframe(), []
    while frame:
        found += map(str, frame.f_locals.values())
        frame = frame.f_back
    found += [str(thing) for thing in gc.get_objects() if isinstance(thing, (dict, tuple))]
    return found and not any("".join(pieces) in text for text in found)
"""
    assert judged(sandbox, code, "assert f(['rare', 'wo', 'rd'])\nrareword = 1").passed
    assert not judged(sandbox, code, "assert f(['sys', '.', '_getframe'])").passed  # its own text it does find


@pytest.mark.parametrize(
    "text", ["x" * 99, "\\x05\\0\\0\\0hello", "\\xff\\xff\\xff\\xff", '\\x0c\\0\\0\\0{"value": [}', "\\x02\\0\\0\\0{}"]
)
def test_nonsense_on_the_connection_is_the_candidates_failure(sandbox: Sandbox, text: str) -> None:
    code = f"import os\nos.write(4, b'{text}')\ndef f(x): return 9"
    assert judged(sandbox, code, "try: assert f(3) == 9\nexcept Exception: pass").status is Status.FAILED


def test_tests_that_do_not_compile_are_nobodys_failure(sandbox: Sandbox) -> None:
    result = sandbox.submit(Program("def f(x): return 1", "assert (", entry_point="f")).result()
    assert result.status is Status.SANDBOX_ERROR
    assert "the tests do not compile" in result.detail


def test_output_of_both_sides_is_kept(sandbox: Sandbox) -> None:
    result = judged(sandbox, "def f(x): print('candidate')", "f(1)\nprint('tests')\nassert False")
    assert sorted(result.stdout.split()) == ["candidate", "tests"]
    assert "<tests>" in result.stderr


def test_reference_helps_the_tests_alone(sandbox: Sandbox) -> None:
    reference = "def helper(x): return x * x\ndef f(x): return 'the reference'"
    tests = "assert helper(3) == f(3) == 9"
    assert judged(sandbox, "def helper(x): return 0\ndef f(x): return x * x", tests, reference=reference).passed
    assert not judged(sandbox, "def f(x): return helper(x)", tests, reference=reference).passed


def test_without_an_entry_point_the_tests_run_beside_the_candidate(sandbox: Sandbox) -> None:
    assert judged(sandbox, "y = 1", "assert y == 1", entry_point=None).passed


def test_machine_code_is_only_run_apart_from_the_verdict() -> None:
    code = "import numpy\ndef f(x): return numpy.int64(x) ** 2"
    with Sandbox(1) as made:
        plain, numpy, alone, declared, wrong = (
            made.submit(Program(*parts[:2], entry_point=parts[2], libraries=parts[3], limits=LIMITS)).result()
            for parts in (
                ("def f(x): return x * x", "assert f(3) == 9", "f", ()),
                (code, "assert f(3) == 9", "f", ()),
                (code, "assert f(3) == 9", None, ()),
                (code, "assert f(3) == 9", None, ("numpy",)),
                (code, "assert f(3) == 8", "f", ()),
            )
        )
    assert [result.status for result in (plain, numpy, alone, declared, wrong)] == [
        *("passed", "passed", "failed", "passed", "failed")
    ]
    assert [result.strict for result in (plain, numpy, alone, declared, wrong)] == [False, True, False, False, True]
    assert "numpy" in alone.detail


def test_exact_types_that_look_alike_are_told_apart() -> None:
    values = [Decimal(1), Fraction(1), 1, 1.0, True, datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), os]
    kinds = [type(strict.decode(strict.encode(value))) for value in values]
    assert kinds == [*map(type, values[:-1]), strict.Opaque]
