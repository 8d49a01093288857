"""What counts as rows to owners, however formulas pick them, and what is a figure."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.errors import SchemaError

ROWS = 40
RNG = np.random.default_rng(3)
DATA = {"id": np.arange(ROWS), "a": RNG.normal(58, 12, ROWS), "e": RNG.uniform(4, 20, ROWS)}


def table_in(lake, name="t", **options):
    return lake.upload(DATA, name=name, key="id", owner="o", ranges={"e": (4, 20)}, **options)


@pytest.fixture(scope="module")
def plain():
    with tercet.local(protocol="plain") as lake:
        yield lake


@pytest.fixture(scope="module")
def table(plain):
    return table_in(plain)


@pytest.fixture
def plan(plain):
    return plain.plan("a plan")


def G(M):
    return M - M.mean(axis=0)


PICK = np.eye(ROWS)[5]
OF_ONE_ROW = {
    "a slice": lambda p, a, M: a[5:6].sum(),
    "a list": lambda p, a, M: (a[[5, 5, 5]] * 2).mean(),
    "a product": lambda p, a, M: a @ PICK + 1,
    "a factor": lambda p, a, M: (a * PICK).sum() - a.sum(),
    "of a matrix": lambda p, a, M: (PICK[None, :] @ M)[0, 1],
    "of its transpose": lambda p, a, M: M.T @ PICK,
    "between": lambda p, a, M: M[4:7][1:2].T @ M[5:6],
    "side by side": lambda p, a, M: p.column_stack([a[2:4], a[5:7]])[1].sum(),
    "one after the other": lambda p, a, M: p.concatenate([a[:2], a[5:6]]).var(),
    "of sums": lambda p, a, M: p.max(a) / 2,
    "pairs of rows": lambda p, a, M: (a[:, None] - a[None, :]).sum(axis=0),
    "pairs turned": lambda p, a, M: (a[:, None] - a[None, :]).sum(axis=1),
    "along": lambda p, a, M: p.sort(a, M)[1][-1:].mean(axis=0),
    "solved": lambda p, a, M: p.solve(G(M).T @ G(M), a[[2, 2]]),
}
OF_MANY_ROWS = {
    "a slice": lambda p, a, M: a[5:25].sum(),
    "moved": lambda p, a, M: (a[1:] * a[:-1]).mean(),
    "another order": lambda p, a, M: a[::-1] @ a,
    "weights": lambda p, a, M: np.linspace(1, 2, ROWS) @ M,
    "beside public ones": lambda p, a, M: p.column_stack([M, np.ones(ROWS)]).T @ a,
    "one column": lambda p, a, M: M[:, 1].var() + (M @ [1.0, 0.0]).sum(),
    "one mean": lambda p, a, M: M.mean(axis=0)[1],
    "coefficients": lambda p, a, M: p.solve(G(M).T @ G(M), M.T @ a)[0],
}


@pytest.mark.parametrize("name", OF_ONE_ROW)
def test_what_rests_on_rows_picked_by_place_is_no_figure(plain, plan, table, name):
    OF_ONE_ROW[name](plan, plan.column(table, "a"), plan.matrix(table, ["a", "e"])).reveal("it")
    assert [one.kind for one in plan.plan().disclosures() if one.kind != "check"][-1:] == ["rows"]
    strict = table_in(plain, name=f"strict {name}", min_count=5)
    with pytest.raises(SchemaError, match="at least 5 rows, not rows"):
        OF_ONE_ROW[name](plan, plan.column(strict, "a"), plan.matrix(strict, ["a", "e"])).reveal("that")


@pytest.mark.parametrize("name", OF_MANY_ROWS)
def test_sums_over_many_rows_are_figures(plain, plan, name):
    strict = table_in(plain, name=f"many {name}", min_count=5)
    OF_MANY_ROWS[name](plan, plan.column(strict, "a"), plan.matrix(strict, ["a", "e"])).reveal("it")
    assert {one.kind for one in plan.plan().disclosures()} <= {"figure", "check"}


def test_a_table_of_one_row_does_not_stop_figures_of_others(plain, plan):
    """It is its owner's to allow; but what is made of it is about one row."""
    strict = table_in(plain, name="strict neighbours", min_count=5)
    new = plain.upload({"id": [0], "a": [61.0]}, name="newcomer", key="id", owner="p")
    a, newcomer = plan.column(strict, "a"), plan.column(new, "a")
    nearest, other = plan.sort((a - newcomer[0]) ** 2, plan.column(strict, "e"))
    other[:9].mean().reveal("share")
    newcomer.sum().reveal("the row")
    assert [one.kind for one in plan.plan().disclosures() if one.kind] == ["rows", "rows"]
    with pytest.raises(SchemaError, match="and this one on 1"):
        nearest[:4].mean().reveal("distance")
