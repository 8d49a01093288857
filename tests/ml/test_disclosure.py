"""Rules for disclosures, against the sentence that each of them stands for."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.consent.review import review
from tercet.ml import MeanImputer, MinMaxScaler
from tercet.ml.association import _allowed
from tercet.ml.disclosure import at_least, both, inverted, least_count, side_by_side, tellable


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
    found = compute(lambda x, t: _allowed(x, t, least), 0, counts, [total]).astype(bool)
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


def test_the_strictest_rule_counts(lake):
    def put(name, least):
        return lake.upload({"id": [1, 2], name: [0.5, 1.5]}, name=name, key="id", owner=name, min_count=least)

    joined = put("a", 2).join(put("b", 1), on="id")
    assert [column.min_count for column in joined.columns] == [2, 1]
    made = joined.assign(c=joined["a"] + joined["b"], d=joined["b"] * 2)
    assert least_count(made, [made.column("c")]) == 2
    assert least_count(made, [made.column("d")]) == 1
    assert made.column("c").owner == "a+b"
    filtered = made.filter(made["a"] > 1)
    assert least_count(filtered, [filtered.column("d")]) == 2
    with pytest.raises(Exception, match="not single rows"):
        made.reveal("c")
    np.testing.assert_allclose(np.sort(made.reveal("d")["d"]), [1, 3], atol=1e-3)


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
