"""Any source gives the same integers, and whatever is wrong with it is said with table, column and row."""

import decimal
import re
import sys
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import PrecisionWarning, SchemaError
from tercet.ml.ingest import EncodedTable, decode, encode
from tercet.ml.row_keys import Text, hash_keys
from tercet.ml.schema import ColumnSchema, automatic_scale

DATA = {
    "id": ["p1", "p2", "é3", "a,b"],
    "age": [40, 50, 61, -3],
    "bmi": [22.5, 30.25, 19.0, 1e-3],
    "ill": [True, False, True, True],
}
INTEGER_KEYS = {**DATA, "id": [3, -1, 2**62, 0]}


def claims(source, **options) -> EncodedTable:
    return encode(source, **{"name": "claims", "key": "id", "owner": "insurer", **options})


def assert_same(one: EncodedTable, two: EncodedTable) -> None:
    assert one.schema == two.schema
    np.testing.assert_array_equal(one.keys, two.keys)
    np.testing.assert_array_equal(one.values, two.values)


def refused(message: str):
    """Expect a SchemaError; `message` is a pattern, in which `...` stands for anything."""
    return pytest.raises(SchemaError, match=r'Table "claims".*' + message.replace("...", ".*"))


def write(frame: pd.DataFrame, path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")


FRAMES = {
    "pandas": pd.DataFrame,
    "pandas nullable": lambda data: pd.DataFrame(data).convert_dtypes(),
    "pandas arrow": lambda data: pd.DataFrame(data).convert_dtypes(dtype_backend="pyarrow"),
    "pandas objects": lambda data: pd.DataFrame(data).astype(object),
    "pandas categorical key": lambda data: pd.DataFrame(data).astype({"id": "category"}),
    "pandas index": lambda data: pd.DataFrame(data).set_index("id"),
    "pandas other index": lambda data: pd.DataFrame(data, index=pd.Index(list("wxyz"), name="letter")),
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "polars chunks": lambda data: pl.concat([pl.DataFrame(data)[:1], pl.DataFrame(data)[1:]], rechunk=False),
    "pyarrow": pa.table,
    "pyarrow slice": lambda data: pa.concat_tables([pa.table(data)] * 2).slice(4),
    "arrays": lambda data: {name: np.array(column) for name, column in data.items()},
    "series": lambda data: {name: pl.Series(column) for name, column in data.items()},
    "tuples": lambda data: {name: tuple(column) for name, column in data.items()},
}


@pytest.mark.parametrize("data", [DATA, INTEGER_KEYS], ids=["text", "integers"])
@pytest.mark.parametrize("frame", FRAMES)
def test_every_frame_gives_the_same_table(frame, data):
    assert_same(claims(FRAMES[frame](data)), claims(data))


@pytest.mark.parametrize("data", [DATA, INTEGER_KEYS], ids=["text", "integers"])
@pytest.mark.parametrize("file", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.parquet", "A.CSV"])
def test_every_file_gives_the_same_table(tmp_path, file, data):
    write(pd.DataFrame(data), tmp_path / file)
    assert_same(claims(tmp_path / file), claims(data))
    assert_same(claims(str(tmp_path / file)), claims(data))


def test_what_is_encoded():
    table = claims(DATA)
    assert table.schema.columns == (
        ColumnSchema("id", "key", key_type="string"),
        ColumnSchema("age", "integer", 11),
        ColumnSchema("bmi", "real", 12),
        ColumnSchema("ill", "boolean"),
    )
    assert (table.schema.name, table.schema.owner, table.schema.rows) == ("claims", "insurer", 4)
    assert (table.keys.dtype, table.keys.shape) == (np.uint64, (2, 4))
    np.testing.assert_array_equal(table.keys, hash_keys({"id": Text.of(DATA["id"])}, table="t"))
    assert table.values.dtype == np.int64
    assert table.values.tolist() == [
        [v << 11 for v in DATA["age"]],
        [round(v * 2**12) for v in DATA["bmi"]],
        [1, 0, 1, 1],
    ]


columns = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=12)


@given(columns, st.sampled_from([pd.DataFrame, pl.DataFrame, pa.table, dict]))
def test_reals_come_back_to_half_a_unit(values, frame):
    table = claims(frame({"id": range(len(values)), "x": values}))
    scale = table.schema.column("x").scale
    assert scale == automatic_scale(np.array(values))
    for value, back in zip(values, decode(table.values[0], scale), strict=True):
        assert abs(Fraction(value) - Fraction(float(back))) <= Fraction(2) ** -scale / 2


@given(st.permutations(range(len(DATA["id"]))), st.permutations(list(DATA)))
def test_rows_and_columns_may_come_in_any_order(rows, names):
    shuffled = claims(
        {name: [DATA[name][row] for row in rows] for name in names}, columns=["ill", "bmi", "age"]
    )
    plain = claims(DATA, columns=["ill", "bmi", "age"])
    assert shuffled.schema == plain.schema
    np.testing.assert_array_equal(shuffled.keys, plain.keys[:, list(rows)])
    np.testing.assert_array_equal(shuffled.values, plain.values[:, list(rows)])


def test_choice_of_columns():
    assert [c.name for c in claims(DATA, columns=["bmi", "id", "age"]).schema.columns] == ["id", "bmi", "age"]
    assert [c.name for c in claims(DATA, columns="bmi").schema.features] == ["bmi"]
    only_key = claims(DATA, columns=[])
    assert only_key.values.shape == (0, 4)
    assert only_key.keys.shape == (2, 4)
    assert claims({**DATA, "note/": ["a"] * 4}, columns=["age"]).schema.features[0].name == "age"


def test_composite_keys():
    data = {"year": [1, 1, 2], "id": ["a", "b", "a"], "x": [1.0, 2.0, 3.0]}
    table = claims(data, key=["id", "year"])
    assert table.schema.key_names == ("id", "year")
    expected = hash_keys({"id": Text.of(["a", "b", "a"]), "year": np.array([1, 1, 2])}, table="t")
    np.testing.assert_array_equal(table.keys, expected)
    indexed = pd.DataFrame(data).set_index(["year", "id"])
    assert_same(claims(indexed, key=["id", "year"]), table)
    assert_same(claims(pd.DataFrame(data).set_index("year"), key=["id", "year"]), table)
    with refused('key "id", "year": row 2 has the same key as row 0 ... the only repetition'):
        claims({**data, "year": [1, 1, 1]}, key=["id", "year"])


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table, dict])
@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_hardly_any_rows(frame, rows):
    table = claims(frame({name: np.array(column)[:rows] for name, column in INTEGER_KEYS.items()}))
    assert table.schema.rows == rows
    assert table.keys.shape == (2, rows)
    assert table.values.shape == (3, rows)
    assert [c.kind for c in table.schema.columns] == ["key", "integer", "real", "boolean"]


