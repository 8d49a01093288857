"""The scale of a column, and schemas that come from elsewhere."""

from fractions import Fraction

import attrs
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import SchemaError
from tercet.ml.schema import (
    INTEGER_BITS,
    SCALES,
    SPREAD_BITS,
    ColumnSchema,
    Spot,
    TableSchema,
    automatic_scale,
    check_column_name,
    check_name,
    fixed_point,
    largest_scale,
)

floats = st.floats(allow_nan=False, allow_infinity=False)
columns = st.lists(floats, min_size=1, max_size=20).map(np.array)
names = st.text("abcäß_-.0", min_size=1, max_size=8)

features = st.builds(
    ColumnSchema,
    name=names,
    kind=st.sampled_from(["real", "integer"]),
    scale=st.integers(*SCALES),
)
keys = st.builds(
    ColumnSchema, name=names, kind=st.just("key"), key_type=st.sampled_from(["integer", "string"])
)


@st.composite
def schemas(draw):
    parts = draw(st.lists(keys, max_size=2)) + draw(st.lists(features, max_size=3))
    unique = {column.name: column for column in reversed(parts)}
    ordered = [column for column in parts if unique[column.name] is column]
    return TableSchema(name=draw(names), owner=draw(names), columns=ordered, rows=draw(st.integers(0, 10**9)))


def bounds_hold(values, scale, slack):
    """The two bounds of the automatic scale, in exact arithmetic: in squares, to do without roots."""
    exact = [Fraction(float(v)) * slack for v in values]
    mean = sum(exact) / len(exact)
    variance = sum((v - mean) ** 2 for v in exact) / len(exact)
    top = max(abs(v) for v in exact)
    spread = variance or top**2
    unit = Fraction(2) ** scale
    return spread * unit**2 <= Fraction(4) ** SPREAD_BITS and top * unit <= 2**INTEGER_BITS


@given(columns.filter(np.any))
def test_the_automatic_scale_is_the_largest_within_the_bounds(values):
    scale = automatic_scale(values)
    slack = Fraction(1, 10**9)  # the standard deviation is computed in floating point
    assert bounds_hold(values, scale, 1 - slack)
    assert not bounds_hold(values, scale + 1, 1 + slack)
    assert SCALES[0] <= scale <= SCALES[1]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.0, 0.0], 16),
        ([], 16),
        ([1.0, -1.0], 16),
        ([1.001, -1.001], 15),
        ([3.0], 14),
        ([4.0, 4.0], 14),
        ([0.1] * 7, 19),
        ([1.7e308, -1.7e308], -1008),
        ([5e-324], 1090),
        ([2.0**20, 2.0**20 - 1], 10),
    ],
)
def test_automatic_scales(values, scale):
    assert automatic_scale(np.array(values)) == scale


def test_scale_of_integers_and_booleans():
    assert automatic_scale(np.array([0, 1000]), kind="integer") == 7
    assert automatic_scale(np.array([2**30, -(2**30)]), kind="integer") == 0
    assert automatic_scale(np.array([0, 0, 0, 1]), kind="integer") == 16
    assert automatic_scale(np.array([], dtype=np.int64), kind="integer") == 16
    assert automatic_scale(np.array([True, False]), kind="boolean") == 0


@given(columns)
def test_the_automatic_scale_fits_and_rounds_to_half_a_unit(values):
    scale = automatic_scale(values)
    stored = fixed_point(values, scale, Spot("t", "c"))
    assert stored.dtype == np.int64
    assert np.abs(stored).max() <= 2**INTEGER_BITS
    for value, integer in zip(values, stored, strict=True):
        assert abs(Fraction(float(value)) * Fraction(2) ** scale - int(integer)) <= Fraction(1, 2)


@given(st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=20))
def test_integers_are_stored_exactly(values):
    array = np.array(values)
    scale = automatic_scale(array, kind="integer")
    assert 0 <= scale <= 16
    assert fixed_point(array, scale, Spot("t", "c")).tolist() == [value << scale for value in values]


