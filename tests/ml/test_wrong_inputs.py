"""Whatever is given to operations, formulas and uploads, they take it, or say in a sentence what is wrong."""

import datetime as dt
import itertools
import math
from decimal import Decimal

import msgpack
import numpy as np
import pandas as pd
import pytest

from tercet.errors import PlanError, SchemaError
from tercet.ml import Design
from tercet.ml.upload import encode_for_upload

ROWS = 12
FRAME = pd.DataFrame(
    {
        "id": np.arange(ROWS),
        "stage": ["I", "II", "III"] * 4,
        "sick": np.arange(ROWS) % 2 == 0,
        "n": np.arange(ROWS),
        "x": np.linspace(-1.0, 1.0, ROWS),
        "born": (np.datetime64("1960-01-01") + np.arange(ROWS)).tolist(),
        "seen": pd.date_range("2020-01-01", periods=ROWS, freq="h"),
    }
)
LONGEST = 1000
"""Characters of an error that people read."""


@pytest.fixture(scope="module")
def table(plain):
    return plain.upload(FRAME, name="t", key="id", owner="o", types={"stage": "category"})


def told(attempt, *given, **options):
    """What an attempt gives, or None where it is refused in a sentence; any other error is the test's."""
    try:
        return attempt(*given, **options)
    except (SchemaError, PlanError) as error:
        sentence = str(error)
    assert 0 < len(sentence) <= LONGEST, sentence[:200]
    return None


# -- operations ----------------------------------------------------------------------------------------------

