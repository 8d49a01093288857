"""Formulas on every protocol, beside NumPy; what cannot be computed is refused with the line and the mend."""

from __future__ import annotations

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.plans import Builder

PROTOCOLS = ("plain", "replicated", "shamir", "rep4", "additive")
ROWS = 120
RNG = np.random.default_rng(3)
A, B = RNG.normal(58, 12, ROWS), RNG.normal(2e6, 3e5, ROWS)
C = 2e-4 * (A - 50) / 12 + RNG.normal(0, 1e-4, ROWS)
D = RNG.random(ROWS) < 0.4
E = RNG.uniform(4, 20, ROWS)
Y = 3e-5 * B + 4e4 * C + 2 * D - 0.5 * E + RNG.normal(size=ROWS)
DATA = {"id": np.arange(ROWS), "a": A, "b": B, "c": C, "d": D, "e": E, "y": Y}


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


FORMULAS = {
    "covariance": lambda p, a, b, c, d, e: (a - a.mean()) @ (c - c.mean()) / len(a),
    "product of raw columns": lambda p, a, b, c, d, e: a @ b,
    "mean of a product": lambda p, a, b, c, d, e: (b * c).mean(),
    "variance": lambda p, a, b, c, d, e: b.var(),
    "subset": lambda p, a, b, c, d, e: (b * d).sum() / (d.sum() + 0.5),
    "count": lambda p, a, b, c, d, e: ((a > 60) & ~(b < 2e6) | (d == 1)).sum(),
    "gram": lambda p, a, b, c, d, e: p.column_stack([a, b, c, d]).T @ p.column_stack([a, b, c, d]),
    "linear": lambda p, a, b, c, d, e: p.column_stack([a, b, c]) @ np.array([0.5, -1e-6, 2e3]),
    "powers": lambda p, a, b, c, d, e: (e**3).sum() - 2 * (e**5).mean(),
    "slices": lambda p, a, b, c, d, e: a[3:9][::-1] + b[[1, 5, 2, 5, 0, 7]],
    "weights": lambda p, a, b, c, d, e: np.linspace(0, 1, ROWS) @ a,
    "norms": lambda p, a, b, c, d, e: (p.column_stack([a, e]) ** 2).sum(axis=1),
    "root": lambda p, a, b, c, d, e: p.sqrt(e),
    "deviation": lambda p, a, b, c, d, e: p.sqrt(a.var()),
    "logarithm": lambda p, a, b, c, d, e: p.log(e),
    "exponential": lambda p, a, b, c, d, e: p.exp(-e),
    "reciprocal": lambda p, a, b, c, d, e: 1 / e,
    "quotient": lambda p, a, b, c, d, e: a / e,
    "where": lambda p, a, b, c, d, e: p.where(a > 58, b, -b),
    "clip": lambda p, a, b, c, d, e: p.clip(a, 50, 60),
    "larger": lambda p, a, b, c, d, e: p.maximum(a, 3 * e),
    "largest": lambda p, a, b, c, d, e: p.max(b) - p.min(a),
    "place": lambda p, a, b, c, d, e: p.argmax(b),
    "order": lambda p, a, b, c, d, e: p.sort(b),
    "concatenated": lambda p, a, b, c, d, e: p.concatenate([a[:4], e]),
    "absolute": lambda p, a, b, c, d, e: abs(a - 58),
}


class NumPy:
    """NumPy's functions under the names that plans have for them."""

    exp, log, sqrt, where, clip, maximum = np.exp, np.log, np.sqrt, np.where, np.clip, np.maximum
    max, min, argmax, sort = np.max, np.min, np.argmax, np.sort
    column_stack, concatenate = np.column_stack, np.concatenate


@pytest.mark.cases("shamir")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_formulas_are_those_of_numpy(protocol):
    """All in one plan: to the stated error, and to 1e-4 of the largest element."""
    with tercet.local(protocol=protocol) as lake, lake.plan("formulas") as plan:
        columns = plan.columns(table_in(lake), *"abcde")
        numbers = {name: formula(plan, *columns) for name, formula in FORMULAS.items()}
        for name, number in numbers.items():
            number.reveal(name)
    exact = [np.asarray(one, dtype=np.float64) for one in (A, B, C, D, E)]
    exact[3] = D.astype(int)
    for name, formula in FORMULAS.items():
        want = np.sum((A > 60) & ~(B < 2e6) | D) if name == "count" else formula(NumPy, *exact)
        off = np.abs(plan.revealed[name] - want)
        assert plan.revealed[name].shape == np.shape(want), name
        assert (off <= numbers[name].error + np.abs(want) * 1e-12).all(), name
        assert (off <= 1e-4 * np.max(np.abs(want))).all(), name


