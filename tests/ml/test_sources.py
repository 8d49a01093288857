"""Data frames and dictionaries of whatever their libraries can hold: taken by value, or refused by name."""

import array
import collections
import datetime as dt
import decimal
import fractions
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tercet.errors import SchemaError
from tercet.ml.ingest import decode, encode
from tercet.ml.row_keys import Text, hash_keys

D = decimal.Decimal
DAYS = [dt.date(2024, 1, 5), dt.date(1960, 12, 31)]
IDS = [uuid.UUID(int=1), uuid.UUID(int=2)]
BYTES = [one.bytes for one in IDS]
TIMES = [dt.datetime(2024, 1, 5, 7), dt.datetime(2024, 1, 6)]
DAY_NUMBERS = [(day - dt.date(1970, 1, 1)).days for day in DAYS]
SECONDS = [(time - dt.datetime(2010, 1, 1)).total_seconds() for time in TIMES]


def series(values, dtype=None):
    return pd.Series(values, dtype=dtype)


def arrow(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


class Case:
    """A column, and what it means as a key and as a feature: values, or a part of the refusal."""

    def __init__(self, column, key, feature):
        self.column, self.key, self.feature = column, key, feature


WORDS, NUMBERS, FLOATS = ["a", "b"], [5, 6], [5.5, 6]
NO_NUMBER, FLOATED = "not a number", "went through a float"
DAY_TEXTS = ["2024-01-05", "1960-12-31"]

CASES = {
    "pl struct": Case(pl.Series([{"a": 1}, {"a": 2}]), "Struct", "Struct"),
    "pl list": Case(pl.Series([[1], [2]]), "List", "List"),
    "pl array": Case(pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)), "Array", "Array"),
    "pl binary": Case(pl.Series([b"a", b"b"]), "Binary", "Binary"),
    "pl duration": Case(pl.Series([dt.timedelta(1)] * 2), "Duration", "Duration"),
    "pl time": Case(pl.Series([dt.time(1), dt.time(2)]), "Time", "Time"),
    "pl datetime": Case(pl.Series(TIMES), "Datetime", SECONDS),
    "pl date": Case(pl.Series(DAYS), DAY_TEXTS, DAY_NUMBERS),
    "pl decimal": Case(pl.Series([D("5.5"), D("6.0")]), "Decimal", FLOATS),
    "pl categorical": Case(pl.Series(WORDS, dtype=pl.Categorical), WORDS, NO_NUMBER),
    "pl enum": Case(pl.Series(WORDS, dtype=pl.Enum(WORDS)), WORDS, NO_NUMBER),
    "pl null": Case(pl.Series([None, None]), "missing", [None, None]),
    "pl object": Case(pl.Series([object(), object()], dtype=pl.Object), "object values", NO_NUMBER),
    "pl uuid": Case(pl.Series(IDS, dtype=pl.Object), [str(one) for one in IDS], "is a UUID"),
    "pl int128": Case(pl.Series(NUMBERS, dtype=getattr(pl, "Int128", pl.Int64)), NUMBERS, NUMBERS),
    "pl float32": Case(pl.Series(FLOATS, dtype=pl.Float32), FLOATED, FLOATS),
    "pa struct": Case(arrow([{"a": 1}, {"a": 2}]), "struct<", "struct<"),
    "pa list": Case(arrow([[1], [2]]), "list<", "list<"),
    "pa fixed list": Case(arrow([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), "fixed_size_list", "fixed_size"),
    "pa map": Case(arrow([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())), "", ""),
    "pa binary": Case(arrow([b"a", b"b"]), "binary", "binary"),
    "pa fixed binary": Case(arrow([b"a", b"b"], pa.binary(1)), "bytes", "bytes"),
    "pa duration": Case(arrow([1, 2], pa.duration("s")), "duration", "duration"),
    "pa time": Case(arrow([1, 2], pa.time32("s")), "time32", "time32"),
    "pa timestamp": Case(arrow([1, 2], pa.timestamp("us", "UTC")), "timestamp", "times of the zone UTC"),
    "pa date32": Case(arrow(DAYS), DAY_TEXTS, DAY_NUMBERS),
    "pa date64": Case(arrow(DAYS, pa.date64()), DAY_TEXTS, DAY_NUMBERS),
    "pa float16": Case(arrow(np.array(FLOATS, np.float16)), FLOATED, FLOATS),
    "pa decimal": Case(arrow([D(5), D(6)], pa.decimal128(5, 0)), "Decimal", NUMBERS),
    "pa negative scale": Case(arrow([D(100), D(200)], pa.decimal128(5, -2)), "Decimal", [100, 200]),
    "pa decimal256": Case(arrow([D(5), D(6)], pa.decimal256(50, 0)), "Decimal", NUMBERS),
    "pa dictionary": Case(arrow(WORDS).dictionary_encode(), WORDS, NO_NUMBER),
    "pa dictionary of integers": Case(arrow(NUMBERS).dictionary_encode(), NUMBERS, NUMBERS),
    "pa null": Case(arrow([None, None]), "missing", [None, None]),
    "pa array": Case(pa.array([5, None]), "missing", [5, None]),
    "pa large text": Case(arrow(WORDS, pa.large_string()), WORDS, NO_NUMBER),
    "pa wide": Case(arrow([2**63, 1], pa.uint64()), "does not fit", r"beyond 2\*\*30"),
    "pd categorical": Case(series(WORDS, "category"), WORDS, NO_NUMBER),
    "pd categorical integers": Case(series(NUMBERS, "category"), NUMBERS, NUMBERS),
    "pd categorical booleans": Case(series([True, False], "category"), "bool values", [True, False]),
    "pd interval": Case(series(pd.interval_range(0, 2)), "Interval", "Interval"),
    "pd cut": Case(pd.cut(series([1, 2]), 2), "Interval", "Interval"),
    "pd period": Case(series(pd.period_range("2020", "2021", freq="Y")), "Period", "Period"),
    "pd sparse": Case(series(pd.arrays.SparseArray(NUMBERS)), NUMBERS, NUMBERS),
    "pd timestamps": Case(series(TIMES), "datetime64", SECONDS),
    "pd timedelta": Case(series([dt.timedelta(1)] * 2), "timedelta64", "timedelta64"),
    "pd complex": Case(series([1j, 2]), "complex", "complex"),
    "pd text": Case(series(WORDS, "string"), WORDS, NO_NUMBER),
    "pd boolean": Case(series([True, None], "boolean"), "missing", [True, None]),
    "pd Int64": Case(series([5, None], "Int64"), "missing", [5, None]),
    "pd Float64": Case(series(FLOATS, "Float64"), FLOATED, FLOATS),
    "pd float": Case(series([1.0, 2.0]), FLOATED, [1.0, 2.0]),
    "pd bytes": Case(series([b"a", b"b"]), "bytes", "bytes"),
    "pd mixed": Case(series([1, "a"]), "several types", "'a' is text"),
    "pd dates": Case(series(DAYS), DAY_TEXTS, DAY_NUMBERS),
    "pd arrow dates": Case(series(DAYS, pd.ArrowDtype(pa.date32())), DAY_TEXTS, DAY_NUMBERS),
    "pd objects": Case(series([1.0, 2], object), FLOATED, [1.0, 2]),
    "pd lists": Case(series([[1], [2]]), "list", "is a list"),
    "np days": Case(np.array(DAYS, "M8[D]"), DAY_TEXTS, DAY_NUMBERS),
    "np seconds": Case(np.array(TIMES, "M8[ns]"), "datetime64", SECONDS),
    "np no time": Case(np.array(["2024-01-05", "NaT"], "M8[D]"), "missing", [DAY_NUMBERS[0], None]),
    "np timedelta": Case(np.array([1, 2], "m8[s]"), "timedelta64", "timedelta64"),
    "np records": Case(np.zeros(2, [("a", int)]), "values", "values"),
    "np bytes": Case(np.array([b"a", b"b"]), "S1", "S1"),
    "np complex": Case(np.array([1j, 2]), "complex128", "complex128"),
    "np float16": Case(np.array(FLOATS, np.float16), FLOATED, FLOATS),
    "np big endian": Case(np.array(NUMBERS, ">i8"), NUMBERS, NUMBERS),
    "np no dimension": Case(np.array(5), "0 dimensions", "0 dimensions"),
    "np two dimensions": Case(np.ones((2, 2)), "2 dimensions", "2 dimensions"),
    "np masked objects": Case(np.ma.array([None, 5], mask=[True, False], dtype=object), "missing", [None, 5]),
    "set": Case({1, 2}, "no order", "no order"),
    "frozenset": Case(frozenset({1, 2}), "no order", "no order"),
    "text": Case("ab", "no column", "no column"),
    "bytes": Case(b"ab", "no column", "no column"),
    "number": Case(1, "no column", "no column"),
    "none": Case(None, "no column", "no column"),
    "dictionary": Case({0: 1, 1: 2}, "no column", "no column"),
    "deque": Case(collections.deque(NUMBERS), NUMBERS, NUMBERS),
    "array": Case(array.array("i", NUMBERS), NUMBERS, NUMBERS),
    "values": Case({1: 5, 2: 6}.values(), NUMBERS, NUMBERS),
    "keys": Case({5: 1, 6: 2}.keys(), NUMBERS, NUMBERS),
    "range": Case(range(5, 7), NUMBERS, NUMBERS),
    "index": Case(pd.Index(NUMBERS), NUMBERS, NUMBERS),
    "frame": Case(pd.DataFrame({"a": NUMBERS}), "2 dimensions", "2 dimensions"),
    "pairs": Case([[1, 2], [3, 4]], "list", "is a list"),
    "rows": Case([{"a": 1}, {"a": 2}], "dict", "is a dict"),
    "arrays": Case([np.arange(2), np.arange(2)], "ndarray", "is a ndarray"),
    "dates": Case(DAYS, DAY_TEXTS, DAY_NUMBERS),
    "datetimes": Case(TIMES, "datetime", SECONDS),
    "dates and datetimes": Case([DAYS[0], TIMES[0]], "several types", "is a date"),
    "uuids": Case(IDS, [str(one) for one in IDS], "is a UUID"),
    "uuids and text": Case([IDS[0], "a"], "several types", "is a UUID"),
    "decimals": Case([D(5), D(6)], "Decimal", NUMBERS),
    "no decimal": Case([D(5), D("sNaN")], "missing", [5, None]),
    "fractions": Case([fractions.Fraction(11, 2), 6], FLOATED, FLOATS),
    "true and 2": Case([True, 2], "some values are booleans", "some values are booleans"),
    "2 and true": Case([2, np.True_], "some values are booleans", "some values are booleans"),
    "true and a decimal": Case([True, D(2)], "some values are booleans", "some values are booleans"),
    "true and 2.5": Case([True, 2.5], "some values are booleans", "some values are booleans"),
    "true and text": Case([True, "a"], "several types", "'a' is text"),
    "true and nothing": Case([True, None], "missing", [True, None]),
    "single nan": Case(series([np.float32("nan"), np.float32(5)], object), "missing", [None, 5]),
    "wide": Case([2**70, 1], "does not fit", r"beyond 2\*\*30"),
    "endless": Case([10**400, 1], "does not fit", r"beyond 2\*\*30"),
    "infinite": Case([D("Infinity"), 1], "several types", "infinite"),
    "scalars of arrow": Case([pa.scalar(1), pa.scalar(2)], "Int64Scalar", "Int64Scalar"),
}

