"""Rules for disclosures, against the sentence that each of them stands for."""

import inspect
from typing import get_overloads

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.errors import PlanError, SchemaError
from tercet.ml import MeanImputer, MinMaxScaler, StandardScaler, Table
from tercet.ml.disclosure import (
    all_at_least,
    at_least,
    both,
    inverted,
    side_by_side,
    tellable,
    tellable_cells,
)
from tercet.ml.transformers import Transformer
from tercet.plans.review import review


def test_what_may_be_told_of_a_count(compute):
    """Enough rows, and the others none or enough."""
    for of, least in ((30, 1), (30, 5), (30, 15), (30, 16), (4, 5)):
        counts = np.arange(of + 1)
        found = compute(lambda x, of=of, least=least: tellable(x, of, least), 0, counts)
        rest = of - counts
        np.testing.assert_array_equal(found, (counts >= least) & ((rest == 0) | (rest >= least)))


def test_conditions(compute):
    x, y = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    found = compute(lambda a, b: (both(a, b), inverted(a), side_by_side([b.sum().reshape(1)] * 2)), 0, x, y)
    for values, wanted in zip(found, (x & y, 1 - x, [2, 2]), strict=True):
        np.testing.assert_array_equal(values, wanted)
    np.testing.assert_array_equal(compute(lambda a: at_least(a, 2.5), 4, [2.4375, 2.5, -3, 7]), [0, 1, 0, 1])
    for counts, wanted in (([3, 3], 1), ([3, 2], 0), ([0, 1], 0)):
        assert compute(lambda a, b: all_at_least([a, b], 3), 0, *[[count] for count in counts])[0] == wanted


@pytest.mark.cases(
    "plain"
)  # which cells are told hangs on exact comparisons, that others here make on shares
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cells=st.lists(st.integers(0, 12) | st.integers(0, 500), min_size=1, max_size=9),
    others=st.integers(0, 8),
    least=st.integers(2, 12),
)
def test_what_may_be_told_of_cells(compute, cells, others, least):
    """Large cells, unless what is hidden would be few; then the smallest of them stays hidden too."""
    counts = np.array(cells)
    total = counts.sum() + others
    found = compute(lambda x, t: tellable_cells(x, t, least), 0, counts, [total]).astype(bool)
    large = counts >= least
    assert not (found & ~large).any()
    hidden = total - counts[found].sum()
    if found.any():
        assert hidden >= least or (found.all() and hidden == 0)
    extra = np.flatnonzero(large & ~found)
    needed = 0 < total - counts[large].sum() < least or (not large.all() and total == counts[large].sum())
    assert len(extra) == int(needed and large.any())
    if len(extra):
        assert counts[extra[0]] == counts[large].min()


@pytest.fixture
def strict(plain):
    """A table of an owner who wants figures to rest on ten rows."""
    generator = np.random.default_rng(4)
    columns = {
        "id": np.arange(60),
        "x": np.where(np.arange(60) % 6 == 0, np.nan, generator.normal(5, 1, 60)),
        "y": generator.normal(size=60),
        "flag": np.arange(60) % 2 == 0,
    }
    return plain.upload(columns, name="strict", key="id", owner="o", missing="indicator", min_count=10)


def another(lake, least=1):
    """A table of another owner, with the same keys."""
    columns = {"id": np.arange(60), "z": np.linspace(0, 1, 60)}
    return lake.upload(columns, name="other", key="id", owner="p", min_count=least)


def like(lake):
    """Other rows of the strict table's columns, of an owner without a rule."""
    columns = {"id": np.arange(40), "x": np.full(40, np.nan), "y": np.linspace(-1, 1, 40)}
    columns["x"][:2] = 4.0, 6.0
    options = {"missing": "indicator", "scales": {"x": 15, "y": 15}}
    return lake.upload(columns, name="like", key="id", owner="p", **options)


MADE_OF = {
    "__getitem__": lambda t: [t[["y"]], t[["y"]][["y"]]],
    "join": lambda t: [t.join(another(t.lake), on="id"), another(t.lake).join(t[["y"]], on="id")],
    "split": lambda t: [*t.split(), *t.split(stratify="flag")],
    "assign": lambda t: [t.assign(d=t["y"] * 2), t.assign(y=t["flag"])],
    "filter": lambda t: [t.filter(t["flag"]), t.filter(t["flag"], compact=True)],
    "dropna": lambda t: [t.dropna(), t.dropna(compact=True)],
    "drop": lambda t: [t.drop("x")],
    "rename": lambda t: [t.rename({"y": "z"})],
    "select_dtypes": lambda t: [t.select_dtypes("number")],
    "StandardScaler": lambda t: [
        StandardScaler().fit_transform(t[["y"]]),
        StandardScaler("y").fit(t).transform(like(t.lake)),
    ],
    "MinMaxScaler": lambda t: [
        MinMaxScaler().fit_transform(t[["y"]]),
        MinMaxScaler("y").fit(t).transform(like(t.lake)),
    ],
    "MeanImputer": lambda t: [MeanImputer().fit_transform(t), MeanImputer().fit(t).transform(like(t.lake))],
}
"""Every way to make a table of another, and what tables it makes."""


def forms(method):
    """A method, and its overloads."""
    return [method, *get_overloads(method)]