@given(columns.filter(np.any))
def test_the_largest_scale_is_the_last_in_range(values):
    scale = largest_scale(values)
    fixed_point(values, scale, Spot("t", "c"))
    if np.abs(values).max() * (1 - 1e-9) > 2.0 ** (INTEGER_BITS - scale - 1):
        with pytest.raises(
            SchemaError, match=rf'"t", column "c", row \d+ .*lower the scale to {scale} or less'
        ):
            fixed_point(values, scale + 1, Spot("t", "c"))


@given(schemas())
def test_a_schema_survives_msgpack(schema):
    packed = msgpack.packb(schema.to_dict())
    assert TableSchema.from_dict(msgpack.unpackb(packed)) == schema


def test_ranges_rules_and_missing_values_survive_msgpack():
    marker = ColumnSchema("marker", "real", 3, range=(0.5, 7), missing="marker_missing")
    schema = TableSchema("t", "o", (KEY, marker, ColumnSchema("marker_missing", "boolean")), 5, min_count=10)
    assert TableSchema.from_dict(msgpack.unpackb(msgpack.packb(schema.to_dict()))) == schema


KEY = ColumnSchema("policy", "key", key_type="integer")
AGE = ColumnSchema("age", "real", 12)
SICK = ColumnSchema("sick", "boolean")
TABLE = TableSchema(name="claims", owner="insurer", columns=(KEY, AGE, SICK), rows=5)


def test_what_a_schema_tells():
    assert TABLE.key_names == ("policy",)
    assert TABLE.features == (AGE, SICK)
    assert TABLE.column("age") is AGE
    assert hash(TABLE) == hash(attrs.evolve(TABLE))


def test_an_unknown_column_suggests_the_nearest():
    expected = r'"claims" has no column \'agee\'. Did you mean "age"\? The columns are: policy, age, sick.'
    with pytest.raises(SchemaError, match=expected):
        TABLE.column("agee")
    with pytest.raises(SchemaError, match=r"no column 'zzzz'. The columns are"):
        TABLE.column("zzzz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"owner": ""}, 'owner of table "claims" is empty'),
        ({"owner": None}, "None, which is not text"),
        ({"rows": -1}, r'"claims" has -1 rows'),
        ({"rows": True}, "True rows"),
        ({"rows": 2.0}, r"2.0 rows"),
        ({"columns": (AGE, KEY)}, 'key column "policy" must stand before the features'),
        ({"columns": (KEY, AGE, ColumnSchema("k2", "key", key_type="string"))}, '"k2" must stand before'),
        ({"columns": (KEY, AGE, AGE)}, 'two columns named "age"'),
        ({"columns": ("age",)}, "'age' is no ColumnSchema"),
    ],
)
def test_table_schemas_that_are_refused(change, message):
    with pytest.raises(SchemaError, match=message):
        attrs.evolve(TABLE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "text"}, "Column \"age\" has kind 'text'; the kinds are key, real, integer, boolean"),
        ({"scale": 1.0}, "has scale 1.0"),
        ({"scale": True}, "has scale True"),
        ({"scale": 5000}, "from -1100 to 1104"),
        ({"kind": "boolean"}, "kind boolean and scale 12; its scale must be 0"),
        ({"kind": "key", "scale": 0}, "key type None; it must be 'integer' or 'string'"),
        ({"key_type": "integer"}, "key type 'integer'; it must be None"),
    ],
)
def test_column_schemas_that_are_refused(change, message):
    with pytest.raises(SchemaError, match=message):
        attrs.evolve(AGE, **change)


@pytest.mark.parametrize("name", ["age", "mean radius", "größe", "x_1", "a-b", "a.b", "7", "年齢"])
def test_good_names(name):
    assert check_name(name, "It") == name


@pytest.mark.parametrize(
    "name", ["", " age", "age ", "a\tb", "a/b", "a\nb", "a,b", 'a"b', "e\u0301", "a°", 7, None]
)
def test_bad_names(name):
    with pytest.raises(SchemaError, match="It is"):
        check_name(name, "It")