GIVEN = {
    "a number of 400 digits": 10**400,
    "a number of 5000 digits": 10**5000,
    "70 bits": 2**70,
    "infinity": math.inf,
    "nan": math.nan,
    "a tiny number": 5e-324,
    "a large number": 1.7e308,
    "digits": "5",
    "text": "x",
    "half a character": "\ud800",
    "a label": "I",
    "a day that is none": "2020-02-30",
    "a time that is none": "2020-01-01T25:00:00",
    "bytes": b"5",
    "None": None,
    "NaT": np.datetime64("NaT"),
    "NaT of pandas": pd.NaT,
    "NA": pd.NA,
    "a day": np.datetime64("2020-01-01"),
    "a time of day": dt.time(1),
    "a complex number": 1j,
    "a decimal": Decimal("1.5"),
    "a number of numpy": np.float32(2.5),
    "a truth of numpy": np.bool_(True),
    "an empty list": [],
    "lists in a list": [["I"]],
    "a matrix": np.ones((2, 2)),
    "a vector": np.array([1, 2]),
    "a series": pd.Series([1, 2]),
    "a range": range(3),
    "a set": {"I"},
    "a dictionary": {},
    "an iterator": iter([1]),
    "an object": object(),
    "a function": len,
}
OPERATIONS = {
    "+": lambda a, v: a + v,
    "reflected +": lambda a, v: v + a,
    "-": lambda a, v: a - v,
    "reflected -": lambda a, v: v - a,
    "*": lambda a, v: a * v,
    "/": lambda a, v: a / v,
    "reflected /": lambda a, v: v / a,
    "**": lambda a, v: a**v,
    "<": lambda a, v: a < v,
    ">=": lambda a, v: a >= v,
    "==": lambda a, v: a == v,
    "&": lambda a, v: a & v,
    "isin": lambda a, v: a.isin(v),
    "between": lambda a, v: a.between(v, 1),
    "isin of one": lambda a, v: a.isin([v]),
    "clip": lambda a, v: a.clip(v),
    "clip above": lambda a, v: a.clip(upper=v),
    "where": lambda a, v: a.where(a == a, v),
    "where by": lambda a, v: a.where(v, 1),
    "fillna": lambda a, v: a.fillna(v),
    "round": lambda a, v: a.round(v),
    "recoded": lambda a, v: a.recoded(v),
    "recoded with": lambda a, v: a.recoded(["I", "II", "III", v]),
    "age": lambda a, v: a.age(v),
    "calendar": lambda a, v: a.calendar(v),
    "cut": lambda a, v: a.cut(v),
    "cut at": lambda a, v: a.cut([-math.inf, v, math.inf]),
    "cut to": lambda a, v: a.cut([-math.inf, 0, math.inf], labels=v),
    "cut to one": lambda a, v: a.cut([-math.inf, 0, math.inf], labels=[v, "b"]),
    "cut right": lambda a, v: a.cut([-math.inf, 0, math.inf], right=v),
    "banded": lambda a, v: a.banded(v, ["a", "b"], True),
    "banded to": lambda a, v: a.banded([1], v, True),
    "banded right": lambda a, v: a.banded([1], ["a", "b"], v),
    "one_hot": lambda a, v: a.one_hot(v),
    "one_hot of one": lambda a, v: a.one_hot([v]),
    "one_hot after": lambda a, v: a.one_hot([1, 2], prefix=v),
    "one_hot but": lambda a, v: a.one_hot(reference=v),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations(table, operation):
    """What is made of anything can be sent to nodes."""
    for name, given in itertools.product(("stage", "born", "seen", "n", "x", "sick"), GIVEN.values()):
        made = told(OPERATIONS[operation], table[name], given)
        for one in made.values() if isinstance(made, dict) else [made]:
            if one is not None:
                msgpack.packb(one.to_data())


@pytest.mark.parametrize("name", ["n", "x"])
@pytest.mark.parametrize("number", [1.7e308, -1.7e308, 2**70, 5e-324, 1e300])
def test_far_numbers_are_compared(table, name, number):
    expected = FRAME[name].to_numpy()
    made = table.assign(
        less=table[name] < number,
        same=table[name] == number,
        band=table[name].cut([-math.inf, number, math.inf]),
    ).reveal(["less", "same", "band"])
    np.testing.assert_array_equal(made["less"], expected < float(number))
    np.testing.assert_array_equal(made["same"], expected == float(number))
    assert [label.startswith("(-inf") for label in made["band"]] == (expected <= float(number)).tolist()


# -- formulas ------------------------------------------------------------------------------------------------

FORMULAS = [
    "",
    "~",
    "I('a' - 1)",
    "I('a' * 10 ** 10)",
    "I(1 / 0)",
    "I(x / 0)",
    "I(x / 5e-324)",
    "I(x + 9 ** 9 ** 9)",
    "I(x + (0 - 8) ** 0.5)",
    "I(x + 1e400)",
    f"I(x + {'9' * 400})",
    f"I(x + {'9' * 5000})",
    f"I({'x + ' * 3000}x)",
    f"I({'-' * 3000}x)",
    f"{'(' * 300}x{')' * 300}",
    " + ".join(f"I(x + {number})" for number in range(1200)),
    "I(~5.5)",
    "I(-'a')",
    "I(1 < 'a')",
    "I('a' < x)",
    "I(x & 1)",
    "I(sick & 1.5)",
    "I(x == None)",
    "I(x < n < 5)",
    "I(x, n)",
    "I(x ** 2.5)",
    "I(2 ** x)",
    "I(x + 1j)",
    "I(x := 5)",
    "I(stage == 1)",
    "I(stage == n)",
    "I(born < n)",
    "log()",
    "log(x, 5)",
    "log('a')",
    "round(x, 'a')",
    "round(x, 2, 3)",
    "C()",
    "C('stage')",
    "C(born)",
    "C(*[stage])",
    "C(stage, 5)",
    "C(stage, levels=5)",
    "C(stage, levels=None)",
    "C(stage, levels='III')",
    "C(stage, levels=[['I'], ['II'], ['III']])",
    "C(stage, levels=['I', 'II', 'III', 'I'])",
    "C(stage, levels={[]: 1})",
    "C(n, levels=[])",
    "C(n, levels=[1, 1])",
    "C(n, levels=[1, None])",
    "C(n, levels=['a', 'b'])",
    "C(stage, Treatment([1]))",
    "x ** x",
    "x\x00",
    "x\ud800",
    "{",
    "[x ~ n]",
]


@pytest.mark.parametrize("place", range(len(FORMULAS)))
def test_formulas(table, place):
    for formula in (f"sick ~ {FORMULAS[place]}", f"{FORMULAS[place]} ~ x"):
        told(Design(formula).features, table)
        told(Design(formula).target, table)


# -- uploads -------------------------------------------------------------------------------------------------

DAY, TIME = dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)
COLUMNS = {
    "no days": np.array(["NaT", "NaT"], "M8[D]"),
    "nothing of numpy": np.array([np.datetime64("NaT")] * 2, object),
    "nothing of pandas": [pd.NaT, pd.NaT],
    "some days": [DAY, None],
    "some times": [TIME, pd.NaT],
    "days and times": [DAY, TIME],
    "days far off": np.array([2**62, 2**61], "M8[D]"),
    "years far off": np.array([2**62, 2**61], "M8[Y]"),
    "spans": np.array([1, 2], "m8[D]"),
    "no spans": np.array(["NaT", "NaT"], "m8[s]"),
    "zones": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)] * 2,
    "text": ["a", "b"],
    "some text": ["a", None],
    "half a character": ["\ud800", "b"],
    "bytes": [b"a", b"b"],
    "days as text": ["2020-01-01", "2020-02-30"],
    "400 digits": [10**400, 1],
    "5000 digits": [10**5000, 1],
    "infinities": [math.inf, 1],
    "nothing": [None, None],
    "not numbers": [math.nan, math.nan],
    "numbers": [1, 2],
    "truths": [True, False],
    "truths and numbers": [True, 2],
    "signalling": [Decimal("sNaN"), Decimal(1)],
    "complex": np.array([1j, 2]),
    "objects": [object(), object()],
    "lists": [[1], [2]],
    "categories of days": pd.Series(pd.Categorical([DAY, DAY])),
    "periods": pd.Series(pd.period_range("2020", "2021", freq="Y")),
}
DECLARED = (None, "real", "integer", "boolean", "category", "date", "datetime", "string", "other")


def upload(source, **options):
    return told(encode_for_upload, source, name="t", key="id", owner="o", **options)


@pytest.mark.parametrize("name", COLUMNS)
def test_uploads(name):
    column = COLUMNS[name]
    upload({"id": column, "d": [1, 2]})
    sources = [
        {"id": [1, 2], "d": column},
        [{"id": [1], "d": column[:1]}, {"id": [2], "d": column[1:]}],
        [{"id": [], "d": column[:0]}, {"id": [1, 2], "d": column}],
    ]
    for source, declared in itertools.product(sources, DECLARED):
        types = {} if declared is None else {"d": declared}
        for missing in ("refuse", "indicator"):
            upload(source, types=types, missing=missing)
        for ends in ((0, 10**400), ("2000-01-01", "2030-01-01"), ("a", None)):
            upload(source, types=types, ranges={"d": ends})
    for other in COLUMNS.values():
        upload([{"id": [1, 2], "d": column}, {"id": [3, 4], "d": other}], missing="indicator")


def test_chunks_of_nothing_are_of_their_type():
    """Days that are all missing, and nothing of no type: a column of dates that are missing."""
    chunks = [{"id": [1], "d": COLUMNS["no days"][:1]}, {"id": [2], "d": [None]}]
    for order in (chunks, chunks[::-1]):
        schema = encode_for_upload(order, name="t", key="id", owner="o", missing="indicator").schema
        assert schema.column("d").kind == "date"