def test_every_way_to_make_a_table_is_known():
    made = {
        name
        for name, method in vars(Table).items()
        if inspect.isfunction(method)
        and any("Table" in str(inspect.signature(one).return_annotation) for one in forms(method))
    }
    made.remove("from_computation")  # which says of a table where it comes from
    assert made | {one.__name__ for one in Transformer.__subclasses__()} == set(MADE_OF)


@pytest.mark.parametrize("way", MADE_OF)
def test_a_minimum_count_goes_along(strict, way):
    """Whatever is made of a table keeps its rule, so no single row of it is ever revealed."""
    for made in MADE_OF[way](strict):
        assert made.min_count == 10
        with pytest.raises(SchemaError, match="on at least 10 rows, not single rows"):
            made.reveal()
        with pytest.raises(SchemaError, match="have to rest on at least 10"):
            made.split(test_size=0.1)[1].describe()


def test_the_strictest_rule_counts(lake):
    def put(name, least):
        return lake.upload({"id": [1, 2], name: [0.5, 1.5]}, name=name, key="id", owner=name, min_count=least)

    joined = put("a", 2).join(put("b", 1), on="id")
    made = joined.assign(c=joined["a"] + joined["b"])
    assert made.min_count == 2
    assert made.column("c").owner == "a+b"
    assert put("e", 1).join(put("f", 1), on="id").min_count == 1


@pytest.mark.parametrize("make", [StandardScaler, MinMaxScaler, MeanImputer])
def test_nothing_is_learned_from_too_few_rows(strict, make):
    """Who scales a table of his own by what he learned would learn what it was."""
    columns = "x" if make is MeanImputer else "y"
    least = 19 if make is MinMaxScaler else 10
    few = strict.filter(strict["y"] > 1.2)
    strict.lake.disclosed.clear()
    learner = make(columns)
    with pytest.raises(SchemaError, match=f"would learn from fewer than {least} rows"):
        learner.fit(few)
    openings = {item.what for item in strict.lake.disclosed if item.to != "the nodes"}
    assert openings == {"whether a transformer learned from fewer rows than owners allow"}
    with pytest.raises(PlanError, match="has not learned anything"):
        learner.transform(few)
    learner.fit(strict.filter(strict["y"] > -0.5))


def test_extremes_of_a_strict_table_are_no_single_rows(strict, plain):
    values = np.linspace(-1, 1, 40)
    scaler = MinMaxScaler("y").fit(strict)
    assert scaler.transform(like(plain)).min_count == 10
    builder = plain.builder("look")
    learned = scaler._learned.input(builder, "ends of columns")
    learned.reveal("ends", to="test")
    ends = plain.run(builder.plan()).revealed["ends"] * 2.0 ** strict.column("y").unit_exponent
    y = np.sort(np.random.default_rng(4).normal(size=(2, 60))[1])
    assert values.min() > y.min()
    np.testing.assert_allclose(ends, y[[9, -10]], atol=1e-3)


@pytest.mark.parametrize("hides", [False, True])
def test_extremes_take_rows_on_both_sides(strict, hides):
    """Of k rows, the k-th least is the largest one, a single row's value."""
    few = strict.filter(strict["y"] > -9) if hides else strict
    rows = np.random.default_rng(4).normal(size=(2, 60))[1]
    for count, refused in ((18, True), (19, False)):
        cut = float(np.sort(rows)[-count - 1 : -count + 1].mean())
        some = few.filter(strict["y"] > cut, compact=not hides)
        if refused:
            with pytest.raises(SchemaError, match=r"(at least|fewer than) 19"):
                MinMaxScaler("y").fit(some)
        else:
            MinMaxScaler("y").fit(some)


def test_a_scaler_tells_no_counts(strict):
    scaler = StandardScaler(["y", "flag"]).fit(strict)
    with pytest.raises(SchemaError, match="column 'flag' is boolean, so its mean tells how many rows"):
        scaler.reveal()
    assert abs(StandardScaler("y").fit(strict).reveal().mean_[0]) < 1


def test_no_plan_reveals_single_rows(plain, monkeypatch):
    """As the nodes see it who apply owners' rules: no row is revealed, and no opening needs a look."""
    generator = np.random.default_rng(1)
    columns = {
        "id": np.arange(90),
        "x": np.where(np.arange(90) % 9 == 0, np.nan, generator.normal(5, 1, 90)),
        "n": generator.integers(0, 3, 90),
        "flag": generator.random(90) < 0.4,
    }
    stored, seen = {}, []
    run = type(plain)._run

    async def reviewed(self, plan, *more):
        found = review(plan, lambda handle: stored.get(handle, frozenset({"t"})))
        stored.update(found.stored)
        seen.append(plan.name)
        assert (found.rows, found.unclear) == ((), ()), plan.name
        return await run(self, plan, *more)

    table = plain.upload(columns, name="t", key="id", owner="o", missing="indicator", min_count=3)
    monkeypatch.setattr(type(plain), "_run", reviewed)
    made = table.assign(square=table["x"] ** 2, old=table["n"] > 1)
    kept = made.filter(made["n"] > 0)
    kept.describe()
    kept.crosstab("old", "flag")
    kept.crosstab("old", "flag", statistics=["chi2"])
    kept.corr(["x", "n", "square"])
    made.filter(made["n"] > 0, compact=True)
    train, test = made.split()
    MeanImputer(columns="x").fit(train).transform(test)
    MinMaxScaler(columns="n").fit(train).transform(test)
    assert len(seen) > 10