def test_larger_and_smaller_numbers_keep_the_bounds_of_either(plain, table):
    """So that what is not known to be above zero has a root and a reciprocal, which are those of NumPy."""
    with plain.plan("bounds") as plan:
        a, e = plan.column(table, "a") - 58, plan.column(table, "e")
        assert a.bounds[0] < -1e3
        above, below = plan.maximum(a, 0.5), plan.minimum(np.linspace(1, 6, ROWS), e)
        assert above.bounds[0] == 0.5
        assert plan.maximum(e, a).bounds[0] == e.bounds[0] > 3.9
        assert below.bounds[1] == 6.0
        made = {
            "reciprocal": (1 / plan.minimum(above, 8), 1 / np.clip(A - 58, 0.5, 8)),
            "root": (plan.sqrt(plan.minimum(plan.maximum(0, a), 9)), np.sqrt(np.clip(A - 58, 0, 9))),
            "below": (below, np.minimum(np.linspace(1, 6, ROWS), E)),
        }
        for name, (number, _) in made.items():
            number.reveal(name)
    for name, (number, want) in made.items():
        off = np.abs(plan.revealed[name] - want)
        assert (off <= number.error + np.abs(want) * 1e-12).all(), name
        assert off.max() < 0.02, name


@pytest.mark.parametrize("axis", [None, 0, 1, -1, -2, np.int64(-1)])
@pytest.mark.parametrize("turned", [False, True])
def test_sums_go_along_any_axis_as_those_of_numpy(plain, table, axis, turned):
    with plain.plan("axes") as plan:
        M = plan.matrix(table, ["a", "d", "e"])[:4]
        M = M.T if turned else M
        for name in ("sum", "mean", "var"):
            getattr(M, name)(axis=axis).reveal(name)
    exact = np.column_stack([A, D, E])[:4]
    exact = exact.T if turned else exact
    for name in ("sum", "mean", "var"):
        np.testing.assert_allclose(plan.revealed[name], getattr(exact, name)(axis=axis), rtol=1e-4)


@pytest.mark.cases("rep4")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_equations_of_columns_in_any_units(protocol):
    """Ridge regression by normal equations, and a matrix without an inverse, which is NaN."""
    with tercet.local(protocol=protocol) as lake, lake.plan("ridge") as plan:
        table = table_in(lake)
        X, y = plan.matrix(table, ["b", "c", "d", "e"]), plan.column(table, "y")
        X, y = X - X.mean(axis=0), y - y.mean()
        plan.solve(X.T @ X + 0.1 * np.eye(4), X.T @ y).reveal("ridge")
        w = plan.solve(X.T @ X, X.T @ y)
        w.reveal("least squares")
        ((y - X @ w) ** 2).mean().reveal("mean square")
        twice = plan.column_stack([X[:, 0], X[:, 1], 2 * X[:, 0]])
        plan.solve(twice.T @ twice, twice.T @ y).reveal("singular")
    M, v = np.column_stack([B, C, D, E]), Y - Y.mean()
    M = M - M.mean(axis=0)
    ridge = np.linalg.solve(M.T @ M + 0.1 * np.eye(4), M.T @ v)
    np.testing.assert_allclose(plan.revealed["ridge"], ridge, rtol=1e-4)
    exact = np.linalg.lstsq(M, v, rcond=None)[0]
    np.testing.assert_allclose(plan.revealed["least squares"], exact, rtol=1e-4)
    assert plan.revealed["mean square"] == pytest.approx(np.mean((v - M @ exact) ** 2), rel=5e-3)
    assert np.isnan(plan.revealed["singular"]).all()