def test_files_without_rows(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n")
    table = claims(tmp_path / "a.csv", types={"x": "boolean"})
    assert table.schema.column("x").kind == "boolean"
    assert table.values.shape == (1, 0)


def test_a_source_is_left_as_it_was():
    frame = pd.DataFrame(DATA).set_index("id")
    before = frame.copy(deep=True)
    claims(frame)
    pd.testing.assert_frame_equal(frame, before)


# Kinds.


@pytest.mark.parametrize(
    ("values", "declared", "kind", "stored"),
    [
        ([0, 1, 1], None, "integer", [0, 2**16, 2**16]),
        ([0, 1, 1], "boolean", "boolean", [0, 1, 1]),
        ([0.0, 1.0, 1.0], "boolean", "boolean", [0, 1, 1]),
        ([True, False, True], None, "boolean", [1, 0, 1]),
        ([True, False, True], "integer", "integer", [2**16, 0, 2**16]),
        ([4, 4, 4], "real", "real", [2**16] * 3),
        ([4.0, 4.0, 4.0], "integer", "integer", [2**16] * 3),
        ([4, 4.0, 4], None, "real", [2**16] * 3),
        ([decimal.Decimal("0.5")] * 3, None, "real", [2**16] * 3),
        ([2**40, 2**40, 2**40], "real", "real", [2**16] * 3),
        ([2**70, 2**70, 2**70], "real", "real", [2**16] * 3),
        (np.array([4, 4, 4], np.uint64), None, "integer", [2**16] * 3),
        (np.array([0.5, 0.5, 0.5], np.float32), None, "real", [2**16] * 3),
        (np.ma.array([4, 4, 4], mask=[0, 0, 0]), None, "integer", [2**16] * 3),
    ],
)
def test_kinds(values, declared, kind, stored):
    table = claims({"id": [1, 2, 3], "x": values}, types={"x": declared} if declared else None)
    assert table.schema.features[0].kind == kind
    assert table.values[0].tolist() == stored
    scale = table.schema.features[0].scale
    assert decode(table.values[0], scale).tolist() == [float(v) for v in values]


def test_polars_decimals_and_wide_integers():
    frame = pl.DataFrame({"id": [1, 2], "x": [0.5, 0.5], "y": [4, 4]})
    wide = frame.cast({"id": pl.Int128, "x": pl.Decimal(10, 2), "y": pl.Int128})
    assert_same(claims(wide), claims(frame))


def test_given_scales():
    table = claims(DATA, scales={"bmi": 3, "age": 0})
    assert [c.scale for c in table.schema.features] == [0, 3, 0]
    assert table.values[1].tolist() == [180, 242, 152, 0]
    coarse = claims({"id": [1], "x": [3e20]}, scales={"x": -60})
    assert coarse.values[0].tolist() == [round(3e20 / 2**60)]


@pytest.mark.parametrize(
    ("cells", "declared", "keys"),
    [
        (["7", "-12", "0"], None, [7, -12, 0]),
        (["7", "-12", "0"], "string", ["7", "-12", "0"]),
        (["007", "8", "9"], "string", ["007", "8", "9"]),
        (["007", "8", "9"], None, ["007", "8", "9"]),
        (["-0", "8", "9"], None, ["-0", "8", "9"]),
        (["12E5", "8", "ab"], None, ["12E5", "8", "ab"]),
        (["+7", "8", "9"], None, ["+7", "8", "9"]),
        (["9223372036854775808", "8", "x"], None, ["9223372036854775808", "8", "x"]),
        (["é", "8", "'"], None, ["é", "8", "'"]),
        (['"a,""b"""', '"c\nd"', "9"], None, ['a,"b"', "c\nd", "9"]),
        (["9223372036854775807", "-9223372036854775808", "1"], None, [2**63 - 1, -(2**63), 1]),
        (["9223372036854775808", "8", "9"], "string", ["9223372036854775808", "8", "9"]),
    ],
)
def test_keys_of_csv_files(tmp_path, cells, declared, keys):
    path = tmp_path / "a.csv"
    path.write_text("x,id\n" + "".join(f"1.5,{cell}\n" for cell in cells), newline="")
    table = claims(path, types={"id": declared} if declared else None)
    assert_same(table, claims({"x": [1.5] * 3, "id": keys}))


def test_integer_keys_declared_text():
    assert_same(
        claims(INTEGER_KEYS, types={"id": "string"}),
        claims({**DATA, "id": list(map(str, INTEGER_KEYS["id"]))}),
    )


def test_csv_types_come_from_all_rows(tmp_path):
    rows = [f"{i},{i},{['True', 'false'][i % 2]}" for i in range(5000)] + ["5000,0.5,TRUE"]
    (tmp_path / "a.csv").write_text("\ufeffid,x,b\n" + "\n".join(rows) + "\n", encoding="utf-8")
    table = claims(tmp_path / "a.csv")
    assert [c.kind for c in table.schema.columns] == ["key", "real", "boolean"]
    assert table.values[1].sum() == 2501


# Refusals.


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {},
            {"key": "idd"},
            "no column 'idd', which key names. Did you mean \"id\"... The columns are: id, age",
        ),
        ({}, {"key": []}, "has no key"),
        ({}, {"key": ["id", "id"]}, 'key names "id" twice'),
        ({}, {"columns": ["agee"]}, "no column 'agee', which columns names. Did you mean \"age\""),
        ({}, {"columns": ["age", "age"]}, 'columns names "age" twice'),
        ({}, {"scales": {"bmj": 3}}, "no column 'bmj', which scales names. Did you mean \"bmi\""),
        ({}, {"types": {"bmj": "real"}}, "no column 'bmj', which types names. Did you mean \"bmi\""),
        ({}, {"columns": ["age"], "types": {"bmi": "real"}}, "no column 'bmi', which types"),
        ({}, {"scales": {"id": 3}}, "no column 'id', which scales"),
        ({}, {"scales": {"ill": 3}}, 'column "ill": scales gives 3, but a boolean'),
        ({}, {"scales": {"bmi": 1.5}}, 'column "bmi": scales gives 1.5; a scale is an integer'),
        ({}, {"scales": {"bmi": 9999}}, "from -1100 to 1104"),
        ({}, {"types": {"bmi": "string"}}, "column \"bmi\": types declares it as 'string'"),
        ({}, {"types": {"id": "real"}}, "column \"id\": types declares this key as 'real'"),
        (
            {},
            {"types": {"id": "integer"}},
            "column \"id\", row 0 ... 'p1' is text, and types declares integers",
        ),
        ({}, {"types": {"age": "boolean"}}, 'column "age", row 0 ...the value 40 is not a boolean'),
        ({}, {"types": {"bmi": "integer"}}, 'column "bmi", row 0 ...22.5 is not an integer'),
        (
            {},
            {"scales": {"bmi": 26}},
            r'"bmi", row 0 ...22.5 is outside...scale 26...lower the scale to 25 or',
        ),
        ({}, {"scales": {"age": 25}}, r'"age", row 0 ...the value 40 is outside...lower the scale to 24 or'),
        ({"ill": ["y", "n", "y", "y"]}, {}, "column \"ill\", row 0 ...'y' is text...columns="),
        ({"bmi": ["1", "2", "n/a", "x"]}, {}, "column \"bmi\", row 2 ...'n/a' is text"),
        ({"bmi": ["1", "2", "3", "4"]}, {}, "column \"bmi\", row 0 ...'1' is text, not a number"),
        ({"bmi": [1.5, 2, "x", 4]}, {}, "column \"bmi\", row 2 ...'x' is text"),
        ({"bmi": [1.5, 2, [3], 4]}, {}, 'column "bmi", row 2 ...is a list, not a number'),
        (
            {"bmi": np.array(["2020-01-01"] * 4, "M8[D]")},
            {"types": {"bmi": "real"}},
            'column "bmi", row 0 ...is a date, not a number',
        ),
        ({"bmi": np.ones(4) * 1j}, {}, 'column "bmi": it holds complex128 values'),
        ({"bmi": [1.0, np.inf, 2.0, -np.inf]}, {}, 'column "bmi", row 1 ...infinite'),
        ({"bmi": [1.0, 2.0, np.nan, np.nan]}, {}, 'column "bmi", row 2 ...missing, the first of 2'),
        ({"bmi": [1.0, 2.0, None, 3.0]}, {}, 'column "bmi", row 2 ...missing, the only one'),
        ({"age": [1, 2, pd.NA, 3]}, {}, 'column "age", row 2 ...missing'),
        ({"age": np.ma.array([1, 2, 3, 4], mask=[0, 1, 0, 1])}, {}, 'column "age", row 1 ...the first of 2'),
        ({"age": [1, -(2**30) - 1, 2, 3]}, {}, r'"age", row 1 ...-1073741825 ...types=\{"age": "real"\}'),
        ({"age": [1, 2**64, 2, 3]}, {}, r'"age", row 1 ...18446744073709551616 is an integer beyond 2\*\*30'),
        ({"age": [1, 2**63, 2, 3]}, {}, r'"age", row 1 ...9223372036854775808 is an integer beyond 2\*\*30'),
        ({"age": [1, 10**400, 2, 3]}, {}, r'"age", row 1 ...is an integer beyond'),
        ({"age": [1, 10**400, 2, 3]}, {"types": {"age": "real"}}, '"age", row 1 ...infinite'),
        ({"id": [1, 2, 3, -(2**63) - 1]}, {}, r'column "id", row 3 ...types=\{"id": "string"\}'),
        ({"id": ["a", "b", None, "c"]}, {}, 'column "id", row 2 ...missing'),
        ({"id": ["a", "b", np.nan, "c"]}, {}, 'column "id", row 2 ...missing'),
        ({"id": [1.0, 2.0, 3.0, 4.0]}, {}, 'column "id": it holds float64 values; a key is...went through'),
        ({"id": [1.0, 2, 3, 4]}, {}, 'column "id": it holds float64 values; a key is...went through'),
        ({"id": [True, 2, 3, 4]}, {}, 'column "id", row 1 ...some values are booleans and some'),
        ({"id": [1, 2, np.True_, 4]}, {}, 'column "id", row 2 ...some values are booleans and some'),
        ({"ill": [True, 2, False, True]}, {}, 'column "ill", row 1 ...some values are booleans and some'),
        ({"id": [True, False, True, False]}, {}, 'column "id": it holds bool values'),
        ({"id": [1, "1", 2, "2"]}, {}, 'column "id": it holds objects of several types'),
        ({"id": [1, 2**63, 2, 3]}, {}, r'column "id", row 1 ...types=\{"id": "string"\}'),
        ({"id": ["a", "b", "\ud800", "c"]}, {}, 'column "id", row 2 ...Unicode'),
        ({"id": ["a", "b", "a", "b"]}, {}, 'key "id": row 2 has the same key as row 0 ...the first of 2 rep'),
        ({"age": [1, 2, 3]}, {}, "different lengths"),
        ({"age": np.ones((4, 2))}, {}, 'column "age": it has 2 dimensions'),
        ({"a\u200bb": [1, 2, 3, 4]}, {}, None),
        ({7: [1, 2, 3, 4]}, {}, None),
    ],
)
def test_refusals(change, options, message):
    expected = (
        refused(message) if message else pytest.raises(SchemaError, match=r'A column of table "claims" is')
    )
    with expected:
        claims({**DATA, **change}, **options)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize("column", ["id", "age", "bmi", "ill"])
