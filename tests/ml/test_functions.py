"""Functions of columns, compared with NumPy and pandas within the errors that they state."""

import math

import numpy as np
import pandas as pd
import pytest

from tercet.errors import PlanError, SchemaError
from tercet.ml.column_functions import EXP_ERROR, LOG_ERROR, ROOT_ERROR

ROWS = 400
RNG = np.random.default_rng(8)
COST = np.exp(RNG.uniform(0, math.log(5000), ROWS)).clip(1, 5000)
COST[:3] = [1, 5000, 2]
COUNT = RNG.integers(0, 10**6, ROWS)
COUNT[:6] = [0, 1, 2, 3, 4, 10**6]
Y = RNG.normal(size=ROWS) * 3


def put(lake, **options):
    columns = {"id": np.arange(ROWS), "cost": COST, "count": COUNT, "y": Y}
    ranges = {"cost": (1, 5000), "count": (0, 10**6), "y": (-20, 20)}
    return lake.upload(columns, name="t", key="id", owner="o", ranges=ranges, **options)


def last(made, name):
    """Half of the last place of a column."""
    return 0.5001 * 2.0 ** -made.column(name).schema.scale


@pytest.mark.cases
def test_what_is_exact(lake):
    table = put(lake)
    y = table["y"]
    made = table.assign(
        size=y.abs(),
        apart=(y - 1).abs(),
        flipped=abs(table["count"] - 1000),
        whole=y.round(),
        tenth=y.round(1),
        hundreds=table["count"].round(-2),
        band=y.cut([-20.5, -1, 0, 2, 20.5]),
        grade=table["count"].cut([-math.inf, 0, 3, math.inf], labels=["none", "few", "many"]),
        left=table["count"].cut([0, 3, 10**7], right=False),
    )
    found = made.reveal()
    stored = found["y"]
    np.testing.assert_array_equal(found["size"], np.abs(stored))
    np.testing.assert_allclose(found["apart"], np.abs(stored - 1), atol=last(made, "apart"))
    np.testing.assert_array_equal(found["flipped"], np.abs(COUNT - 1000))
    np.testing.assert_array_equal(found["whole"], np.floor(stored + 0.5))
    assert made.column("whole").schema.kind == "integer"
    np.testing.assert_allclose(found["tenth"], np.floor(stored * 10 + 0.5) / 10, atol=last(made, "tenth"))
    np.testing.assert_array_equal(found["hundreds"], np.floor(COUNT / 100 + 0.5) * 100)
    expected = pd.cut(stored, [-20.5, -1, 0, 2, 20.5], labels=made["band"].labels)
    np.testing.assert_array_equal(found["band"], expected.astype(object))
    assert made["band"].labels == ("(-20.5, -1]", "(-1, 0]", "(0, 2]", "(2, 20.5]")
    np.testing.assert_array_equal(
        found["grade"], np.select([COUNT <= 0, COUNT <= 3], ["none", "few"], "many")
    )
    np.testing.assert_array_equal(found["left"], np.where(COUNT < 3, "[0, 3)", "[3, 1e+07)"))


@pytest.mark.cases
def test_what_has_a_stated_error(lake):
    table = put(lake)
    lake.disclosed.clear()
    made = table.assign(
        log=table["cost"].log(),
        log1p=(table["count"] + 1).log(),
        root=table["cost"].sqrt(),
        of_count=table["count"].sqrt(),
        exp=table["y"].clip(-3, 3).exp(),
        wide=table["y"].clip(-16, 16).exp(),
        flat=table["y"].clip(0, 0.1).exp(),
    )
    assert lake.disclosed == []
    found = made.reveal()
    cost, y = found["cost"], found["y"]
    np.testing.assert_allclose(found["log"], np.log(cost), atol=LOG_ERROR + last(made, "log"), rtol=0)
    np.testing.assert_allclose(
        found["log1p"], np.log(COUNT + 1), atol=LOG_ERROR + last(made, "log1p"), rtol=0
    )
    np.testing.assert_allclose(found["root"], np.sqrt(cost), rtol=ROOT_ERROR, atol=last(made, "root"))
    np.testing.assert_allclose(
        found["of_count"], np.sqrt(COUNT), rtol=ROOT_ERROR, atol=last(made, "of_count")
    )
    for name, end in (("exp", 3), ("wide", 16)):
        expected = np.exp(np.clip(y, -end, end))
        np.testing.assert_allclose(found[name], expected, rtol=EXP_ERROR, atol=last(made, name))
    np.testing.assert_allclose(
        found["flat"], np.exp(np.clip(y, 0, 0.1)), rtol=EXP_ERROR, atol=last(made, "flat") + 2e-5
    )


def test_errors_of_the_cubics_themselves():
    """On the whole of each narrow range, and a little beyond: a factor is rounded, which moves a unit."""
    from tercet.ml.column_functions import EXP, LOG, NARROW, ROOT, STEP

    u = np.linspace(NARROW * (1 - 2.0**-9), 1 + 2.0**-9, 5000)
    x = np.linspace(-STEP / 2, STEP / 2, 5000)
    assert np.abs(np.polyval(LOG[::-1], u) - np.log(u)).max() < LOG_ERROR
    assert np.abs(np.polyval(ROOT[::-1], u) / np.sqrt(u) - 1).max() < ROOT_ERROR
    assert np.abs(np.polyval(EXP[::-1], x) / np.exp(x) - 1).max() < EXP_ERROR


def test_equal_values_stay_equal(plain):
    """Whatever the rows around them: 100 copies of each of four numbers."""
    values = np.repeat([1.5, 2.25, 700.0, 4999.0], 100)
    table = plain.upload(
        {"id": np.arange(400), "x": values}, name="r", key="id", owner="o", ranges={"x": (1, 5000)}
    )
    found = table.assign(log=table["x"].log(), root=table["x"].sqrt()).reveal()
    for name in ("log", "root"):
        assert len(np.unique(found[name])) == 4


def test_missing_values_stay_missing(plain):
    values = np.where(np.arange(ROWS) % 4 == 0, np.nan, COST)
    table = plain.upload(
        {"id": np.arange(ROWS), "x": values},
        name="m",
        key="id",
        owner="o",
        ranges={"x": (1, 5000)},
        missing="indicator",
    )
    made = table.assign(log=table["x"].log(), band=table["x"].cut([0, 10, 6000]))
    assert made.describe(["log"], statistics=["mean"])["log"]["count"] == 300
    assert made.column("band").schema.missing == "band_missing"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t["count"].log(), "count lies between 0 and 1e.06 by what is public, so it may be zero"),
        (lambda t: t["y"].log(), "it may be zero or less and have no logarithm; clip it"),
        (lambda t: t["y"].sqrt(), "it may be negative and have no root; clip it"),
        (lambda t: t["cost"].exp(), "too far apart for an exponential"),
        (lambda t: t["y"].round(0.5), "decimals is a whole number"),
        (lambda t: t["y"].round(10), "decimals is a whole number"),
        (lambda t: t["y"].cut([0, 1]), "some rows may be in none"),
        (lambda t: t["y"].cut([1, 0]), "each above the last"),
        (lambda t: t["y"].cut([-math.inf, math.inf, 0]), "each above the last"),
        (lambda t: t["y"].cut([-math.inf, 0, math.inf], labels=["a"]), "2 bands have 1 labels"),
        (lambda t: t["y"].cut([-math.inf, 0, math.inf], labels=["a", "a"]), "the label 'a' twice"),
    ],
)
def test_functions_are_refused_outside_their_ranges(plain, make, message):
    with pytest.raises((SchemaError, PlanError), match=message):
        make(put(plain))