@pytest.mark.parametrize("condition", [3.0, 3e3])
def test_equations_say_when_they_are_nearly_singular(plain, condition):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(300, 5))
    X[:, 4] = X[:, 0] + rng.normal(size=300) / 5
    names = [f"x{place}" for place in range(5)]
    data = {"id": np.arange(300), **dict(zip(names, X.T, strict=True)), "y": X @ np.arange(5.0)}
    table = plain.upload(data, name=f"near {condition:g}", key="id", owner="o")
    with plain.plan("equations") as plan:
        M = plan.matrix(table, names)
        M = M - M.mean(axis=0)
        plan.solve(M.T @ M, M.T @ plan.column(table, "y"), condition=condition).reveal("w")
    if condition > 100:
        np.testing.assert_allclose(plan.revealed["w"], np.arange(5.0), atol=1e-3)
    else:
        assert np.isnan(plan.revealed["w"]).all()


def nearly_singular(d, least, alike):
    """A square root of a matrix with a diagonal of ones, with some eigenvalues that are the least."""
    matrix = np.full((d, d), 1 - least) if alike else np.eye(d)
    matrix[0, -1] = matrix[-1, 0] = 1 - least
    np.fill_diagonal(matrix, 1.0)
    return np.linalg.cholesky(matrix).T


@pytest.mark.parametrize("condition", [2.0**4, 2.0**12, 2.0**16])
@pytest.mark.parametrize("d", [2, 10, 32])
@pytest.mark.parametrize("alike", [False, True])
def test_equations_are_solved_up_to_the_condition_that_is_said(plain, condition, d, alike):
    """And are not numbers beyond it, however many unknowns they have."""
    for times, solved in ((1.2, True), (0.2, False)):
        if (least := times * d / condition) > 0.9:
            continue
        X = nearly_singular(d, least, alike)
        names = [f"x{place}" for place in range(d)]
        data = {"id": np.arange(d), **dict(zip(names, X.T, strict=True))}
        options = {"ranges": dict.fromkeys(names, (-1, 1)), "types": dict.fromkeys(names, "real")}
        name = f"{d} {condition} {alike} {times}"
        table = plain.upload(data, name=name, key="id", owner="o", **options)
        with plain.plan("equations") as plan:
            M = plan.matrix(table, names)
            products = M.T @ M
            plan.solve(products, products.sum(axis=1), condition=condition).reveal("ones")
        if solved:
            np.testing.assert_allclose(plan.revealed["ones"], np.ones(d), atol=1e-2)
        else:
            assert np.isnan(plan.revealed["ones"]).all()


@pytest.mark.cases("shamir")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reciprocals_of_what_is_at_its_bound(protocol):
    """Which a cut may make smaller than the bound says, here a power of two and hardly more than one."""
    x = np.repeat([1, 2, 900], [2000, 20, 20])
    with tercet.local(protocol=protocol) as lake, lake.plan("reciprocals") as plan:
        table = lake.upload({"id": np.arange(len(x)), "x": x}, name="t", key="id", owner="o",
                            ranges={"x": (1, 900)})  # fmt: skip
        for factor in (1.0, 1 + 2.0**-45, -1.0):
            found = 1 / (plan.column(table, "x") * factor)
            found.reveal(f"{factor}")
            assert (found.error <= 4e-7).all()
    for factor in (1.0, 1 + 2.0**-45, -1.0):
        np.testing.assert_allclose(plan.revealed[f"{factor}"], 1 / (x * factor), atol=4e-7)


def test_the_order_of_long_keys_is_right_to_the_stated_error(plain):
    """Keys have fewer bits, the more rows there are, by which those that are nearly alike change places."""
    rows = 2000
    data = {"id": np.arange(rows), "large": np.full(rows, 2**19), "small": np.arange(rows)[::-1] % 997}
    table = plain.upload(
        data, name="long keys", key="id", owner="o", ranges={"large": (0, 2**19), "small": (0, 997)}
    )
    with plain.plan("order") as plan:
        large, small = plan.columns(table, "large", "small")
        key = large * large * large + small
        made = plan.sort(key)
        (made - float(2**57)).reveal("order")
    off = np.abs(plan.revealed["order"] - np.sort(data["small"]))
    assert key.error.max() < off.max() <= made.error.max() <= 2.0**12


# -- bounds --------------------------------------------------------------------------------------------------