def test_missing_values_in_frames(frame, column):
    data = {**DATA, column: [DATA[column][0], None, DATA[column][2], None]}
    with refused(rf'column "{column}", row 1 ...missing, the first of 2'):
        claims(frame(data))


@pytest.mark.parametrize(
    "labels", [pd.Categorical(list("abca")), pd.array(list("abca"), "str"), np.array(list("abca"), object)]
)
def test_labels_are_no_features(labels):
    with refused("column \"bmi\", row 0 ...'a' is text"):
        claims(pd.DataFrame({**DATA, "bmi": labels}))


def test_polars_labels_are_no_features():
    with refused("column \"bmi\", row 0 ...'a' is text"):
        claims(pl.DataFrame({**DATA, "bmi": pl.Series(list("abca"), dtype=pl.Categorical)}))


@pytest.mark.parametrize("options", [{"name": ""}, {"owner": ""}, {"name": "a/b"}, {"owner": "x\n"}])
def test_bad_names_of_table_and_owner(options):
    with pytest.raises(SchemaError, match=r"The (table's name|owner of table .*) is"):
        claims(DATA, **options)


def test_columns_of_one_name():
    with refused("two columns named 'x'"):
        claims(pd.DataFrame([[1, 2, 3]], columns=["id", "x", "x"]))
    with refused("two columns of one name"):
        claims(pa.table([pa.array([1])] * 3, names=["id", "x", "x"]))


