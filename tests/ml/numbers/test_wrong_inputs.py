"""What is written wrong into a formula is refused with a sentence and the line; masks are those of NumPy."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError, TercetError

ROWS = 20
DATA = {
    "id": np.arange(ROWS),
    "a": np.linspace(1, 2, ROWS),
    "b": np.arange(ROWS) % 2 == 0,
    "e": np.linspace(4, 20, ROWS),
}
PLACES = np.array([3, -1, 3])
MASK = DATA["a"] > 1.5


@pytest.fixture(scope="module")
def lake():
    with tercet.local(protocol="plain") as opened:
        yield opened


@pytest.fixture(scope="module")
def table(lake):
    return lake.upload(DATA, name="t", key="id", owner="o", ranges={"a": (1, 2), "e": (4, 20)})


OF_ONE = ("sqrt", "log", "exp", "sigmoid", "reciprocal", "max", "min", "argmax", "argmin", "sort", "shuffle")
OPERATORS = {
    "+": lambda x, y: x + y, "-": lambda x, y: y - x, "*": lambda x, y: x * y, "/": lambda x, y: x / y,
    "over": lambda x, y: y / x, "@": lambda x, y: x @ y, "@ on the right": lambda x, y: y @ x,
    "<": lambda x, y: x < y, ">=": lambda x, y: x >= y, "==": lambda x, y: x == y, "!=": lambda x, y: x != y,
    "&": lambda x, y: (x > 1) & y, "|": lambda x, y: (x > 1) | y, "& on the right": lambda x, y: y & (x > 1),
    "**": lambda x, y: x**y, "index": lambda x, y: x[y], "axis": lambda x, y: x.sum(axis=y),
    "within": lambda x, y: x.within(y, 3), "variance": lambda x, y: x.var(axis=y),
}  # fmt: skip
THINGS = {
    "text": "x", "partial": functools.partial(int), "object": object(), "ragged": [[1], [2, 3]],
    "complex": 1j, "nan": np.nan, "huge": 10**400, "date": np.datetime64("2020"), "dict": {},
    "texts": np.array(["x"] * ROWS),
}  # fmt: skip
CALLS = {
    "where public": lambda p, a, b, e: p.where(True, a, e),
    "where an array": lambda p, a, b, e: p.where(MASK, a, e),
    "where numbers": lambda p, a, b, e: p.where(a, a, e),
    "where of text": lambda p, a, b, e: p.where(b, "x", a),
    "^": lambda p, a, b, e: b ^ b,
    "//": lambda p, a, b, e: a // 2,
    "%": lambda p, a, b, e: 7 % a,
    "power of a secret": lambda p, a, b, e: 2**a,
    "int": lambda p, a, b, e: int(a[0]),
    "round": lambda p, a, b, e: round(a[0]),
    "numpy's sum": lambda p, a, b, e: np.sum(a),
    "numpy's where": lambda p, a, b, e: np.where(a, 1, 2),
    "condition and number": lambda p, a, b, e: b & 2,
    "public dot": lambda p, a, b, e: p.dot([1, 2], [3, 4]),
    "public maximum": lambda p, a, b, e: p.maximum(3, 4),
    "clip to nothing": lambda p, a, b, e: p.clip(a, None, 3),
    "clip to rows": lambda p, a, b, e: p.clip(a, np.zeros(ROWS), 3),
    "clip to a secret": lambda p, a, b, e: p.clip(a, e, 3),
    "clip of a number": lambda p, a, b, e: p.clip(3, 1, 2),
    "within nothing": lambda p, a, b, e: a.within(None, 2),
    "within a secret": lambda p, a, b, e: a.within(e, 2),
    "sort along a list": lambda p, a, b, e: p.sort(a, [1] * ROWS),
    "sort of a scalar": lambda p, a, b, e: p.sort(a[0], a),
    "extreme of a scalar": lambda p, a, b, e: p.argmax(a[0]),
    "stack of none": lambda p, a, b, e: p.column_stack(None),
    "stack of one": lambda p, a, b, e: p.column_stack(a),
    "rows of a number": lambda p, a, b, e: p.concatenate(3),
    "take of a list": lambda p, a, b, e: p.take([1, 2, 3], [1]),
    "take of text": lambda p, a, b, e: p.take(a, "xy"),
    "part of a number": lambda p, a, b, e: p.part(3, 0),
    "a public right side": lambda p, a, b, e: p.solve(a[:1].column(), [1]),
    "condition as text": lambda p, a, b, e: p.solve(a[:1].column(), a[:1], condition="x"),
    "columns by number": lambda p, a, b, e: p.matrix(p.table, 3),
    "a step of zero": lambda p, a, b, e: a[::0],
    "a slice of text": lambda p, a, b, e: a["a":],
    "an index in a list": lambda p, a, b, e: a[[[1, 2]]],
    "a matrix of places": lambda p, a, b, e: a[np.ones((2, 2), int)],
    "a short mask": lambda p, a, b, e: a[np.ones(3, bool)],
    "true as a place": lambda p, a, b, e: a[True],
    "a secret mask": lambda p, a, b, e: a[b],
    "a secret place in a list": lambda p, a, b, e: a[[b]],
    "a matrix as a mask": lambda p, a, b, e: p.column_stack([a, e])[np.ones((ROWS, 2), bool)],
    "pairs of places": lambda p, a, b, e: p.column_stack([a, e])[[0, 1], [0, 1]],
    "result without a name": lambda p, a, b, e: a.sum().reveal(3),
    "result for a number": lambda p, a, b, e: a.sum().reveal("x", to=3),
    "result of a class": lambda p, a, b, e: a.sum().reveal("x", kind=[]),
    "public result": lambda p, a, b, e: p.note_reveal(3, "x", "analyst", "figure"),
}  # fmt: skip


def written(lake, table, call):
    plan = lake.plan("wrong")
    plan.table = table
    return call(plan, *plan.columns(table, "a", "b", "e"))


@pytest.mark.parametrize("name", CALLS)
def test_what_is_written_wrong_is_refused(lake, table, name):
    with pytest.raises(TercetError, match=r"^test_wrong_inputs\.py:\d+"):
        written(lake, table, CALLS[name])


@pytest.mark.parametrize("name", OF_ONE)
@pytest.mark.parametrize("given", [4.0, "x", None, [1.0, 2.0], np.ones(3)], ids=repr)
def test_functions_of_secrets_refuse_others(lake, table, name, given):
    with pytest.raises(PlanError, match=r"is of secret numbers, not of a "):
        written(lake, table, lambda p, *_: getattr(p, name)(given))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("thing", THINGS)
def test_operators_refuse_what_is_no_number(lake, table, operator, thing):
    with pytest.raises(PlanError, match=r"^test_wrong_inputs\.py:\d+"):
        written(lake, table, lambda p, a, b, e: OPERATORS[operator](a, THINGS[thing]))


AS_NUMPY = {
    "a mask": lambda a, b, M: a[MASK],
    "a mask as a list": lambda a, b, M: a[MASK.tolist()],
    "places": lambda a, b, M: a[PLACES],
    "rows by a mask": lambda a, b, M: M[MASK],
    "rows by a mask, turned": lambda a, b, M: M[MASK, :].T,
    "columns by a mask": lambda a, b, M: M[:, [False, True]],
    "rows, then columns": lambda a, b, M: M[PLACES][:, [1, 0]],
    "a row by places": lambda a, b, M: M[2, [1, 0]],
    "a place": lambda a, b, M: a[np.int64(3)],
    "a new axis": lambda a, b, M: a[None, :] - a[:, None],
    "and public": lambda a, b, M: (b == 1) & True | MASK,
    "public and": lambda a, b, M: MASK & (b == 1),
    "plus": lambda a, b, M: +a,
}


def test_places_are_taken_from_any_list(lake, table):
    with lake.plan("taken") as plan:
        a = plan.column(table, "a")
        for name, places in {"tuple": (3, 5), "range": range(3, 6), "array": PLACES, "one": 3}.items():
            plan.take(a, places).reveal(name)
    for name, places in {"tuple": (3, 5), "range": range(3, 6), "array": PLACES, "one": 3}.items():
        np.testing.assert_allclose(plan.revealed[name], np.take(DATA["a"], places), atol=1e-4)


@pytest.mark.parametrize("name", AS_NUMPY)
def test_public_masks_and_places_mean_what_they_mean_in_numpy(lake, table, name):
    with lake.plan("right") as plan:
        a, b = plan.columns(table, "a", "b")
        AS_NUMPY[name](a, b, plan.matrix(table, ["a", "e"])).reveal("it")
    want = AS_NUMPY[name](DATA["a"], DATA["b"], np.column_stack([DATA["a"], DATA["e"]]))
    np.testing.assert_allclose(plan.revealed["it"], want.astype(float), atol=1e-4)
