"""Keys that owners write in several ways match once they have agreed what to do with them."""

import numpy as np
import pytest

from tercet.errors import SchemaError
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
