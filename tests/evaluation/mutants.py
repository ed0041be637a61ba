"""Wrong variants of right programs: one small slip each, of the kinds that models and people make.

A mutant may still be right (the slip is where it does not matter), so whoever uses them has to prove them wrong.
"""

import ast
import copy
import random
from collections.abc import Callable

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Div,
    ast.Div: ast.FloorDiv,
    ast.Mod: ast.FloorDiv,
}


def mutants(body: str, seed: int, count: int) -> list[str]:
    """Up to `count` different mutants of a function's indented body, drawn with `seed`.

    There are none of a body with `while`: they may never end, which costs their judge the whole time limit.
    """
    tree = ast.parse("def function():\n" + body)
    nodes = list(ast.walk(tree))
    if any(isinstance(node, ast.While) for node in nodes):
        return []
    sites = [(place, slip) for place, node in enumerate(nodes) for slip in _SLIPS if slip(copy.deepcopy(node))]
    random.Random(seed).shuffle(sites)
    found = {_body(tree): None}
    for place, slip in sites:
        mutant = copy.deepcopy(tree)
        slip(list(ast.walk(mutant))[place])
        found[_body(mutant)] = None
        if len(found) > count:
            break
    return list(found)[1:]


def _body(tree: ast.Module) -> str:
    return ast.unparse(tree).partition("\n")[2] + "\n"


def _operator(node: ast.AST) -> bool:
    """Another comparison, arithmetic or boolean operator."""
    if isinstance(node, ast.Compare):
        swap = _SWAPS.get(type(node.ops[0]))
        node.ops[0] = swap() if swap else node.ops[0]  # type: ignore[call-overload]
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        swap = _SWAPS.get(type(node.op))
        node.op = swap() if swap else node.op  # type: ignore[assignment]
    else:
        return False
    return swap is not None


def _off_by_one(node: ast.AST) -> bool:
    """A number one too large; a string a letter too long; the other truth value."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, bool | int | float | str):
        return False
    value = node.value
    node.value = not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 1
    return True


def _short_range(node: ast.AST) -> bool:
    """A range that stops too early."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "range":
        return False
    stop = min(1, len(node.args) - 1)
    node.args[stop] = ast.BinOp(node.args[stop], ast.Sub(), ast.Constant(1))
    return True


def _no_return(node: ast.AST) -> bool:
    """A result that is computed and not returned."""
    if not isinstance(node, ast.Return) or node.value is None:
        return False
    node.value = ast.Constant(None)
    return True


def _arguments(node: ast.AST) -> bool:
    """The first two arguments in the wrong order."""
    if not isinstance(node, ast.Call) or len(node.args) < 2 or any(isinstance(arg, ast.Starred) for arg in node.args):
        return False
    node.args[:2] = node.args[1], node.args[0]
    return True


def _condition(node: ast.AST) -> bool:
    """A condition the wrong way round."""
    if not isinstance(node, ast.If | ast.IfExp):
        return False
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return True


_SLIPS: tuple[Callable[[ast.AST], bool], ...] = (
    _operator,
    _off_by_one,
    _short_range,
    _no_return,
    _arguments,
    _condition,
)