def test_a_bound_that_does_not_hold_is_not_a_number(plain, table):
    with plain.plan("bounds") as plan:
        a = plan.column(table, "a")
        (a.within(0, 120) ** 3).sum().reveal("holds")
        (a.within(0, 70) ** 3).sum().reveal("does not")
        (a.within(0, 70, check=False) - a).sum().reveal("promised")
        told = [str(one) for one in plan.plan().disclosures()]
    assert plan.revealed["holds"] == pytest.approx((A**3).sum(), rel=1e-4)
    assert np.isnan(plan.revealed["does not"])
    assert plan.revealed["promised"] == 0
    assert "whether the bounds hold that does not rests on (1, check) to analyst" in told
    assert len(told) == 5


def test_a_bound_that_is_proved_costs_nothing(plan, table):
    e = plan.column(table, "e")
    assert e.within(3, 30) is e
    assert e.bounds == pytest.approx((4, 20), abs=1e-3)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda p, t: p.column(t, "b") ** 4, r"64 bits would leave \d+ bits .* as in x.within\("),
        (
            lambda p, t: p.log(p.column(t, "a")),
            r"logarithm of numbers .* zero or less; say a bound",
        ),
        (lambda p, t: 1 / p.column(t, "c"), r"reciprocal of numbers .* x.within\("),
        (lambda p, t: p.sqrt(p.column(t, "c")), r"root of numbers .* may be negative"),
        (lambda p, t: p.exp(p.column(t, "b")), r"exponential of numbers .* say a bound below 300"),
        (lambda p, t: p.column(t, "a") + np.ones(3), r"shapes \(120,\) and \(3,\) do not fit"),
        (lambda p, t: p.column(t, "a") @ p.matrix(t, ["b", "c"]).T, r"do not fit a matrix product"),
        (lambda p, t: p.column(t, "a")[ROWS], r"120 is no place along an axis of length 120"),
        (lambda p, t: p.column(t, "a") & p.column(t, "d"), "& combines conditions"),
        (lambda p, t: p.column(t, "a") / 0, "division by zero"),
        (lambda p, t: p.column(t, "a") * np.nan, "public numbers are finite"),
        (lambda p, t: p.column(t, "a") * "2", "a str is no number|public numbers"),
        (lambda p, t: 1 if p.column(t, "a") > 3 else 0, "neither true nor false"),
        (lambda p, t: float(p.column(t, "a")), "no value to look at"),
        (lambda p, t: p.column(t, "a").sum(axis=1), "has no axis 1"),
        (lambda p, t: p.column(t, "a") ** 0.5, "whole number from 1 to 64"),
        (lambda p, t: p.column(t, "a").within(3, 2), "the first no larger"),
        (lambda p, t: p.solve(p.matrix(t), p.column(t, "a")), "a square matrix"),
        (lambda p, t: p.column(t, "a").reveal("x", kind="secret"), "no class of disclosures"),
        (lambda p, t: p.column(t, "a").sum().reveal(""), "a name and a receiver"),
    ],
)
def test_what_cannot_be_is_refused_with_the_line(plan, table, write, says):
    with pytest.raises(PlanError, match=says) as caught:
        write(plan, table).sum().reveal("it")
    assert str(caught.value).startswith("test_formulas.py:")


def test_rows_are_for_owners_to_allow(plain, plan):
    strict = table_in(plain, name="strict", min_count=5)
    a = plan.column(strict, "a")
    a.mean().reveal("mean")
    with pytest.raises(SchemaError, match="at least 5 rows, not rows"):
        a.reveal("rows")
    with pytest.raises(SchemaError, match="at least 5 rows, not rows"):
        (a[3] * 2).reveal("a row")
    with pytest.raises(SchemaError, match="at least 5 rows, not rows, and this one on 4"):
        (a[3:7].mean() + a.sum()).reveal("few rows")
    filtered = strict.filter(strict["a"] > 60)
    with pytest.raises(SchemaError, match="is filtered"):
        plan.columns(filtered, "a")
    assert [one.kind for one in plan.plan().disclosures()] == ["figure"]