@pytest.mark.parametrize("source", [7, None, np.ones((2, 2)), [1, 2]])
def test_what_is_no_table(source):
    with refused("is no table; give a pandas, polars"):
        claims(source)


def test_files_that_are_not_there(tmp_path):
    with refused(re.escape(f"there is no file {tmp_path / 'a.csv'}; check the path")):
        claims(tmp_path / "a.csv")
    (tmp_path / "a.xlsx").write_bytes(b"x")
    with refused(r"no file of a known type...\.parquet"):
        claims(tmp_path / "a.xlsx")


def test_no_library_to_read_parquet_with(tmp_path, monkeypatch):
    write(pd.DataFrame(DATA), tmp_path / "a.parquet")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused("pip install pyarrow"):
        claims(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,x,x\n1,2,3\n", "two columns named 'x'"),
        ("idd,x\n1,2\n", "no column 'id', which key names. Did you mean \"idd\""),
        ("id,x\n1,2\n3,4,5\n", "row 1 ...it has 3 cells where...names 2 columns"),
        ("id,x\n1,2\n,4\n", 'column "id", row 1 ...missing'),
        ("id,x\n1,2\n2,\n", 'column "x", row 1 ...missing'),
        ("id,x\n1,1.5\n2,n.a.\n", "column \"x\", row 1 ...'n.a.' is text"),
        ("id,x\n1,true\n2,maybe\n", 'column "x", row ... is text'),
        ("id,x\n1.5,1\n2.5,1\n", 'column "id", row 0 ...the key .1.5. is written as a float'),
        ("id,x\n99999999999999999999,1\n", r'column "id", row 0 ...types=\{"id": "string"\}'),
        ("id,x\n7,1\n7,1\n", 'key "id": row 1 has the same key as row 0'),
        ("id,x\n1,inf\n", 'column "x", row 0 '),
    ],
)
def test_csv_files_that_are_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with refused(message):
        claims(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz"])
def test_files_that_are_damaged(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00 not a table")
    with refused("cannot be read"):
        claims(tmp_path / name)


def test_wide_integers_as_text_keys():
    wide = [2**64, -(2**63) - 1, 5]
    table = claims({"id": wide}, types={"id": "string"})
    assert_same(table, claims({"id": [str(value) for value in wide]}))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_text_without_pyarrow(monkeypatch, frame):
    expected = claims(DATA)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert_same(claims(frame(DATA)), expected)


# -- missing values, ranges and rules ------------------------------------------------------------------------

HOLES = {
    "pandas": lambda: pd.DataFrame({"id": [1, 2, 3, 4], "x": [1.5, None, 2.5, None], "n": [7, 8, 9, 9]}),
    "nullable": lambda: pd.DataFrame(
        {"id": [1, 2, 3, 4], "x": [1.5, None, 2.5, None], "n": [7, 8, 9, 9]}
    ).astype({"x": "Float64"}),
    "polars": lambda: pl.DataFrame(
        {"id": [1, 2, 3, 4], "x": [1.5, None, 2.5, float("nan")], "n": [7, 8, 9, 9]}
    ),
    "pyarrow": lambda: pa.table({"id": [1, 2, 3, 4], "x": [1.5, None, 2.5, None], "n": [7, 8, 9, 9]}),
    "objects": lambda: {"id": [1, 2, 3, 4], "x": [1.5, None, 2.5, float("nan")], "n": [7, 8, 9, 9]},
    "arrays": lambda: {"id": np.arange(4), "x": np.array([1.5, np.nan, 2.5, np.nan]), "n": [7, 8, 9, 9]},
    "masked": lambda: {
        "id": np.arange(4),
        "x": np.ma.masked_array([1.5, 9, 2.5, np.nan], [False, True, False, False]),
        "n": [7, 8, 9, 9],
    },
}


@pytest.mark.parametrize("source", HOLES.values(), ids=HOLES)
def test_missing_values_get_a_column(source):
    """They are stored as the mean of the others."""
    table = encode(source(), name="t", key="id", owner="o", missing="indicator")
    assert [column.name for column in table.schema.features] == ["x", "x_missing", "n"]
    x, beside, whole = table.schema.features
    assert (x.missing, beside.kind, whole.missing) == ("x_missing", "boolean", None)
    np.testing.assert_allclose(decode(table.values[0], x.scale), [1.5, 2, 2.5, 2], atol=1e-4)
    np.testing.assert_array_equal(table.values[1], [0, 1, 0, 1])
    np.testing.assert_array_equal(decode(table.values[2], whole.scale), [7, 8, 9, 9])
    with pytest.raises(SchemaError, match=r'column "x", row 1 .* the value is missing, the first of 2'):
        encode(source(), name="t", key="id", owner="o")


def test_integers_and_booleans_may_be_missing():
    source = {"id": range(4), "n": [1, None, 2, 4], "b": [True, None, True, False], "none": [None] * 4}
    table = encode(source, name="t", key="id", owner="o", missing="indicator")
    kinds = {column.name: (column.kind, column.scale) for column in table.schema.features}
    assert kinds["n"][0] == "integer"
    assert kinds["b"] == ("boolean", 0)
    assert table.values[0, 1] == 2 << kinds["n"][1]
    assert table.values[2].tolist() == [1, 1, 1, 0]
    assert table.values[4:].tolist() == [[0] * 4, [1] * 4]


def test_errors_about_other_values_count_all_rows():
    source = {"id": range(4), "x": [None, None, 1.0, np.inf]}
    with pytest.raises(SchemaError, match=r'column "x", row 3 .*infinite'):
        encode(source, name="t", key="id", owner="o", missing="indicator")


def test_keys_may_not_be_missing():
    with pytest.raises(SchemaError, match="is missing"):
        encode({"id": [1, None], "x": [1, 2]}, name="t", key="id", owner="o", missing="indicator")


def test_a_declared_range_gives_the_scale():
    """Whatever the values are, so that the scale tells nothing of them."""
    scales = set()
    for values in ([0.0, 0.0, 9.0], [100.0, 0.0, 50.0]):
        source = {"id": range(3), "x": values, "n": [1, 200, 900]}
        table = encode(source, name="t", key="id", owner="o", ranges={"x": (0, 120), "n": (0, 1000)})
        x, whole = table.schema.features
        assert x.range == (0, 120)
        assert whole.kind == "integer"
        assert whole.scale >= 0
        scales.add((x.scale, whole.scale))
        np.testing.assert_allclose(decode(table.values[0], x.scale), values, atol=1e-2)
    assert len(scales) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranges": {"x": (0, 2)}}, r"row 2 .* the value 3.5 is outside of 0 to 2, which is declared"),
        ({"ranges": {"y": (0, 2)}}, "has no column 'y', which ranges names"),
        ({"ranges": {"x": (2, 0)}}, "the first number must not exceed"),
        ({"ranges": {"x": (0, np.inf)}}, "two finite numbers"),
        ({"ranges": {"b": (0, 1)}}, "only numbers and dates have a range"),
        ({"missing": "drop"}, 'is neither "refuse" nor "indicator"'),
        ({"min_count": 0}, "at least 1"),
    ],
)
def test_wrong_options(options, message):
    source = {"id": range(3), "x": [1.0, 1.5, 3.5], "b": [True, False, True]}
    with pytest.raises(SchemaError, match=message):
        encode(source, name="t", key="id", owner="o", **options)


