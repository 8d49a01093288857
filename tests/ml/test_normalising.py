"""Keys that owners write in several ways match once they have agreed what to do with them."""

import re
import warnings

import numpy as np
import pytest

from tercet.errors import KeyWarning, SchemaError
from tercet.ml.ingest import encode
from tercet.ml.made_up import made_up_rows, upload_options
from tercet.ml.row_keys import Text, hash_keys
from tercet.ml.schema import ColumnSchema, TableSchema
from tercet.ml.upload import encode_for_upload

ALL = ["strip", "case", "nfc", "zeros"]


def keys_of(column, normalise=ALL, **options):
    return encode({"k": column}, name="t", key="k", owner="o", normalise=normalise, **options)


@pytest.mark.parametrize(
    ("written", "normalise", "meant"),
    [
        ([" a ", "b\t"], "strip", ["a", "b"]),
        (["Straße", "ÉA"], ["case"], ["strasse", "éa"]),
        (["e\u0301"], ["nfc"], ["é"]),
        (["007", "0", "0x7", "00a"], ["zeros"], ["7", "0", "0x7", "00a"]),
        ([" 007 ", "E\u0301 "], ALL, ["7", "é"]),
        ([7, 12], ["zeros"], ["7", "12"]),
    ],
)
def test_what_keys_become(written, normalise, meant):
    table = keys_of(written, normalise)
    np.testing.assert_array_equal(table.keys, hash_keys({"k": Text.of(meant)}, table="t"))
    assert table.schema.columns[0].key_type == "string"


@pytest.mark.parametrize(
    ("written", "normalise", "found"),
    [
        (["a", "b", "C"], (), []),
        (["A1", "B2", "C3"], (), []),  # all alike, as they are meant
        (["007", "012"], (), []),
        (
            ["Ann", "bob", "ANN", "ann"],
            (),
            ["2 have the key of another row but for case; .*normalise=['case']"],
        ),
        (["007", "7", "0x7", "a"], (), ["1 has the key of another row but for leading zeros;"]),
        (["a ", "a", "b"], (), ["1 has the key of another row but for blanks at either end;"]),
        (["a ", "b"], (), []),  # declared text may be so
        (["e\u0301", "b"], (), ["1 has a key in another Unicode form than NFC; if"]),
        (
            ["e\u0301", "\u00e9"],
            (),
            ["1 has a key in .* NFC, and 1 has the key of another row but for the Unicode"],
        ),
        (["Ann", "ann "], ["strip"], ["1 has the key .* but for case; .*normalise=['strip', 'case'],"]),
        (["Ann", "bob"], ALL, []),
        ([7, 8], (), []),
    ],
)
def test_an_owner_is_told_how_her_keys_differ(written, normalise, found):
    types = {"k": "string"} if isinstance(written[0], str) else {}
    sentences = keys_of(written, normalise, types=types).findings
    assert len(sentences) == len(found)
    for sentence, wanted in zip(sentences, found, strict=True):
        start = f"table 't', key 'k': of {len(written)} rows that were looked at, "
        assert re.match(re.escape(start) + wanted.replace("[", r"\[").replace("]", r"\]"), sentence)


def test_findings_are_of_chunks_and_of_several_columns(monkeypatch):
    """Twins may be chunks apart; of long tables the first rows are looked at."""
    chunks = [{"k": [1, 2], "s": ["x", "y"]}, {"k": [1, 1], "s": ["X", "z"]}]
    (sentence,) = encode(iter(chunks), name="t", key=["k", "s"], owner="o").findings
    assert (
        "key 'k', 's': of 4 rows that were looked at, 1 has the key of another row but for case" in sentence
    )
    monkeypatch.setattr("tercet.ml.key_findings.MOST_ROWS", 2)
    assert encode(iter(chunks), name="t", key=["k", "s"], owner="o").findings == ()


def test_findings_are_told_before_anything_is_dealt_and_stay_here(plain, monkeypatch):
    def refused(*_):
        raise AssertionError("something was sent")

    table = {"k": ["a", "A"], "x": [1.0, 2.0]}
    with pytest.warns(KeyWarning, match="but for case"):
        made = plain.upload(table, name="told", key="k", owner="o")
    assert "case" not in repr(made)
    monkeypatch.setattr(plain.cluster.client, "put_rows", refused)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KeyWarning)
        with pytest.raises(KeyWarning, match="but for case"):
            plain.upload(table, name="more", key="k", owner="o")


def test_files_and_frames_give_the_same(tmp_path):
    (tmp_path / "t.csv").write_text("k\n 007 \n8\nA\n")
    table = encode(tmp_path / "t.csv", name="t", key="k", owner="o", normalise=ALL)
    np.testing.assert_array_equal(table.keys, keys_of(["7", "8", "a"]).keys)
    assert table.schema.columns[0].normalise == ("nfc", "strip", "case", "zeros")


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        (["a", "A"], {}, r"row 1 has the same key as row 0 \(counted from 0\) after normalise="),
        (["a"], {"normalise": ["lower"]}, "names some of nfc, strip, case, zeros"),
        (["a"], {"normalise": {"k": "case"}}, "names some of nfc"),
        (["a", " NA "], {}, "row 1 .*how a missing value is written"),
        ([" a", "b"], {"normalise": ["case"]}, "row 0 .*has space at an end"),
    ],
)
def test_keys_that_are_refused(column, options, message):
    with pytest.raises(SchemaError, match=message):
        keys_of(column, **options)


def test_tables_join_that_agree(plain):
    mine = plain.upload(
        {"k": [" 007", "B", "c"], "x": [1, 2, 3]}, name="m", key="k", owner="o", normalise=ALL
    )
    other = plain.upload({"k": ["7", "b ", "d"], "y": [4, 5, 6]}, name="n", key="k", owner="p", normalise=ALL)
    found = mine.join(other, on="k").reveal()
    assert sorted(zip(found["x"], found["y"], strict=True)) == [(1, 4), (2, 5)]
    plainly = plain.upload({"k": ["7", "b", "d"], "z": [4, 5, 6]}, name="q", key="k", owner="p")
    with pytest.raises(
        SchemaError, match=r"string \(nfc, strip, case, zeros\).* and string in table 'q'.*the normalise= of"
    ):
        mine.join(plainly, on="k")


def test_schemas_say_what_was_done():
    schema = keys_of([" a "], ["strip"]).schema
    assert TableSchema.from_dict(schema.to_dict()) == schema
    made = encode_for_upload(made_up_rows(schema, 20, 0), **upload_options(schema))
    assert made.schema.columns == schema.columns
    for wrong in ({"key_type": "integer"}, {"key_type": "string", "normalise": ("lower",)}):
        with pytest.raises(SchemaError, match="a text key has some of"):
            ColumnSchema("k", "key", **{"normalise": ("strip",), **wrong})