def test_only_a_mean_of_its_own_row_makes_a_number_centred(plain):
    """Of a square matrix, row means may be taken off columns; then nothing is known of what is left."""
    data = {"id": np.arange(3), "a": [1e6, 1e6, 1e6], "b": [0.0, 1, 2], "c": [1.0, 1, 5]}
    table = plain.upload(data, name="square", key="id", owner="o", types=dict.fromkeys("abc", "real"))

    def formulas(X):
        G = X.T @ X / 1e6
        return G - G.mean(axis=1), G - G.mean(axis=0), X.T - X.mean(axis=0)

    with plain.plan("square") as plan:
        secret = formulas(plan.matrix(table))
        for place, made in enumerate(secret):
            made.reveal(str(place))
            made.sum().reveal(f"sum of {place}")
    exact = formulas(np.column_stack([data["a"], data["b"], data["c"]]))
    for place, (made, want) in enumerate(zip(secret, exact, strict=True)):
        assert (np.abs(plan.revealed[str(place)] - want) <= made.error).all()
        assert abs(plan.revealed[f"sum of {place}"] - want.sum()) <= made.sum().error


@pytest.mark.parametrize("factor", [1e100, 1e-100, 1e200])
def test_numbers_beyond_floating_point_are_refused(plan, table, factor):
    with pytest.raises(PlanError, match=r"ends of floating point|between 1e-150"):
        (plan.column(table, "a") * factor) * factor


def test_what_is_too_large_to_be_turned_is_refused_with_the_limit(plan, table):
    plan.builder.tile_rows = 4
    M = plan.matrix(table, ["a", "b", "c"])[:3]
    with pytest.raises(PlanError, match="only up to 4 elements can be turned"):
        (M + M.T).sum().reveal("turned")


def test_numbers_of_two_plans_do_not_meet(plain, plan, table):
    with pytest.raises(PlanError, match="of two plans"):
        plan.column(table, "a") + plain.plan("another").column(table, "a")


def test_the_same_formula_is_the_same_plan(plain, table):
    """On every machine that reads the same schemas: nodes compare digests."""

    def written():
        plan = plain.plan("twice")
        X = plan.matrix(table, ["a", "b", "d"])
        (X.T @ X).reveal("gram")
        return plan.plan().digest()

    assert written() == written()


def test_what_is_for_others_reads_at_its_scale(plain, table):
    """A receiver who has no more than the types of what was revealed."""
    with plain.plan("for others") as plan:
        (plan.column(table, "a").mean() * 0.7).reveal("mean", to="insurer")
    (node,) = [one for one in plan.plan().nodes if one.kind == "reveal"]
    assert plan.revealed == {} or plan.revealed["mean"] == pytest.approx(A.mean() * 0.7)
    assert node.types[0].scale > 10


def test_an_intersection_of_tables(plain, table):
    other = plain.upload({"id": np.arange(100, 300), "x": np.ones(200)}, name="other", key="id", owner="p")
    with plain.plan("both") as plan:
        count = plan.intersection(table, other)
        count.reveal("both", kind="count")
        (count / len(plan.column(table, "a"))).reveal("share")
    assert plan.revealed["both"] == 20
    assert plan.revealed["share"] == pytest.approx(20 / ROWS)


def test_no_plan_without_a_lake_outgrows_a_builder(plain, table):
    plan = type(plain.plan("x"))(Builder("alone"))
    plan.column(table, "a").sum().reveal("sum")
    assert len(plan.plan().nodes) > 2


async def test_a_plan_in_a_trio_program():
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(DATA, name="t", key="id", owner="o")
        async with lake.plan("mean") as plan:
            plan.column(table, "a").mean().reveal("mean")
    assert plan.revealed["mean"] == pytest.approx(A.mean(), rel=1e-5)


def test_the_sigmoid_of_what_is_known_to_nobody_knows_what():
    """It is computed of what is put inside a series, and said to be off by as much as it can be."""
    with tercet.local(protocol="plain") as lake:
        a = np.array([-3.0, 2.5, 1.0])
        table = lake.upload({"id": [0, 1, 2], "a": a}, name="t", key="id", owner="o")
        with lake.plan("far") as plan:
            x = plan.column(table, "a") * 1e9
            made = plan.sigmoid(x)
            made.reveal("sigmoid", kind="rows")
        assert (x.error > 1000).all()
        assert (made.error >= 1).all()
    assert (np.abs(plan.revealed["sigmoid"] - [0, 1, 1]) <= made.error).all()
