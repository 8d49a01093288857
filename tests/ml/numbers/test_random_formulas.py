"""Formulas that hypothesis makes up: right to the error that they state, or refused with the line."""

from __future__ import annotations

import contextlib
import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings

import tercet
from tercet.errors import PlanError

pytestmark = pytest.mark.filterwarnings("ignore:table .* declared range is:tercet.errors.PrecisionWarning")
_tables = itertools.count()


@pytest.fixture(scope="module", params=["plain", "replicated", "shamir", "rep4"])
def lake(request):
    with tercet.local(protocol=request.param) as opened:
        yield opened


COLUMNS = st.fixed_dictionaries(
    {
        "magnitude": st.sampled_from([1e-6, 1e-3, 1.0, 40.0, 1e5, 1e9]),
        "offset": st.sampled_from([0.0, 0.0, 1.0, 30.0]),
        "kind": st.sampled_from(["real", "ranged", "integer", "boolean"]),
    }
)
UNARY = ("negate", "double", "third", "plus", "square", "abs", "centred", "scaled", "clip", "reverse")
UNARY += ("reciprocal", "root", "inverse_root", "inverse_of_small")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "where", "less_mean")
BINARY += ("over", "over_wide", "over_root", "over_negative")
DEGREES = {"var": 2, "dot": 2, "gram": 2, "matrix_vector": 3}
"""Of endings that are no sums: to bound the rounding of what is compared with."""
ENDINGS = ("sum", "mean", "var", "rows", "dot", "gram", "weighted", "max", "matrix_vector")


def made_column(how, rows, rng):
    """A column, and the range that its owner declares."""
    values = how["magnitude"] * (rng.normal(size=rows) + how["offset"])
    if how["kind"] == "boolean":
        return rng.random(rows) < 0.5, None
    if how["kind"] == "integer":
        return rng.integers(-50, 1000, rows), None
    if how["kind"] == "ranged":
        return values, (float(values.min()) - how["magnitude"], float(values.max()) + how["magnitude"])
    return values, None