COLUMN_NAMES = [
    "age",
    "RBC.Age",
    "Blood pressure (mmHg)",
    "a/b",
    "+x",
    "50 %",
    "Größe",
    "log(x+1)",
    "C++",
    "x=y",
]
COLUMN_NAMES += [
    "a:b",
    "it's",
    'say "hi"',
    "<b>",
    "[x]",
    "{x}",
    "%s",
    "\\a",
    "$1",
    "#1",
    "आयु",
    "年齢",
    "a,b",
    "_",
    "👍",
]
COLUMN_NAMES += ["-", "..1", "1st", "a°", "x²", "µg/l", "±", "№"]


@pytest.mark.parametrize("name", COLUMN_NAMES)
def test_good_names_of_columns(name):
    assert check_column_name(name, "It") == name
    assert ColumnSchema(name, "real", missing=f"{name}_missing").name == name


HIDDEN = [
    "a\tb",
    "a\nb",
    "a\r",
    "a\0",
    "\x7fa",
    "a\x85b",
    "a\u2028b",
    "a\u2029",
    "a\u00a0b",
    "a\u3000b",
    "a\u2009b",
]
HIDDEN += [
    "a\u202eb",
    "a\u2066b",
    "a\u200bb",
    "a\u200db",
    "\ufeffa",
    "a\u00ad",
    "a\ufe0f",
    "a\u3164",
    "a\ud800",
]


@pytest.mark.parametrize("name", HIDDEN)
def test_names_of_columns_with_what_nobody_sees(name):
    with pytest.raises(SchemaError, match=r"It is '.*' *(with|, with).*U\+[0-9A-F]{4}.* nobody can see"):
        check_column_name(name, "It")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is empty; give it a name"),
        ("  ", "is empty"),
        (" age", "no space at either end"),
        ("age ", "no space at either end"),
        ("e\u0301", "accents composed"),
        (7, "not text"),
        (None, "not text"),
        (float("nan"), "is nan, which is not text"),
        (("a", "b"), "not text"),
    ],
)
def test_bad_names_of_columns(name, message):
    with pytest.raises(SchemaError, match="^It .*" + message):
        check_column_name(name, "It")


def altered(**change):
    return {**TABLE.to_dict(), **change}


def column(**change):
    return {
        "name": "x",
        "kind": "real",
        "scale": 0,
        "key_type": None,
        "range": None,
        "missing": None,
        **change,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, "it has None"),
        ([], "exactly the fields name, owner, columns, rows"),
        ({"name": "t"}, r"it has \['name'\]"),
        (altered(more=1), "exactly the fields"),
        (altered(columns="policy"), "must be a list"),
        (altered(columns={"policy": 1}), "must be a list"),
        (altered(columns=[{"name": "x"}]), r"A column's schema in table 'claims' must have exactly"),
        (altered(columns=[column(name=1)]), "not text"),
        (altered(columns=[column(kind=[])]), "has kind"),
        (altered(columns=[column(scale="0")]), "has scale '0'"),
        (altered(columns=[column(range=[0])]), "two finite numbers"),
        (altered(columns=[column(range=[0, "1"])]), "two finite numbers"),
        (altered(columns=[column(range=[2, 1])]), "must not exceed"),
        (altered(columns=[column(range=[0, 10**400])]), "two finite numbers"),
        (altered(columns=[column(kind="date", scale=0, range=[0, 1e18])]), "whole days or seconds"),
        (altered(columns=[column(kind="datetime", scale=0, range=[0, 0.5])]), "whole days or seconds"),
        (altered(columns=[column(kind="boolean", range=[0, 1])]), "only numbers and dates have a range"),
        (altered(columns=[column(missing="")]), "is empty"),
        (altered(min_count=0), "at least 1"),
        (altered(min_count=True), "at least 1"),
        (altered(columns=[column(kind="key", key_type={})]), "key type {}"),
        (altered(rows="5"), "'5' rows"),
        (altered(name=b"claims"), "not text"),
    ],
)
def test_fields_that_are_no_schema(fields, message):
    with pytest.raises(SchemaError, match=message):
        TableSchema.from_dict(fields)
