"""Made-up rows: they have the schema of their model and no other facts of it, and their keys match."""

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import SchemaError
from tercet.ml.made_up import MATCHING, made_up_rows, upload_options
from tercet.ml.schema import INTEGER_BITS, SCALES, ColumnSchema, TableSchema, range_scale
from tercet.ml.upload import encode_for_upload

names = st.text("abcäß_-.0", min_size=1, max_size=8)
key_types = st.sampled_from(["integer", "string"])
numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@st.composite
def features(draw, name):
    """A column, and its indicator if it has one."""
    kind = draw(st.sampled_from(["real", "integer", "boolean"]))
    scale, ends = 0, None
    if kind == "integer":
        scale = draw(st.integers(0, INTEGER_BITS))
        if draw(st.booleans()):
            low = draw(st.integers(-(2**26), 2**26))
            ends = (low, draw(st.integers(low, 2**26)))
            scale = range_scale(*ends, kind=kind)
    elif kind == "real":
        scale = draw(st.integers(*SCALES))
        if draw(st.booleans()):
            ends = sorted([draw(numbers), draw(numbers)])
            scale = range_scale(*ends, kind=kind)
    missing = f"{name}_missing" if draw(st.booleans()) else None
    column = ColumnSchema(name, kind, scale, range=ends, missing=missing)
    return [column, ColumnSchema(missing, "boolean")] if missing else [column]


@st.composite
def schemas(draw, name="t", keys=None):
    """A table as an upload could describe it."""
    keys = keys or draw(st.dictionaries(names, key_types, min_size=1, max_size=2))
    columns = [ColumnSchema(f"k{key}", "key", key_type=kind) for key, kind in keys.items()]
    for feature in draw(st.sets(names, max_size=4)):
        columns += draw(features(f"f{feature}"))
    if len({column.name for column in columns}) < len(columns):
        columns = columns[: len(keys)]
    rows = draw(st.integers(0, 10**9))
    return TableSchema(name, draw(names), columns, rows, draw(st.integers(1, 100)))


@settings(deadline=None)
@given(schemas(), st.integers(20, 60), st.integers(0, 2**40))
def test_made_up_rows_have_the_schema_of_their_model(schema, rows, seed):
    made = made_up_rows(schema, rows, seed)
    encoded = encode_for_upload(made, **upload_options(schema))
    assert attrs.evolve(encoded.schema, rows=schema.rows) == schema
    for column in schema.features:
        if column.kind == "boolean" and column.name in made:
            there = made[column.name][~np.isnan(made[column.name])]
            assert set(there) == {0.0, 1.0}


@settings(deadline=None)
@given(schemas(), st.integers(0, 9))
def test_made_up_rows_follow_from_schema_and_seed_alone(schema, seed):
    """Neither how many rows there are nor the owner's least count, nor other columns, make a difference."""
    first = made_up_rows(schema, 30, seed)
    other = attrs.evolve(schema, rows=schema.rows + 1, min_count=schema.min_count + 1)
    second = made_up_rows(other, 30, seed)
    assert list(first) == list(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    if "missing" not in str([column.name for column in schema.columns]):
        fewer = attrs.evolve(schema, columns=schema.columns[: len(schema.key_names) + 1])
        for name, values in made_up_rows(fewer, 30, seed).items():
            np.testing.assert_array_equal(values, first[name])
    assert any(
        list(map(str, values)) != list(map(str, made_up_rows(schema, 30, seed + 1)[name]))
        for name, values in first.items()
    )


@settings(deadline=None)
@given(st.data(), st.integers(20, 200), st.integers(0, 9))
def test_keys_of_all_tables_overlap(data, rows, seed):
    keys = data.draw(st.dictionaries(names, key_types, min_size=1, max_size=2))
    found = []
    for name in ("a", "b", "c"):
        made = made_up_rows(data.draw(schemas(name, keys)), rows, seed)
        found.append(set(zip(*(list(made[f"k{key}"]) for key in keys), strict=True)))
    assert all(len(one) == rows for one in found)
    assert len(found[0] & found[1]) == len(set.intersection(*found)) == round(MATCHING * rows)


def test_too_few_rows_and_impossible_columns_are_refused():
    key = ColumnSchema("id", "key", key_type="integer")
    with pytest.raises(SchemaError, match="19 made-up rows are too few"):
        made_up_rows(TableSchema("t", "o", [key], 9), 19, 0)
    narrow = ColumnSchema("x", "integer", 16, range=(0.2, 0.8))
    with pytest.raises(SchemaError, match='column "x": no number of its kind'):
        made_up_rows(TableSchema("t", "o", [key, narrow], 9), 20, 0)