if hasattr(np.dtypes, "StringDType"):
    CASES |= {
        "np text": Case(np.array(WORDS, np.dtypes.StringDType()), WORDS, NO_NUMBER),
        "np text or none": Case(
            np.array(["a", None], np.dtypes.StringDType(na_object=None)), "missing", NO_NUMBER
        ),
        "np text or nan": Case(
            np.array(["a", np.nan], np.dtypes.StringDType(na_object=np.nan)), "missing", NO_NUMBER
        ),
    }
if hasattr(pa, "string_view"):
    CASES["pa text view"] = Case(arrow(WORDS, pa.string_view()), WORDS, NO_NUMBER)
if hasattr(pa, "uuid"):
    CASES["pa uuid"] = Case(arrow(BYTES, pa.binary(16)).cast(pa.uuid()), [str(one) for one in IDS], "UUID")


def sources(column):
    """The column in a dictionary, and in a frame of its own library if it has one."""
    yield lambda name, other: {name: column, other: [10, 20]}
    frames = {pl.Series: pl.DataFrame, pd.Series: pd.DataFrame, pa.ChunkedArray: pa.table}
    if type(column) in frames:
        yield lambda name, other: frames[type(column)]({name: column, other: [10, 20]})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_keys(case):
    for source in sources(case.column):
        if isinstance(case.key, str):
            with pytest.raises(SchemaError, match=f'Table "t", column "k".*{case.key}'):
                encode(source("k", "x"), name="t", key="k", owner="o")
        else:
            table = encode(source("k", "x"), name="t", key="k", owner="o")
            meant = np.array(case.key) if isinstance(case.key[0], int) else Text.of(case.key)
            np.testing.assert_array_equal(table.keys, hash_keys({"k": meant}, table="t"))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_features(case):
    for source in sources(case.column):
        options = {"name": "t", "key": "k", "owner": "o", "missing": "indicator"}
        if isinstance(case.feature, str):
            with pytest.raises(SchemaError, match=f'Table "t", column "x".*{case.feature}'):
                encode(source("x", "k"), **options)
            continue
        table = encode(source("x", "k"), **options)
        column = table.schema.features[0]
        nulls = table.values[1].astype(bool) if column.missing else np.zeros(2, bool)
        assert nulls.tolist() == [value is None for value in case.feature]
        there = [value for value in case.feature if value is not None]
        np.testing.assert_allclose(decode(table.values[0], column.scale)[~nulls], there, rtol=1e-4)
        assert (column.kind == "boolean") == bool(there and isinstance(there[0], bool))