@st.composite
def formulas(draw):
    """A number of columns, rows, a seed, and a list of steps on a pool of numbers."""
    count = draw(st.integers(1, 3))
    steps = draw(
        st.lists(st.tuples(st.sampled_from(UNARY + BINARY), st.integers(0, 9), st.integers(0, 9)), max_size=5)
    )
    endings = draw(
        st.lists(
            st.tuples(st.sampled_from(ENDINGS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3
        )
    )
    return (
        [draw(COLUMNS) for _ in range(count)],
        draw(st.sampled_from([1, 2, 3, 17, 200])),
        draw(st.integers(0, 99)),
        steps,
        endings,
    )


class Exact:
    """The functions of `Formulas` on long floating-point arrays."""

    where, maximum, minimum, clip, sqrt = np.where, np.maximum, np.minimum, np.clip, np.sqrt
    max = staticmethod(np.max)
    column_stack = staticmethod(np.column_stack)


def step(np_, name, x, y):
    """One step of a formula, on secret numbers or on NumPy's."""
    match name:
        case "negate":
            return -x
        case "double":
            return x * 2
        case "third":
            return x / 3
        case "plus":
            return 0.25 + x
        case "square":
            return x**2
        case "abs":
            return abs(x)
        case "centred":
            return x - x.mean()
        case "scaled":
            return x * -1.7e-3
        case "clip":
            return np_.clip(x, -2.5, 3)
        case "reverse":
            return x[::-1]
        case "reciprocal":
            return 1 / np_.clip(x, 0.02, 5)
        case "root":
            return np_.sqrt(abs(x))
        case "inverse_root":
            return 3 / np_.sqrt(np_.clip(x, 1e-7, 90))
        case "inverse_of_small":
            return 1 / (1 / np_.clip(x, 1e-2, 1e4))
        case "over":
            return x / np_.clip(y, 0.25, 30)
        case "over_wide":
            return x / np_.clip(abs(y), 1e-2, 40) ** 2
        case "over_root":
            return x / np_.sqrt(np_.clip(y, 1e-5, 2000))
        case "over_negative":
            return x / np_.clip(y, -1e3, -0.5)
        case "add":
            return x + y
        case "subtract":
            return x - y
        case "multiply":
            return x * y
        case "maximum":
            return np_.maximum(x, y)
        case "minimum":
            return np_.minimum(x, y)
        case "where":
            return np_.where(x < y, x, y)  # continuous, so that it may compare either way where both are near
        case "less_mean":
            return x - y.mean()


def ending(np_, name, x, y):
    """What is revealed."""
    match name:
        case "sum":
            return x.sum()
        case "mean":
            return x.mean()
        case "var":
            return x.var()
        case "rows":
            return x
        case "dot":
            return x @ y
        case "gram":
            matrix = np_.column_stack([x, y])
            return matrix.T @ matrix / len(x)
        case "weighted":
            return np.linspace(-1, 1, len(x)) @ x
        case "max":
            return np_.max(x)
        case "matrix_vector":
            matrix = np_.column_stack([x, y])
            return (matrix - matrix.mean(axis=0)) @ (matrix.T @ x)


@contextlib.contextmanager
def refused_with_the_line():
    """A list of the refusal, if there was one."""
    found = []
    try:
        yield found
    except PlanError as error:
        found.append(str(error))
        if "test_random_formulas.py:" not in found[0]:
            raise


def check(lake, formula):
    """Run a formula: what comes out is within its stated error, but for the rounding of 64 bits that it is
    compared with; or it is refused with the line."""
    hows, rows, seed, steps, endings = formula
    rng = np.random.default_rng(seed)
    made = [made_column(how, rows, rng) for how in hows]
    names = [f"x{place}" for place in range(len(made))]
    data = {"id": np.arange(rows), **{name: one for name, (one, _) in zip(names, made, strict=True)}}
    ranges = {name: ends for name, (_, ends) in zip(names, made, strict=True) if ends is not None}
    types = {name: "real" for name, how in zip(names, hows, strict=True) if how["kind"] in ("real", "ranged")}
    table = lake.upload(data, name=f"t{next(_tables)}", key="id", owner="o", ranges=ranges, types=types)
    plan = lake.plan("made up")
    wanted, secret, errors, rounding = {}, plan.columns(table), {}, {}
    exact = [np.asarray(one).astype(np.longdouble) for one, _ in made]
    for name, i, j in steps:
        with refused_with_the_line() as refusal:
            secret.append(step(plan, name, secret[i % len(secret)], secret[j % len(secret)]))
        if refusal:
            continue
        at = i % len(exact), j % len(exact)
        exact.append(step(Exact, name, exact[at[0]], exact[at[1]]))
    for place, (name, i, j) in enumerate(endings):
        with refused_with_the_line() as refusal:
            found = ending(plan, name, secret[i % len(secret)], secret[j % len(secret)])
            found.reveal(str(place))
        if refusal:
            continue
        errors[str(place)] = found.error, found.relative_error
        largest = max(np.abs(one).max() for one in exact)
        rounding[str(place)] = rows * 2.0**-58 * max(largest, largest ** DEGREES.get(name, 1))
        wanted[str(place)] = ending(Exact, name, exact[i % len(exact)], exact[j % len(exact)])
    if not wanted:
        return
    told = plan.read(lake.run(plan.plan()))
    for name, want in wanted.items():
        want = np.asarray(want)
        assert told[name].shape == want.shape
        # Integers beyond 2^53 are read as floating-point numbers.
        slack, off = np.abs(want) * 1e-12 + rounding[name], np.abs(told[name] - want)
        error, relative = errors[name]
        known = np.isfinite(relative)
        of_itself = np.where(known, np.where(known, relative, 0) * np.abs(want), np.inf)
        for most in (error, of_itself):
            assert (off <= most + slack).all(), (name, steps, endings, told[name], want, most)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@example(
    ([{"magnitude": 1e-6, "offset": 0.0, "kind": "integer"}], 3, 0, [("less_mean", 0, 0)], [("sum", 1, 0)])
)
@example(([{"magnitude": 1e-6, "offset": 0.0, "kind": "real"}], 17, 0, [("centred", 0, 0)], [("rows", 1, 0)]))
@given(formulas())
def test_formulas_are_right_to_their_error_or_refused(lake, formula):
    check(lake, formula)


@pytest.mark.thorough
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(formulas(), st.sampled_from([100_000, 1_000_000]))
def test_formulas_over_many_rows(lake, formula, rows):
    hows, _, *rest = formula
    check(lake, (hows, rows, *rest))


@pytest.mark.thorough
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(formulas())
def test_many_formulas(lake, formula):
    check(lake, formula)
