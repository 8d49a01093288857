"""Quotients, reciprocals, roots and inverse roots: right to as much of themselves, however small they are."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.actors.estimate import explain
from tercet.errors import PlanError
from tercet.ml import linalg
from tercet.ml.numbers.facts import Facts

POWERS = 2 ** np.arange(15)
FACTORS = np.concatenate([POWERS, POWERS[1:] - 1, [3, 5, 1000, 12345]])
WIDE = FACTORS**2
OTHER = np.random.default_rng(5).integers(-900, 900, len(WIDE))
QUOTIENTS = {
    "reciprocal": (lambda p, x, y: 1 / x, lambda x, y: 1 / x),
    "negative": (lambda p, x, y: -3 / -x, lambda x, y: 3 / x),
    "quotient": (lambda p, x, y: y / x, lambda x, y: y / x),
    "of one row": (lambda p, x, y: y[7] / x, lambda x, y: y[7] / x),
    "by one row": (lambda p, x, y: y / x[20], lambda x, y: y / x[20]),
    "of alike": (lambda p, x, y: x / x, lambda x, y: x / x),
    "root": (lambda p, x, y: p.sqrt(x), lambda x, y: np.sqrt(x)),
    "inverse root": (lambda p, x, y: 1 / p.sqrt(x), lambda x, y: 1 / np.sqrt(x)),
    "over a root": (lambda p, x, y: x / p.sqrt(x), lambda x, y: np.sqrt(x)),
    "over a root, negative": (lambda p, x, y: y / p.sqrt(x), lambda x, y: y / np.sqrt(x)),
    "twice": (lambda p, x, y: 1 / (1 / x), lambda x, y: x),
    "matrix": (lambda p, x, y: 1 / p.column_stack([x, 2 * x]), lambda x, y: 1 / np.column_stack([x, 2 * x])),
    "rows": (lambda p, x, y: p.column_stack([y, y + 5]) / x[:, None],
             lambda x, y: np.column_stack([y, y + 5]) / x[:, None]),
    "columns": (lambda p, x, y: p.column_stack([y, x]) / p.sqrt(x[:2] + 5),
                lambda x, y: np.column_stack([y, x]) / np.sqrt(x[:2] + 5)),
}  # fmt: skip


def table_in(lake):
    data = {"id": np.arange(len(WIDE)), "factor": FACTORS, "y": OTHER}
    ranges = {"factor": (1, 2**14), "y": (-900, 900)}
    return lake.upload(data, name="t", key="id", owner="o", ranges=ranges)


def columns(plan, table):
    """Squares from 1 to 2^28, and whole numbers from -900 to 900."""
    factor, y = plan.columns(table)
    return factor * factor, y


@pytest.fixture(scope="module")
def plain():
    with tercet.local(protocol="plain") as lake:
        yield lake


@pytest.fixture(scope="module")
def table(plain):
    return table_in(plain)


@pytest.mark.cases("rep4")
@pytest.mark.parametrize("protocol", ["plain", "replicated", "shamir", "rep4", "additive"])
def test_they_are_right_to_as_much_of_themselves(protocol):
    """Over 28 octaves: of integers, which have no error, to 1e-7 where 64 bits have places for that."""
    with tercet.local(protocol=protocol) as lake, lake.plan("inverses") as plan:
        x, y = columns(plan, table_in(lake))
        numbers = {name: made(plan, x, y) for name, (made, _) in QUOTIENTS.items()}
        for name, number in numbers.items():
            number.reveal(name, kind="rows")
    for name, (_, exact) in QUOTIENTS.items():
        want = exact(WIDE.astype(float), OTHER.astype(float))
        found, number = plan.revealed[name], numbers[name]
        off = np.abs(found - want)
        assert found.shape == want.shape, name
        assert (off <= number.error + np.abs(want) * 1e-13).all(), name
        relative = number.relative_error
        if np.isfinite(relative).all():
            assert (off <= (relative + 1e-13) * np.abs(want)).all(), name
        assert (off <= 1e-7 * np.abs(want) + 2.0**-48 * np.abs(want).max()).all(), name


@pytest.mark.parametrize("name", ["reciprocal", "negative", "root", "inverse root", "twice"])
def test_how_much_of_themselves_is_stated(plain, table, name):
    plan = plain.plan("a plan")
    made = QUOTIENTS[name][0](plan, *columns(plan, table))
    assert (made.relative_error < 1e-6).all()
    assert (made.relative_error > 0).all()
    assert (made.error <= made.relative_error * made.bounds[1] * (1 + 1e-9)).all()


def test_numbers_know_how_much_of_themselves_they_may_be_off(plain, table):
    """In sums of one sign and products; not in differences."""
    plan = plain.plan("a plan")
    x, y = columns(plan, table)
    one = 1 / x
    relative = float(one.relative_error.max())
    assert (y.relative_error == 0).all()
    assert relative <= float((one + one * 2).relative_error.max()) < 2 * relative
    assert float(one.sum().relative_error) < 4 * relative
    assert float((-one / 7).relative_error.max()) == pytest.approx(relative)
    assert np.isinf((one - one.mean()).relative_error).all()
    rough, finer = Facts.of(1, 2, error=0.01), Facts.of(3, 4, error=0.003)
    assert float(rough.times(finer).relative[0]) == pytest.approx(0.01 + 0.001 + 0.00001)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda p, x, y: 1 / y, r"reciprocal of numbers between -900 and 900.* zero or less; .* x.within\("),
        (lambda p, x, y: x / (x - 1), r"reciprocal of numbers between 0 and .* x.within\("),
        (lambda p, x, y: x / p.sqrt(x - 1), r"inverse root of numbers between 0 and .* x.within\("),
        (
            lambda p, x, y: 1 / y.within(1e-9, 900, check=False),
            r"differ by 2\^30 at most, so say a narrower one",
        ),
        (lambda p, x, y: 1 / p.sqrt(y), r"the root of numbers .* which may be negative"),
        (
            lambda p, x, y: 1 / (p.sqrt(x) - 1).within(1e-9, 2**14),
            r"between 0 and 16383, .*, known to 0.000\d+, which may be zero or less; .* x.within\(16,",
        ),
    ],
)
def test_what_may_be_zero_is_refused_with_the_line(plain, table, write, says):
    plan = plain.plan("a plan")
    with pytest.raises(PlanError, match=says) as caught:
        write(plan, *columns(plan, table))
    assert str(caught.value).startswith("test_inverses.py:")


def test_a_bound_that_does_not_hold_makes_them_nan(plain, table):
    with plain.plan("bounds") as plan:
        x, y = columns(plan, table)
        (x / y.within(1, 900)).sum().reveal("quotient")
        (1 / plan.sqrt(x.within(2, 2**28))).sum().reveal("inverse root")
        plan.sqrt(x.within(1, 2**28)).sum().reveal("root")
    assert np.isnan(plan.revealed["quotient"])
    assert np.isnan(plan.revealed["inverse root"])
    np.testing.assert_allclose(plan.revealed["root"], np.sqrt(WIDE).sum(), rtol=1e-7)


def test_products_of_bounded_numbers_fit_where_those_of_unbounded_ones_do_not():
    """And are divided by after their check."""
    with tercet.local(protocol="plain") as lake:
        table = lake.upload({"id": [0, 1], "y": [200, 1000]}, name="t", key="id", owner="o")
        with lake.plan("powers") as plan:
            made = plan.column(table, "y").within(100, 2000) ** 4
            (1e10 / made).reveal("over", kind="rows")
    np.testing.assert_allclose(plan.revealed["over"], 1e10 / np.array([200, 1000]) ** 4.0, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["plain", "shamir"])
def test_what_lies_outside_of_a_bound_is_taken_for_its_lower_end(protocol):
    """Before it is divided by, while it is checked: so bounds of what follows hold, and masks hide it."""
    y = np.array([-900, -1, 0, 1, 2, 3, 99, 100, 101, 900])
    with tercet.local(protocol=protocol) as lake:
        table = lake.upload({"id": np.arange(len(y)), "y": y}, name="t", key="id", owner="o")
        with lake.plan("bounds") as plan:
            divisor = plan.column(table, "y").within(2, 100)
            made = {"over": 7 / divisor, "over a root": 7 / plan.sqrt(divisor * divisor)}
            again = {name: 1 / number for name, number in made.items()}
            for name, number in (made | {f"{name} again": one for name, one in again.items()}).items():
                number.reveal(f"{name}, checked", kind="rows")
                number.sound = None
                number.reveal(name, kind="rows")
    inside = np.where((y < 2) | (y > 100), 2, y)
    for name in made:
        assert np.isnan(plan.revealed[f"{name}, checked"]).all()
    np.testing.assert_allclose(plan.revealed["over"], 7 / inside, rtol=1e-6)
    np.testing.assert_allclose(plan.revealed["over again"], inside / 7, rtol=1e-6)
    root = plan.revealed["over a root"]  # of what lies outside only beside a bound of its own
    np.testing.assert_allclose(root[4:8], 7 / inside[4:8], rtol=1e-6)
    np.testing.assert_allclose(root * plan.revealed["over a root again"], 1, rtol=1e-6)
    assert root.max() <= 7 / 2 * 1.0001
    assert root.min() >= 7 / 100 * 0.9999


def test_roots_of_zero_and_of_what_is_nearly_zero(plain, table):
    """Which what rounds may have made less than zero."""
    with plain.plan("roots") as plan:
        x, y = columns(plan, table)
        made = {
            "absolute": (plan.sqrt(abs(y)), np.sqrt(np.abs(OTHER))),
            "less one": (plan.sqrt((x - 1) / 3), np.sqrt((WIDE - 1) / 3)),
            "squares": (plan.sqrt((y / 7) ** 2), np.abs(OTHER / 7)),
        }
        for name, (number, _) in made.items():
            number.reveal(name, kind="rows")
    for name, (number, want) in made.items():
        assert (np.abs(plan.revealed[name] - want) <= number.error).all(), name
        assert number.error.max() <= 7e-5 * want.max()


def test_a_root_that_is_divided_by_is_never_made(plain, table):
    plan = plain.plan("a plan")
    x, y = columns(plan, table)
    root = plan.sqrt(x)
    (y / root).sum().reveal("over")
    over = explain(plan.plan(), "replicated").rounds
    again = plain.plan("again")
    x, y = columns(again, table)
    (y / x).sum().reveal("over")
    assert over <= explain(again.plan(), "replicated").rounds + 3


@pytest.mark.parametrize("root", [1, 2])
def test_factors_bring_all_numbers_to_where_the_series_is_near(root):
    """So that mantissas, and all that they are made of, are within the bounds that plans are told."""
    steps = np.array([*linalg.INVERSE_STEPS[root], 2 << linalg.INVERSE_BITS])
    least = ((steps[:-1] / steps[1:]) ** root).min()
    assert least > linalg.MANTISSA_LOW * (1 + linalg.LOW_MARGIN)
    u = np.linspace(linalg.MANTISSA_LOW, 1 + 2.0**-linalg.SHORT_BITS * 4, 10_001)
    v = u - linalg.MIDDLE
    numbers = np.array(linalg.SERIES[root]) * 0.5 ** np.array(linalg.SERIES_BITS)
    rest = np.polynomial.polynomial.polyval(v, numbers[2:])
    line = np.polynomial.polynomial.polyval(v, numbers[:2])
    off = np.abs((line + v**2 * rest) * u ** (1 / root) - 1).max()
    for made, most in ((v, linalg.NEAR_MOST), (v**2, linalg.SQUARE_MOST), (rest, linalg.REST_MOST),
                       (line, linalg.MANTISSA_MOST)):  # fmt: skip
        assert np.abs(made).max() < most * 0.999
    # Three units of each truncation, over the least that it is part of.
    unit = 3 * 2.0**-linalg.WIDE_BITS / linalg.MANTISSA_LOW / root
    square, rests = 3 * 2.0**-linalg.SQUARE_BITS * linalg.REST_MOST, 6 * 2.0**-linalg.REST_BITS * v**2
    last = 3 * 2.0**-linalg.SHORT_BITS * (np.abs(numbers[5]) + 1.2 * np.abs(numbers[6])) * v**4
    cuts = 3 * 2.0**-linalg.MANTISSA_BITS + square + rests.max() + last.max()
    assert off + unit + cuts < linalg.MANTISSA_ERROR
