"""Counts that are told of tables of which it is secret which rows count, as after filters and some joins."""

import itertools

import numpy as np
import pytest

from tercet.ml import LogisticRegression

MEMBERS, LEAST = 120, 10


@pytest.fixture(scope="module")
def members(lake):
    """A strict table of so many rows, and one of somebody who knows the keys of all of them but a few."""
    number = itertools.count()

    def listed(known, others):
        ids = np.r_[np.arange(known), 10**6 + np.arange(others)]
        columns = {"id": ids, "g": ids % 2, "h": ids // 2 % 2}
        ranges = {"g": (0, 1), "h": (0, 1)}
        return lake.upload(columns, name=f"list {next(number)}", key="id", owner="ann", ranges=ranges)

    x = np.linspace(0, 1, MEMBERS)
    strict = lake.upload(
        {"id": np.arange(MEMBERS), "x": x, "y": np.arange(MEMBERS) % 2},
        name="members",
        key="id",
        owner="hospital",
        min_count=LEAST,
    )
    model = LogisticRegression(max_iter=2).fit(
        lake.upload(
            {"id": np.arange(MEMBERS), "x": x, "y": np.arange(MEMBERS) % 2}, name="own", key="id", owner="ann"
        ),
        "y",
        features=["x"],
    )
    return strict, listed, model


def counts_told(table, model, names):
    """How many rows count, by every figure that is a count or says one."""
    g, h = names
    described = table.describe([g, "x"], statistics=["mean"])
    matrix = model.evaluate(table).reveal("confusion_matrix").confusion_matrix
    return [
        described[g]["count"],
        described["x"]["count"],
        table.value_counts(g).counts.sum(),
        table.crosstab(g, h, statistics=["counts"]).counts.sum(),
        table.groupby(g).agg({"x": ["count"]}).counts.sum(),
        np.sum(matrix),
    ]


@pytest.mark.cases("plain-noisy-long", "plain-hidden-long", "plain-noisy-short", "replicated-noisy-short")
@pytest.mark.parametrize("others", [20, 500], ids=["short", "long"])
@pytest.mark.parametrize("sizes", ["noisy", "hidden"])
@pytest.mark.filterwarnings("ignore")
def test_no_list_of_keys_takes_away_few_rows(members, sizes, others):
    """Figures of all members but few, less those of all, would be those of few; dummies are no members."""
    strict, listed, model = members
    for known, told in ((MEMBERS - 1, False), (MEMBERS // 2, True)):
        mine = listed(known, others)
        for first, second in ((strict, mine), (mine, strict)):
            joined = first.join(second, on="id", sizes=sizes)
            found = counts_told(joined, model, ("g", "h"))
            *counts, of_matrix = found
            np.testing.assert_array_equal(counts, known if told else np.nan)
            assert told or np.isnan(of_matrix)


@pytest.mark.filterwarnings("ignore")
def test_no_filter_takes_away_few_rows(members):
    """Also where it is told how many rows are in which group, which tells how many rows count."""
    strict, _, model = members
    both = strict.assign(g=strict["x"] > 0.2, h=strict["x"] > 0.7)
    few = both.filter(both["x"] > 1 / MEMBERS)
    assert np.isnan(counts_told(few, model, ("g", "h"))).all()