def test_odd_columns_that_are_not_taken():
    frame = pa.table({"k": [1, 2], "x": [3, 4], "s": [{"a": 1}] * 2, "t": arrow(TIMES)})
    assert encode(frame, name="t", key="k", owner="o", columns=["x"]).schema.rows == 2


def test_keys_of_days_and_uuids_match_those_of_files(tmp_path):
    frame = pl.DataFrame({"day": DAYS, "id": [str(one) for one in IDS], "x": [1, 2]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    options = {"name": "t", "key": ["day", "id"], "owner": "o"}
    expected = encode({"day": DAYS, "id": IDS, "x": [1, 2]}, **options)
    pandas = frame.to_pandas()
    with pytest.raises(SchemaError, match=r'column "day": it holds datetime64.*days with \.dt\.date'):
        encode(pandas, **options)
    pandas["day"] = pandas["day"].dt.date
    for source in (tmp_path / "a.csv", tmp_path / "a.parquet", frame, pandas, frame.to_arrow()):
        np.testing.assert_array_equal(encode(source, **options).keys, expected.keys)


# -- what is no table, and names that are none ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([{"k": 1, "x": 2}, {"k": 3, "x": 4}], r'column "k": it is 1 .*pandas\.DataFrame\(rows\)'),
        ([{"k": "a", "x": 2}], r"column \"k\": it is 'a' .*pandas\.DataFrame\(rows\)"),
        (iter([{"k": 1, "x": 2}]), r'column "k": it is 1 .*pandas\.DataFrame\(rows\)'),
        ({"k": {0: 1, 1: 2}, "x": {0: 3, 1: 4}}, r'column "k": it is \{0: 1, 1: 2\} \(type dict\)'),
        ({"k": 1, "x": 2}, r'column "k": it is 1 \(type int\), which is no column'),
        ([[1, 2], [3, 4]], "a list is no table"),
        ([(1, 2)], "a list is no table"),
        ({1, 2}, "a set is no table"),
        ("k,x\n1,2\n", "no file"),
        (b"k,x\n1,2\n", "a bytes is no table"),
        (np.zeros(2, [("k", int), ("x", int)]), "a ndarray is no table"),
        (pd.Series([1, 2], name="k"), "a Series is no table"),
        (iter([1, 2]), "a int is no table"),
    ],
)
def test_what_is_no_table(source, message):
    with pytest.raises(SchemaError, match='(?s)Table "t".*' + message):
        encode(source, name="t", key="k", owner="o")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pd.DataFrame({"k": [1, 2], 0: [2, 3]}), "named 0, which is not text"),
        (pd.DataFrame({"k": [1, 2], np.nan: [2, 3]}), "named nan, which is not text"),
        (pd.DataFrame({"k": [1, 2], None: [2, 3]}), "which is not text"),
        (pd.DataFrame({"k": [1, 2], ("a", "b"): [2, 3]}), "which is not text|MultiIndex"),
        (pd.DataFrame({"k": [1, 2], dt.date(2024, 1, 5): [2, 3]}), "which is not text"),
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("k", ""), ("a", "b")])), "MultiIndex"),
        (pd.DataFrame([[1, 2]], columns=["k", "k"]), "two columns named 'k'"),
        ({"k": [1, 2], 1: [3, 4]}, "named 1, which is not text"),
        ({"k": [1, 2], b"x": [3, 4]}, "which is not text"),
    ],
)
def test_names_that_are_no_text(source, message):
    with pytest.raises(SchemaError, match='able "t".*' + message):
        encode(source, name="t", key="k", owner="o")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": 0}, "key names 0, which is not text"),
        ({"key": None}, "key names None, which is not text"),
        ({"key": ["k", 1]}, "key names 1, which is not text"),
        ({"key": {"k", "x"}}, ".*a set has no order"),
        ({"columns": {"x"}}, ".*a set has no order"),
        ({"columns": 5}, "columns names 5, which is not text"),
        ({"columns": np.array([1.5])}, "columns names .*1.5.*, which is not text"),
        ({"types": "real"}, "types is 'real'; it is a dictionary"),
        ({"scales": 3}, "scales is 3; it is a dictionary"),
        ({"ranges": (0, 1)}, r"ranges is \(0, 1\); it is a dictionary"),
    ],
)
def test_options_of_other_sorts(options, message):
    with pytest.raises(SchemaError, match='Table "t": ' + message):
        encode({"k": [1, 2], "x": [3, 4]}, **{"name": "t", "key": "k", "owner": "o", **options})


def test_key_named_by_an_index_or_array():
    for key in (["k"], ("k",), np.array(["k"]), pd.Index(["k"]), "k"):
        assert encode({"k": [1, 2], "x": [3, 4]}, name="t", key=key, owner="o").schema.key_names == ("k",)
