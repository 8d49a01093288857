"""Column arithmetic equals numpy's on the stored numbers, within bounds that follow from public facts."""

import operator
import re

import attrs
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml.bounds import SLACK_BITS, Public, bounds
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS

ROWS = 200


@attrs.frozen(eq=False)
class Known:
    """An expression, what it should be, and how far off it may be."""

    expression: object
    values: np.ndarray
    error: float

    @property
    def last(self):
        """What settling at the public scale may add."""
        return 0.0 if self.expression.public.kind == "boolean" else 2.0 ** (1 - self.expression.public.scale)

    @property
    def largest(self):
        return float(np.abs(self.values).max()) + self.error


def columns():
    generator = np.random.default_rng(4)
    return {
        "id": np.arange(ROWS),
        "age": generator.normal(50, 12, ROWS),
        "bmi": generator.gamma(25, 1, ROWS),
        "tiny": generator.normal(0, 1e-7, ROWS),
        "income": generator.lognormal(10, 1, ROWS),
        "visits": generator.poisson(4, ROWS),
        "population": generator.integers(0, 10**6, ROWS),
        "smoker": generator.random(ROWS) < 0.3,
        "rare": generator.random(ROWS) < 0.02,
    }


class Source:
    """A table and the numbers stored in it."""

    def __init__(self, table, stored):
        self.table, self.stored = table, stored


@pytest.fixture(scope="module")
def source(plain):
    table = plain.upload(columns(), name="people", key="id", owner="clinic")
    return Source(table, {name: values.astype(float) for name, values in table.reveal().items()})


NUMBERS = ["age", "bmi", "visits", "population", "income", "tiny"]
FLAGS = ["smoker", "rare"]
FACTORS = st.sampled_from([2, -1, 0.5, 3, 7, 0.1, -2.54, 1000, 0])