def test_the_rule_is_in_the_schema():
    assert encode({"id": [1]}, name="t", key="id", owner="o", min_count=7).schema.min_count == 7


# -- sources in chunks ---------------------------------------------------------------------------------------

LONG = {
    "id": [f"p{i}" for i in range(1000)],
    "age": [i % 90 for i in range(1000)],
    "bmi": [i * 1.37 % 29 for i in range(1000)],
    "flag": [i % 3 == 0 for i in range(1000)],
    "code": [i % 2 for i in range(1000)],
}


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 64 rows, and spools that go to a file at once."""
    for name in ("reading", "ingest"):
        monkeypatch.setattr(f"tercet.ml.{name}.CHUNK_ROWS", 64)
    monkeypatch.setattr("tercet.ml.spool.IN_MEMORY_BYTES", 100)


def in_chunks(data, rows=77, make=pd.DataFrame):
    starts = range(0, len(data["id"]), rows)
    return [make({name: column[start : start + rows] for name, column in data.items()}) for start in starts]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("form", ["a.csv", "a.csv.gz", "a.parquet", "frame", "list", "iterator", "mappings"])
def test_chunks_give_the_same_table(tmp_path, form, binary, small_chunks, monkeypatch):
    with monkeypatch.context() as whole:
        for name in ("reading", "ingest"):
            whole.setattr(f"tercet.ml.{name}.CHUNK_ROWS", 1 << 20)
        expected = claims(LONG, binary=binary)
    if "." in form:
        source = tmp_path / form
        write(pd.DataFrame(LONG), source)
    else:
        sources = {
            "frame": pl.DataFrame(LONG),
            "list": in_chunks(LONG),
            "iterator": iter(in_chunks(LONG, make=pl.DataFrame)),
            "mappings": iter(in_chunks(LONG, make=dict)),
        }
        source = sources[form]
    found = claims(source, binary=binary)
    assert_same(found, expected)
    assert [c.kind for c in found.schema.features[2:]] == ["boolean", "boolean" if binary else "integer"]
    np.testing.assert_array_equal(found.value_rows(100, 777), expected.values[:, 100:777])
    np.testing.assert_array_equal(found.key_rows(990, 1000), expected.keys[:, 990:])
    assert found.content == expected.content


def test_contents_are_told_apart():
    one = claims(DATA).content
    assert claims(pd.DataFrame(DATA)).content == one
    for change in ({"bmi": [22.5, 30.25, 19.0, 2e-3]}, {"id": ["p1", "p2", "é3", "a;b"]}):
        assert claims({**DATA, **change}).content != one
    assert claims(DATA, min_count=3).content != one


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=400), st.integers(1, 60))
def test_scales_do_not_depend_on_chunks(values, rows):
    data = {"id": range(len(values)), "x": values}
    scale = automatic_scale(np.array(values))
    assert claims(in_chunks(data, rows)).schema.column("x").scale == scale


@pytest.mark.parametrize("chunked", [False, True])
def test_numbers_that_are_all_zero_or_one_are_booleans(chunked, small_chunks):
    """However they are written: an outcome that went through a float is one too."""
    bits = [float(place % 3 == 0) for place in range(200)]
    data = {"id": range(200), "y": bits, "half": [*bits[:-1], 0.5], "two": [*bits[:-1], 2.0]}
    data |= {"mixed": [*map(int, bits[:150]), *bits[150:]], "declared": bits, "gaps": [None, *bits[1:]]}
    options = {"types": {"declared": "real"}, "missing": "indicator"}
    found = claims(in_chunks(data, make=dict) if chunked else data, binary=True, **options).schema
    kinds = {column.name: column.kind for column in found.features}
    assert kinds == {"y": "boolean", "half": "real", "two": "real", "mixed": "boolean"} | {
        "declared": "real",
        "gaps": "boolean",
        "gaps_missing": "boolean",
    }


def test_kinds_come_from_all_chunks(small_chunks):
    data = {"id": range(200), "x": [1] * 199 + [0.5], "y": [2**35] * 100 + [0.25] * 100}
    data |= {"b": [True] * 100 + [None] * 100, "late": [None] * 150 + [7] * 50, "never": [None] * 200}
    kinds = [c.kind for c in claims(in_chunks(data, make=dict), missing="indicator").schema.features]
    assert kinds == ["real", "real", "boolean", "boolean", "integer", "boolean", "real", "boolean"]
    with refused('column "b", row 100 ...some values are booleans and some'):
        claims(in_chunks({**data, "b": [True] * 100 + [3] * 100}, 50, make=dict), missing="indicator")
    data["y"] = [1] * 150 + [2**35] * 50
    with refused(r'"y", row 150 ...34359738368 is an integer beyond'):
        claims(in_chunks(data, make=dict), missing="indicator")


def test_text_keys_in_a_later_chunk(tmp_path, small_chunks):
    data = {"id": [str(i) for i in range(500)] + ["007"], "x": [1.5] * 501}
    pd.DataFrame(data).to_csv(tmp_path / "a.csv", index=False)
    assert_same(claims(tmp_path / "a.csv"), claims(data))
    mixed = [{"id": [1, 2], "x": [1, 2]}, {"id": ["3"], "x": [3]}]
    with refused('column "id": some chunks have integers and some have text'):
        claims(mixed)
    assert_same(claims(mixed, types={"id": "string"}), claims({"id": ["1", "2", "3"], "x": [1, 2, 3]}))


def test_quotations_are_not_cut(tmp_path, small_chunks):
    """Records with line breaks, quotation marks and separators in them, on every border of a block."""
    keys = [f'"{"a" * (i % 7)}-\n""{i}"",\n-{"b" * (i % 5)}"' for i in range(300)]
    text = "id,x\n" + "".join(f"{key},{i}\n" for i, key in enumerate(keys))
    (tmp_path / "a.csv").write_text(text, newline="")
    plain = [key[1:-1].replace('""', '"') for key in keys]
    assert_same(claims(tmp_path / "a.csv"), claims({"id": plain, "x": list(range(300))}))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"age": (700, None)}, {}, 'column "age", row 700 ...missing, the first one'),
        ({"id": (700, None)}, {}, 'column "id", row 700 ...missing, the first one'),
        ({"bmi": (701, np.inf)}, {}, 'column "bmi", row 701 ...infinite'),
        ({"age": (702, 3.5)}, {"types": {"age": "integer"}}, 'column "age", row 702 ...3.5 is not an int'),
        ({"id": (703, "p5")}, {}, 'key "id": row 703 has the same key as row 5 ...the only'),
        ({"bmi": (704, 500.0)}, {"scales": {"bmi": 22}}, '"bmi", row 704 ...500.0 is outside...scale to 21'),
        ({"bmi": (705, 500.0)}, {"ranges": {"bmi": (0, 100)}}, '"bmi", row 705 ...500.0 is outside of 0'),
    ],
)
def test_refusals_in_chunks(change, options, message, small_chunks):
    data = {name: list(column) for name, column in LONG.items()}
    for name, (row, value) in change.items():
        data[name][row] = value
    with refused(message):
        claims(in_chunks(data, make=dict), **options)


def test_chunks_that_do_not_fit_together(small_chunks):
    with refused("a chunk has the columns id, y instead of id, x"):
        claims([{"id": [1], "x": [1]}, {"id": [2], "y": [1]}])
    with refused("the source gives no chunk"):
        claims(iter([]))
    with refused("is no table"):
        claims(iter([7]))


@pytest.mark.parametrize(("top", "warned"), [(120, False), (2000, False), (10_000, True), (10**9, True)])
def test_a_range_that_leaves_no_digits(top, warned):
    """As wide as models take a column for constant, and no narrower one."""
    ages = np.random.default_rng(2).normal(58, 9, 500).clip(1, 119)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        encode({"id": np.arange(500), "age": ages}, name="t", key="id", owner="o", ranges={"age": (0, top)})
        encode(
            {"id": np.arange(5), "same": np.ones(5)}, name="t", key="id", owner="o", ranges={"same": (0, top)}
        )
        far = {"id": np.arange(500), "far": 1e9 + np.arange(500) % 3}
        encode(far, name="t", key="id", owner="o", ranges={"far": (1e9, 1e9 + 3)})
        born = np.datetime64("1960-01-01") + np.arange(500)
        days = {"id": np.arange(500), "born": born}
        encode(days, name="t", key="id", owner="o", ranges={"born": ("1800-01-01", "2200-12-31")})
    assert [one.category for one in told] == [PrecisionWarning] * warned
    assert all("narrower range" in str(one.message) for one in told)
