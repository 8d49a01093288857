"""CSV files: what rows and cells are, by the definition in docs/files.md, whose tables are parsed here."""

import codecs
import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import SchemaError
from tercet.ml import cells
from tercet.ml.ingest import decode, encode
from tercet.ml.row_keys import Text, hash_keys

PAGE = Path(__file__).parents[2] / "docs" / "files.md"


def table_of(heading):
    """The rows of the table on the page that begins with this heading, the marks of code left in."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(heading) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("| "):
            break
        rows.append(tuple(part.strip() for part in line.strip("|").split(" | ")))
    return rows


SINGLE = table_of("| cell | feature | key |")
SEVERAL = table_of("| cells | feature | key |")


def code(text):
    return re.findall(r"`([^`]+)`", text)


@pytest.fixture
def upload(tmp_path):
    """Encode a CSV file of that text, or of those bytes."""

    def run(text, name="a.csv", **options):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return encode(tmp_path / name, **{"name": "t", "key": "k", "owner": "o", **options})

    return run


def outcome(run):
    try:
        return run()
    except SchemaError:
        return "refused"


def assert_same(one, two):
    assert one.schema == two.schema
    np.testing.assert_array_equal(one.keys, two.keys)
    np.testing.assert_array_equal(one.values, two.values)


# -- the tables of the page ----------------------------------------------------------------------------------


def test_the_page_has_both_tables():
    assert len(SINGLE) > 50
    assert len(SEVERAL) > 15


@pytest.mark.parametrize(("cell", "feature", "key"), SINGLE)
def test_one_cell(upload, cell, feature, key):
    (written,) = code(cell)

    def as_feature():
        table = upload(f"k,x\n1,{written}\n", missing="indicator")
        column = table.schema.column("x")
        if column.missing:
            return "missing"
        value = float(decode(table.values[0], column.scale)[0])
        if column.kind == "boolean":
            return "true" if value else "false"
        return int(value) if column.kind == "integer" else pytest.approx(value, rel=1e-5)

    if feature not in ("missing", "refused", "true", "false"):
        feature = float(feature) if "." in feature else int(feature)
    found = outcome(as_feature)
    assert found == feature
    assert isinstance(found, int) == isinstance(feature, int)
    found = outcome(lambda: upload(f"k,x\n{written},1\n").keys.tolist())
    kind, *meant = key.partition(" ")
    if kind == "refused":
        assert found == "refused"
    else:
        (name,) = code(meant[1])
        expected = np.array([int(name)]) if kind == "integer" else Text.of([name])
        assert found == hash_keys({"k": expected}, table="t").tolist()


@pytest.mark.parametrize(("together", "feature", "key"), SEVERAL)
def test_several_cells(upload, together, feature, key):
    written = code(together)
    for column in (written, written[::-1]):
        text = "k,x\n" + "".join(f"{place},{cell}\n" for place, cell in enumerate(column))
        found = outcome(lambda text=text: upload(text, missing="indicator").schema.column("x").kind)
        assert found == feature
        text = "k,x\n" + "".join(f"{cell},1\n" for cell in column)
        found = outcome(lambda text=text: upload(text).schema.column("k").key_type)
        assert found == {"integers": "integer", "text": "string", "refused": "refused"}[key]


def test_the_words_of_the_page():
    page = PAGE.read_text(encoding="utf-8")
    words = page[page.index("is empty or one of the words") : page.index("- a number, if it is digits")]
    assert {*code(words), ""} == cells.MISSING
    assert pd._libs.parsers.STR_NA_VALUES == cells.MISSING
    assert f"`{cells.NUMBER.pattern.replace('?:', '')}`" in page


@given(st.text("0123456789+-.eE", max_size=8) | st.from_regex(cells.NUMBER, fullmatch=True))
def test_python_reads_the_numbers_of_the_definition(text):
    assert (cells._numbers([text], text) is not None) == bool(cells.NUMBER.fullmatch(text))


# -- the definition, once more, cell by cell -----------------------------------------------------------------

MISSING = {
    *("", "NA", "NaN", "nan", "-NaN", "-nan", "N/A", "n/a", "NULL", "null", "None", "<NA>", "#N/A"),
    *("#N/A N/A", "#NA", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
}
TRUTH = {"true", "True", "TRUE", "false", "False", "FALSE"}
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
REFUSED = "refused"


def feature_by_definition(column):
    """The values that a column of cells stands for, None where they are missing."""
    stripped = [cell.strip(" \t") for cell in column]
    there = [cell for cell in stripped if cell not in MISSING]
    if all(cell in TRUTH for cell in there):
        values = {cell: cell.lower() == "true" for cell in there}
    elif all(re.fullmatch(r"[+-]?[0-9]+", cell) for cell in there):
        values = {cell: int(cell) for cell in there}
        if any(abs(value) > 2**30 for value in values.values()):
            return REFUSED
    elif all(re.fullmatch(NUMBER, cell) for cell in there):
        values = {cell: float(cell) for cell in there}
        if np.inf in map(abs, values.values()):
            return REFUSED
    else:
        return REFUSED
    return [values.get(cell) for cell in stripped]


def key_by_definition(column, declared):
    """The integers or texts that a column of cells stands for."""
    if "" in column or len(set(column)) < len(column):
        return REFUSED
    if declared:
        return column
    if all(re.fullmatch(r"0|-?[1-9][0-9]*", cell) for cell in column):
        found = [int(cell) for cell in column]
        return found if all(-(2**63) <= value < 2**63 for value in found) else REFUSED
    for cell in column:
        floated = re.fullmatch(NUMBER, cell) and ("." in cell or re.search(r"[eE][+-]", cell))
        if cell in MISSING or cell in TRUTH or cell != cell.strip() or floated:
            return REFUSED
    canonical = [re.fullmatch(r"0|-?[1-9][0-9]*", cell) for cell in column]
    exponents = [re.fullmatch(NUMBER, cell) and re.search("[eE]", cell) for cell in column]
    words = [not whole and not power for whole, power in zip(canonical, exponents, strict=True)]
    wide = [whole and not -(2**63) <= int(whole[0]) < 2**63 for whole in canonical]
    return REFUSED if not any(words) and (any(exponents) or any(wide)) else column


LIKELY = ["1", "2", "0", "-7", "+5", "007", "2.5", "1.0", "1e5", "12E5", "1.2E+11", ".5", "1e400", "9" * 19]
LIKELY += [
    "true",
    "False",
    "NA",
    "nan",
    "",
    " ",
    " 5",
    "5 ",
    "0x10",
    "a",
    "ab",
    'q"r',
    "x,y",
    "é",
    "-",
    "1-2",
]
LIKELY += ["\u00a0z", "z\u3000", "l\nm", "9" * 500]
some_cells = st.sampled_from(LIKELY) | st.text("0123456789+-.eE \t\"',\nNAx", max_size=4)
numbers = st.sampled_from([c for c in LIKELY if re.fullmatch(NUMBER, c) and len(c) < 20])
column_of = st.sampled_from(
    [
        some_cells,
        numbers,
        st.sampled_from(["true", "False", "NA"]),
        st.integers(-(2**31), 2**31).map(str),
        st.integers(0, 99).map(str) | st.sampled_from(["12E5", "ab", "007", "", "NA", "9" * 20]),
        st.floats(-1e9, 1e9).map(str) | st.just("nan"),
        st.text("abc", min_size=1, max_size=3),
    ]
)


@st.composite
def files(draw):
    """A key and a feature as columns of cells, and a file of them, quoted and broken in any way allowed."""
    count = draw(st.integers(0, 12))
    unique = draw(st.integers(0, 3)) > 0
    keys = draw(st.lists(draw(column_of), min_size=count, max_size=count, unique=unique and count < 3))
    feature = draw(st.lists(draw(column_of), min_size=count, max_size=count))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))

    def write(cell):
        must = any(char in cell for char in '",\n\r') or draw(st.integers(0, 3)) == 0
        return '"' + cell.replace('"', '""') + '"' if must else cell

    lines = ["k,x", *(f"{write(k)},{write(x)}" for k, x in zip(keys, feature, strict=True))]
    blank = draw(st.lists(st.integers(0, count), max_size=2))
    for place in sorted(blank, reverse=True):
        lines.insert(place, "")
    text = end.join(lines) + draw(st.sampled_from(["", end, end * 2]))
    return keys, feature, draw(st.sampled_from([b"", codecs.BOM_UTF8])) + text.encode()


@settings(deadline=None)
@given(files(), st.integers(1, 5), st.booleans())
def test_files_of_random_cells(tmp_path_factory, file, rows, declared):
    """The same table as the definition gives, or refused as it refuses, in chunks of any size."""
    keys, feature, data = file
    path = tmp_path_factory.getbasetemp() / "random.csv"
    path.write_bytes(data)
    options = {"name": "t", "owner": "o", "key": "k", "missing": "indicator"}
    meant = key_by_definition(keys, declared), feature_by_definition(feature)
    expected = REFUSED
    if REFUSED not in meant:
        text = not meant[0] or isinstance(meant[0][0], str)
        expected = outcome(
            lambda: encode(
                {"k": np.array(meant[0], object), "x": np.array(meant[1], object)},
                **options,
                types={"k": "string"} if text else {},
            )
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tercet.ml.reading.CHUNK_ROWS", rows)
        patch.setattr("tercet.ml.ingest.CHUNK_ROWS", rows)
        found = outcome(lambda: encode(path, **options, types={"k": "string"} if declared else {}))
    if expected == REFUSED:
        assert found == REFUSED
    else:
        assert found != REFUSED
        assert_same(found, expected)


@given(st.lists(st.lists(st.sampled_from(["1", "a", '"b,c"', "", '""']), max_size=4), max_size=6))
def test_rows_of_random_lengths(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "ragged.csv"
    numbered = [[str(place), *row] for place, row in enumerate(rows)]
    path.write_text("\n".join(["k,x,y", *map(",".join, numbered)]))
    wrong = [place for place, row in enumerate(numbered) if len(row) != 3]
    if not wrong:
        assert encode(path, name="t", key="k", owner="o", columns=[]).schema.rows == len(rows)
        return
    with pytest.raises(SchemaError, match=rf'Table "t", row {wrong[0]} \(counted from 0\): it has \d cell'):
        encode(path, name="t", key="k", owner="o", columns=[])


# -- chunks --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2, 3, 1 << 18])
def chunk_rows(request, monkeypatch):
    for name in ("reading", "ingest"):
        monkeypatch.setattr(f"tercet.ml.{name}.CHUNK_ROWS", request.param)
    return request.param


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["1", "2", "3", "a"], "string"),
        (["a", "1", "2", "3"], "string"),
        (["12E5", "1", "2", "ab"], "string"),
        (["1", "2", "12E5", "3"], "column \"k\", row 2 .*'12E5' is written as a float"),
        (["9" * 20, "1", "2", "ab"], "string"),
        (["1", "2", "9" * 20, "3"], 'column "k", row 2 .*does not fit a signed 64-bit integer'),
        (["1", "2", "3", "4.0"], "column \"k\", row 3 .*'4.0' is written as a float"),
        (["ab", "cd", "e", "NA"], "column \"k\", row 3 .*'NA' is how a missing value is written"),
        (["1", "2", "3", "True"], "column \"k\", row 3 .*'True' is a boolean"),
        (["1", "2", "3", " 4"], "column \"k\", row 3 .*' 4' has space at an end"),
        (["1", "2", "3", ""], 'column "k", row 3 .*is missing'),
    ],
)
def test_keys_do_not_depend_on_chunks(upload, chunk_rows, keys, kind):
    text = "k,x\n" + "".join(f"{key},1\n" for key in keys)
    if kind != "string":
        with pytest.raises(SchemaError, match=kind):
            upload(text)
        return
    table = upload(text)
    assert table.schema.column("k").key_type == kind
    np.testing.assert_array_equal(table.keys, hash_keys({"k": Text.of(keys)}, table="t"))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["1", "2", "3", "0.5"], "real"),
        (["0.5", "1", "2", "3"], "real"),
        (["NA", "", "2", "3"], "integer"),
        (["NA", "", "NA", "true"], "boolean"),
        (["NA", "", "NA", "nan"], "real"),
        (["9" * 20, "1", "2", "0.5"], "real"),
        (["true", "false", "1", "2"], 'column "x", row 2 .*some values are booleans'),
        (["1", "NA", "NA", "true"], 'column "x", row 3 .*some values are booleans'),
        (["1", "2", "9" * 20, "3"], f'column "x", row 2 .*{"9" * 20} is an integer beyond'),
        (["1", "2", "3", "?"], "column \"x\", row 3 .*'\\?' is text, not a number"),
        (["1", "2", "3", '"2,5"'], "column \"x\", row 3 .*'2,5' is text.*decimal points"),
        (["1", "2", "1e400", "3"], 'column "x", row 2 .*infinite'),
    ],
)
def test_features_do_not_depend_on_chunks(upload, chunk_rows, column, kind):
    text = "k,x\n" + "".join(f"{place},{cell}\n" for place, cell in enumerate(column))
    if kind not in ("real", "integer", "boolean"):
        with pytest.raises(SchemaError, match=kind):
            upload(text, missing="indicator")
        return
    assert upload(text, missing="indicator").schema.column("x").kind == kind


def test_few_cells_are_held_at_a_time(upload, monkeypatch):
    monkeypatch.setattr("tercet.ml.csv_files.CHUNK_CELLS", 90)
    seen = []
    rows = "".join(f"{i},{i},{i}\n" for i in range(100))
    table = upload("k,x,y\n" + rows, watch=seen.append)
    assert (table.schema.rows, seen) == (100, [30, 30, 30, 10])


# -- what is wrong with files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "k,x\n1,2,5\n",
            "row 0 .*it has 3 cells where the first line of .* names 2 columns; a decimal comma",
        ),
        ("k,x\n1,2\n3\n", "row 1 .*it has 1 cell where .* cells are missing: correct line 3"),
        ('k,x\n1,"2\n3,4\n', r"begins in line 2 is malformed \(unexpected end of data\)"),
        ('k,x\n1,2\n3,"4"4\n', r"begins in line 3 is malformed .*those inside of it are doubled"),
        ('k,x,n\n1,2,"6 ft\n2,3,a\n3,4,"b"\n', "begins in line 2 is malformed"),
        (f'k,x\n1,"{"a" * 200_000}\n', "begins in line 2 is malformed .*field limit"),
        ("\n\n", "is empty; its first line must name"),
        ("k;x\n1;2\n", "are separated by ';' instead of ','"),
        ("k\tx\n1\t2\n", r"are separated by '\\t' instead of ','"),
        ("k|x\n1|2\n", r"are separated by '\|' instead of ','"),
        ("k,x,x\n1,2,3\n", "has two columns named 'x'"),
        (",k,x\n0,1,2\n", "has the name '', which is empty; .*index=False"),
        ("k,x \n1,2\n", "'x '; a name has no space at either end"),
        ("k,x\n1,\0\n", "line 2 has a character 0"),
        ("k,x\n1,é\n".encode("latin-1"), "the text in line 2 is not UTF-8; save it as CSV in UTF-8"),
        ("k,x\n1,2\n".encode("utf-16"), "the text in line 1 is in UTF-16; save it as CSV in UTF-8"),
        ("k,x\n1,2\n".encode("utf-16-le"), "line 1 has a character 0"),
        ("k,xß\n1,2\n".encode("cp1252"), "the text in line 1 is not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_malformed_files(upload, text, message, name):
    with pytest.raises(SchemaError, match='(?s)[Tt]able "t".*' + message):
        upload(text, name)


def test_lines_without_end_are_not_read(upload, monkeypatch):
    monkeypatch.setattr("tercet.ml.csv_files.LONGEST_LINE", 100)
    with pytest.raises(SchemaError, match="line 2 is longer than 100 characters"):
        upload("k,x\n" + "1," * 200)
    assert upload("k,x\n" + "1" * 10 + "," + " " * 86 + "1\n").schema.rows == 1


def test_half_a_file(tmp_path):
    data = gzip.compress(("k,x\n" + "".join(f"{i},{i}\n" for i in range(10_000))).encode())
    (tmp_path / "a.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(SchemaError, match="cannot be read"):
        encode(tmp_path / "a.csv.gz", name="t", key="k", owner="o")


@pytest.mark.parametrize(
    "text",
    [
        "k,x\n1,2\n3,4\n",
        "k,x\n1,2\n3,4",
        "k,x\r\n1,2\r\n3,4\r\n",
        "k,x\r1,2\r3,4\r",
        "\ufeffk,x\n1,2\n3,4\n",
        '\ufeff"k","x"\n"1","2"\n"3","4"\n',
        "k,x\n1,2\n\n3,4\n\n",
        "\n\nk,x\n\n1,2\n3,4\n\n\n",
        "k,x\r\n1,2\r\n\r\n3,4\r\n\r\n",
        "k,x\n1, 2\n3,\t4 \n",
    ],
)
def test_ways_to_write_one_table(upload, text):
    assert_same(upload(text), encode({"k": [1, 3], "x": [2, 4]}, name="t", key="k", owner="o"))


def test_stray_quotation_marks_are_characters(upload):
    table = upload('k,x\n6 ft 2" tall,1\nab"c"d,2\n')
    np.testing.assert_array_equal(
        table.keys, hash_keys({"k": Text.of(['6 ft 2" tall', 'ab"c"d'])}, table="t")
    )


def test_a_stray_mark_costs_no_second_look(upload, monkeypatch):
    """Every line is looked at once, with a mark that opens and is not closed too."""
    seen = []

    def watched(lines, **options):
        return reader((seen.append(line) or line for line in lines), **options)

    reader = csv.reader
    monkeypatch.setattr("tercet.ml.csv_files.csv.reader", watched)
    rows = [f"{i},{i}.5,abcdefghij" for i in range(2000)]
    for third in ('3,3.5,6 ft 2" tall', '3,3.5,"6 ft'):
        seen.clear()
        outcome(lambda rows=(*rows[:3], third, *rows[4:]): upload("k,x,n\n" + "\n".join(rows), columns=["x"]))
        assert len(seen) <= 2001


def test_columns_that_are_not_taken_may_hold_anything(upload):
    table = upload('k,x,n\n1,2,"a\nb"\n2,3,\n3,4,NA\n', columns=["x"])
    assert table.schema.rows == 3


def test_keys_declared_integers(upload):
    text = "k,x\n1,1\n007,2\n"
    with pytest.raises(SchemaError, match=r"row 1 .*'007' is text, and types declares integers"):
        upload(text, types={"k": "integer"})
    with pytest.raises(SchemaError, match=r"row 1 .*'7\.0' is written as a float"):
        upload(text.replace("007", "7.0"), types={"k": "integer"})
    assert_same(upload(text.replace("007", "7"), types={"k": "integer"}), upload(text.replace("007", "7")))


def test_literal_keys(upload):
    keys = ["NA", " 7", "1.5", "True", "12E5", "9" * 20, "nan"]
    text = "k,x\n" + "".join(f"{key},1\n" for key in keys)
    table = upload(text, types={"k": "string"})
    np.testing.assert_array_equal(table.keys, hash_keys({"k": Text.of(keys)}, table="t"))
    with pytest.raises(SchemaError, match="is missing"):
        upload(text + '"",1\n', types={"k": "string"})


# -- the same from typed sources -----------------------------------------------------------------------------

FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table, "dict": dict}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    "keys",
    [
        ["123.0", "124"],
        ["1.23457E+11", "ab"],
        ["1e+05", "cd"],
        ["12E5", "13E5"],
        ["nan", "ab"],
        ["None", "ab"],
        ["<NA>", "ab"],
        ["", "ab"],
        ["ab ", "cd"],
        ["ab\u00a0", "cd"],
        ["\u3000ab", "cd"],
        ["True", "ab"],
        ["ab\n", "cd"],
    ],
)
def test_text_keys_of_frames_are_refused_for_the_same_reasons(frame, keys):
    """As `astype(str)` makes them of floats, missing values and booleans."""
    source = FRAMES[frame]({"k": keys, "x": [1, 2]})
    with pytest.raises(SchemaError, match=r'column "k", row 0 .*types=\{"k": "string"\}'):
        encode(source, name="t", key="k", owner="o")
    table = encode(source, name="t", key="k", owner="o", types={"k": "string"})
    np.testing.assert_array_equal(table.keys, hash_keys({"k": Text.of(keys)}, table="t"))


@given(
    st.lists(st.one_of(some_cells, column_of.flatmap(lambda one: one)), min_size=1, max_size=8, unique=True)
)
def test_text_keys_of_frames_and_files(keys):
    """Text that a frame has as a key is the key that a file has, or refused in both; integers apart."""
    meant = key_by_definition(keys, declared=False)
    found = outcome(lambda: encode({"k": keys}, name="t", key="k", owner="o").keys.tolist())
    canonical = [re.fullmatch(r"0|-?[1-9][0-9]*", key) for key in keys]
    if all(canonical) or any(match and len(match[0]) > 18 for match in canonical):
        return  # integers in a file, text here
    expected = REFUSED if meant == REFUSED else hash_keys({"k": Text.of(keys)}, table="t").tolist()
    assert found == expected