@st.composite
def trees(draw, depth=3):
    """Instructions for `build`: nested tuples."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return ("column", draw(st.sampled_from(NUMBERS + FLAGS)))
    kind = draw(st.sampled_from(["+", "-", "*", "scale", "shift", "clip", "where", "flag", "**"]))
    inner = trees(depth=depth - 1)
    if kind in "+-*":
        return (kind, draw(inner), draw(inner))
    if kind in ("scale", "shift"):
        return (kind, draw(inner), draw(FACTORS))
    if kind == "clip":
        ends = sorted(draw(st.lists(st.integers(-50, 80), min_size=2, max_size=2, unique=True)))
        return (kind, draw(inner), *ends)
    if kind == "where":
        return (kind, draw(inner), draw(st.sampled_from(FLAGS)), draw(inner))
    if kind == "**":
        return (kind, draw(inner), draw(st.integers(2, 3)))
    return (kind, draw(st.sampled_from(NUMBERS)), draw(st.integers(0, 60)))


def build(tree, source):
    """The expression of a tree, its values on stored numbers, and a bound on the error."""
    kind, *rest = tree
    table, stored = source.table, source.stored
    if kind == "column":
        return Known(table[rest[0]], stored[rest[0]], 0.0)
    if kind == "flag":
        return Known(table[rest[0]] > rest[1], (stored[rest[0]] > rest[1]).astype(float), 0.0)
    x = build(rest[0], source)
    if kind in "+-":
        y = build(rest[1], source)
        apply = {"+": operator.add, "-": operator.sub}[kind]
        return Known(
            apply(x.expression, y.expression), apply(x.values, y.values), x.error + y.error + x.last + y.last
        )
    if kind == "*":
        return times(x, build(rest[1], source))
    if kind == "**":
        found = times(x, x)
        found = times(found, x) if rest[1] == 3 else found
        return Known(x.expression ** rest[1], found.values, found.error)
    if kind == "scale":
        factor = rest[1]
        error = abs(factor) * (x.error + x.last + x.largest * 2.0**-23)
        return Known(x.expression * factor, x.values * factor, error)
    if kind == "shift":
        made = x.expression + rest[1]
        return Known(made, x.values + rest[1], x.error + x.last + 2.0 ** (1 - made.public.scale))
    if kind == "clip":
        return Known(x.expression.clip(*rest[1:]), x.values.clip(*rest[1:]), x.error + x.last)
    y = build(rest[2], source)
    values = np.where(stored[rest[1]] > 0, x.values, y.values)
    made = x.expression.where(table[rest[1]], y.expression)
    return Known(made, values, max(x.error, y.error) + x.last + y.last)


def times(x, y):
    error = (
        x.largest * (y.error + y.last)
        + y.largest * (x.error + x.last)
        + (x.error + x.last) * (y.error + y.last)
    )
    made = x.expression * y.expression
    last = 0.0 if made.public.kind == "boolean" else 2.0 ** (1 - made.public.scale)
    return Known(made, x.values * y.values, error + last)


@pytest.mark.parametrize("end", [1e-6, 1])
def test_what_is_far_too_large_to_be_clipped(source, end):
    power = (source.table["population"] ** 2) ** 2
    with pytest.raises(
        SchemaError, match="too different from what it is clipped to; clip what it is made of"
    ):
        power.clip(0, end)
    made = source.table.assign(new=power.clip(0, 1e20)).reveal("new")["new"]
    np.testing.assert_allclose(made, np.clip(source.stored["population"] ** 4, 0, 1e20), atol=2.0**54)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=trees())
def test_arithmetic_equals_numpy(source, tree):
    """Values are right and inside their public bounds, or the plan says that they did not fit."""
    try:
        known = build(tree, source)
        made = source.table.assign(new=known.expression)
    except (PlanError, SchemaError) as error:
        if not re.search("too different|do not fit|does not fit fixed point", str(error)):
            raise
        event(str(error)[-30:])
        return
    event("checked" if known.expression.public.checked else "proved")
    public = known.expression.public
    schema = made.column("new").schema
    assert (schema.kind, schema.scale) == (public.kind, public.scale)
    found = made.reveal("new")["new"].astype(float)
    assert np.abs(found).max() * 2.0**public.scale <= 2**INTEGER_BITS
    if public.kind != "boolean":
        assert found.std() * 2.0**public.scale <= 1.03 * 2.0**SPREAD_BITS or public.kind == "integer"
    assert found.min() >= public.low - known.last
    assert found.max() <= public.high + known.last
    np.testing.assert_allclose(found, known.values, rtol=1e-12, atol=known.error + known.last)


CASES = {
    "interaction": (lambda t: t["age"] * t["bmi"], 1e-3),
    "square": (lambda t: t["age"] ** 2, 1e-3),
    "power 5": (lambda t: t["z"] ** 5, 1e-2),
    "sum": (lambda t: 3 + t["age"] - 2 * t["bmi"] + t["visits"], 1e-4),
    "over a number": (lambda t: t["age"] / 7, 1e-4),
    "over a column": (lambda t: t["bmi"] / t["age"].clip(10, 120), 3e-3),
    "reciprocal": (lambda t: 1 / t["age"].clip(10, 120), 1e-3),
    "minus": (lambda t: -t["age"] - 2.5, 1e-4),
    "integers": (lambda t: 3 * t["visits"] * t["visits"] - 1, 0),
    "less": (lambda t: t["age"] < t["bmi"] * 2, 0),
    "at most": (lambda t: t["visits"] <= 4, 0),
    "at least": (lambda t: t["visits"] >= 4, 0),
    "equal": (lambda t: t["visits"] == 3, 0),
    "unequal": (lambda t: t["visits"] != t["other"], 0),
    "one of": (lambda t: t["visits"].isin([1, 2, 17]), 0),
    "logic": (lambda t: (t["age"] > 50) & ~t["smoker"] | (t["visits"] == 2) ^ t["smoker"], 0),
    "clip": (lambda t: t["age"].clip(40, 60), 1e-4),
    "clip below": (lambda t: t["visits"].clip(lower=2), 0),
    "where": (lambda t: t["age"].where(t["smoker"], 0.5), 1e-3),
    "where both": (lambda t: t["visits"].where(t["age"] > t["bmi"] * 2, t["other"]), 0),
    "numpy's number": (lambda t: np.float64(2) * t["age"], 1e-4),
}


@pytest.fixture(scope="module")
def frame():
    pd = pytest.importorskip("pandas")
    generator = np.random.default_rng(9)
    numbers = {
        "age": generator.normal(50, 12, 300),
        "bmi": generator.normal(25, 5, 300),
        "z": generator.normal(size=300),
        "visits": generator.poisson(4, 300),
        "other": generator.poisson(4, 300),
        "smoker": generator.random(300) < 0.3,
    }
    return pd.DataFrame(numbers).assign(id=np.arange(300))


@pytest.fixture(scope="module")
def people(lake, frame):
    return lake.upload(frame, name="people", key="id", owner="clinic")


def test_operators_are_those_of_pandas(people, frame):
    made = people.assign(
        **{name.replace(" ", "_").replace("'", ""): case(people) for name, (case, _) in CASES.items()}
    )
    found = made.reveal()
    for name, (case, tolerance) in CASES.items():
        wanted = case(frame).astype(float)
        error = np.abs(found[name.replace(" ", "_").replace("'", "")] - wanted).max()
        assert error <= tolerance * wanted.std(), (name, error, wanted.std())


def test_one_hot(people, frame):
    made = people.assign(**people["visits"].one_hot([0, 1, 5])).reveal(["visits_0", "visits_1", "visits_5"])
    for category in (0, 1, 5):
        np.testing.assert_array_equal(made[f"visits_{category}"], frame.visits == category)


def test_declared_bounds_need_no_check(people, lake):
    lake.disclosed.clear()
    people.assign(x=people["age"].clip(0, 120) * people["bmi"].clip(5, 80), y=people["age"] > 3)
    assert lake.disclosed == []
    people.assign(x=people["age"] * people["bmi"])
    (told,) = lake.disclosed
    assert str(told) == "whether a value of 'x' left its range (1, check) to analyst"


@pytest.mark.parametrize("power", [2, 3])
def test_what_does_not_fit_is_told(lake, power):
    """A column of zeros with one large value: its powers are out of all proportion to its spread."""
    values = np.zeros(6000)
    values[7] = 1e3
    table = lake.upload({"id": np.arange(6000), "x": values}, name="t", key="id", owner="o")
    with pytest.raises(SchemaError, match=rf"new = x \*\* {power}: a value is far larger"):
        table.assign(new=table["x"] ** power)
    fine = table.assign(new=table["x"].clip(0, 1) ** power).reveal("new")["new"]
    np.testing.assert_allclose(fine, values.clip(0, 1), atol=1e-4)


def test_a_spread_that_does_not_fit_is_told(plain):
    """Half the rows far from the others: no value is too large, but their spread is."""
    table = plain.upload(
        {"id": np.arange(100), "x": np.arange(100) % 2 * 1.0 + 300}, name="t", key="id", owner="o"
    )
    square = table["x"] * table["x"]
    for new in (square, square + 1, square * 3, square - table["x"], square.clip(0, 1e6)):
        with pytest.raises(SchemaError, match="far larger"):
            table.assign(new=new)
    assert table.assign(new=square > 300.0**2 + 1).reveal("new")["new"].sum() == 50
    exact = table.assign(new=table["x"].clip(0, 400) ** 2).reveal("new")["new"]
    np.testing.assert_allclose(exact, (np.arange(100) % 2 + 300.0) ** 2, rtol=1e-4)


@given(
    kind=st.sampled_from(["real", "integer"]),
    ends=st.tuples(st.floats(-1e9, 1e9), st.floats(0, 1e9)),
    spread=st.floats(0, 1e9),
    unit=st.floats(-20, 30),
    size=st.floats(-20, 30),
)
def test_bounds_fit(kind, ends, spread, unit, size):
    low, high = ends[0], ends[0] + ends[1]
    public = bounds(kind, low, high, spread, unit=unit, size=size)
    assert public.reach * 2.0**public.scale <= 2**INTEGER_BITS
    if public.kind == "real":
        assert public.spread * 2.0**public.scale <= 2**SPREAD_BITS
    if not public.checked:
        assert public.low <= low <= high <= public.high
    elif public.kind == "real":
        assert public.scale > min(SPREAD_BITS - unit, INTEGER_BITS - public.size) - SLACK_BITS - 1


def test_scales_do_not_depend_on_values(plain):
    def scales(factor):
        values = np.linspace(-1, 1, 64) * factor
        table = plain.upload(
            {"id": np.arange(64), "x": values}, name="t", key="id", owner="o", scales={"x": 12}
        )
        made = table.assign(a=table["x"] ** 2, b=table["x"] * 3 + 1, c=table["x"].clip(-1, 2) * table["x"])
        return [column.schema for column in made.columns]

    assert scales(1) == scales(5)


def test_what_cannot_be_right_is_refused(people, lake, frame):
    other = lake.upload(frame[["id", "age"]], name="other", key="id", owner="o")
    joined = people.join(other[[]], on="id")
    refused = {
        "lies between .* so it may be zero and cannot divide": lambda: people["age"] / people["bmi"],
        "too far apart": lambda: 1 / people["age"].clip(1e-3, 1e5),
        "divides by zero": lambda: people["age"] / 0,
        "is secret, row by row": lambda: people["age"] > 5 and people["bmi"] > 5,
        "3 is int, not a condition": lambda: people["smoker"] & 3,
        "age is real, not a condition": lambda: people["smoker"] & people["age"],
        "~age: age is real, not a condition": lambda: ~people["age"],
        "neither a number nor a column": lambda: people["age"] + "bmi",
        "is not finite": lambda: people["age"] * np.inf,
        "whose rows are not the same": lambda: people["age"] + other["age"],
        "whose rows are not those of": lambda: people.assign(x=joined["age"]),
        "a power is a whole number": lambda: people["age"] ** 0.5,
        "nothing lies between": lambda: people["age"].clip(3, 2),
        "bmi is real, not a condition": lambda: people["age"].where(people["bmi"], 0),
        "name at least one number": lambda: people["age"].isin([]),
        "has no column 'agee'": lambda: people["agee"],
        "not an expression": lambda: people.assign(x=3),
        "name at least one new column": people.assign,
        "is its key": lambda: people.assign(id=people["age"]),
    }
    for message, attempt in refused.items():
        with pytest.raises((PlanError, SchemaError), match=message):
            attempt()


def test_how_expressions_read(people):
    a, b = people["age"], people["bmi"]
    texts = {
        "(age + bmi) * 2": (a + b) * 2,
        "age.clip(0, 9) * bmi": a.clip(0, 9) * b,
        "1 / (age - 3).clip(1, 2)": 1 / (a - 3).clip(1, 2),
        "~(age > 3) & smoker": ~(a > 3) & people["smoker"],
        "age >= 3": a >= 3,
        "-(age ** 2)": -(a**2),
    }
    for text, expression in texts.items():
        assert str(expression) == text
    assert isinstance(a.public, Public)


def test_in_an_asynchronous_lake():
    import trio

    async def main():
        async with tercet.open_local(protocol="plain") as lake:
            table = await lake.upload({"id": [1, 2], "x": [1.0, 4.0]}, name="t", key="id", owner="o")
            made = await table.assign(y=table["x"] + 1)
            return await made.reveal("y")

    np.testing.assert_allclose(trio.run(main)["y"], [2, 5], atol=1e-3)


def test_a_condition_is_compared_with_public_numbers_for_no_round():
    flags = np.array([True, False, True])
    with tercet.local(protocol="plain") as lake:
        table = lake.upload({"id": [0, 1, 2], "f": flags}, name="t", key="id", owner="o")
        plans = []
        lake.on_result = lambda plan, _: plans.append(plan)
        for numbers in ([1], [0], [0, 1], [2], [0.5, 1]):
            made = table.assign(is_one=table["f"].isin(numbers))
            plans.clear()
            assert made.describe(["is_one"], statistics=["mean"]).values["is_one"]["mean"] == pytest.approx(
                np.isin(flags, numbers).mean()
            )
            assert not any(node.kind in ("is_zero", "is_negative") for plan in plans for node in plan.nodes)
