"""Ingestion: from a data frame or a file to the integers that are secret-shared.

This runs at the owner of the data, in the clear, before anything leaves the machine, so it is the one place
that can look at every value and say what is wrong with it. `encode` reads a source, checks it against what
was asked, hashes the keys and stores each feature as integers in fixed point; it either returns a whole table
or raises a `SchemaError` that names the table, the column and the row. Rows count from 0. Any data frame that
narwhals knows will do: each column becomes one NumPy array (or `Text`) as early as possible, and everything
after that is NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal, cast

import narwhals as nw
import numpy as np
import numpy.typing as npt
from attrs import frozen

from tercet.errors import SchemaError
from tercet.ml.keys import Text, encode_text, find_duplicate, hash_keys, series_text
from tercet.ml.reading import Declared, Request, names_of, read
from tercet.ml.schema import (
    SCALES,
    ColumnSchema,
    KeyType,
    Kind,
    Spot,
    TableSchema,
    automatic_scale,
    check_name,
    check_range,
    fixed_point,
    range_scale,
    refuse_large,
)

Missing = Literal["refuse", "indicator"]
"""What to do with missing values: refuse them, or tell where they are in a secret column beside."""

Values = npt.NDArray[Any] | Text


@frozen(eq=False)
class EncodedTable:
    """A table as integers, ready to be secret-shared.

    `keys`: uint64 of shape (2, n), the 128-bit hash of the key of each row (see `tercet.ml.keys.hash_keys`),
    whether it has one component or several. `values`: int64 of shape (features, n), row j being
    `schema.features[j]`; decode it with that column's scale.
    """

    schema: TableSchema
    keys: npt.NDArray[np.uint64]
    values: npt.NDArray[np.int64]


# Missing values: a column comes apart into where they are and what is there.


def _absent(column: Any) -> npt.NDArray[np.bool_]:
    """Tell where the values of a column are missing, shape (n,): null, masked, None or not a number."""
    if isinstance(column, nw.Series):
        nulls = column.is_null().to_numpy().astype(bool)
        if column.dtype.is_float():
            nulls[~nulls] = np.isnan(_without(column, nulls).to_numpy().astype(np.float64))
        found: npt.NDArray[np.bool_] = nulls
        return found
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.getmaskarray(column) | _absent(column.data)
    if column.dtype.kind == "f":
        return np.isnan(np.asarray(column, np.float64))
    if column.dtype.kind != "O":
        return np.zeros(len(column), np.bool_)
    absent = ("NoneType", "NAType", "NaTType")
    items = column.tolist()
    return np.array(
        [type(v).__name__ in absent or (isinstance(v, float) and v != v) for v in items], np.bool_
    )


def _without(column: Any, nulls: npt.NDArray[np.bool_]) -> Any:
    """The values of a column that are not missing."""
    if isinstance(column, np.ma.MaskedArray):
        column = column.data
    if not nulls.any():
        return column
    return column.filter((~nulls).tolist()) if isinstance(column, nw.Series) else column[~nulls]


# Columns to arrays: booleans, integers, float64 or Text; any other dtype is refused afterwards.


def _object_values(array: npt.NDArray[Any], spot: Spot) -> Values:
    """Give an array of Python objects the type that they share."""
    items = array.tolist()
    types = set(map(type, items))
    if all(issubclass(t, str) for t in types):
        return encode_text(items, spot)
    if types <= {bool, np.bool_}:
        return array.astype(np.bool_)
    numeric = all(issubclass(t, Real | Decimal | np.bool_) for t in types)
    whole = all(issubclass(t, Integral | np.bool_) for t in types)
    for dtype in (np.int64, np.uint64) if whole else (np.float64,) if numeric else ():
        try:
            return array.astype(dtype)
        except OverflowError:
            continue
    return array


def _whole(values: npt.NDArray[Any]) -> bool:
    """Tell whether these are integers, which an object array may hold beyond 64 bits."""
    if values.dtype.kind == "O":
        return all(isinstance(value, Integral) for value in values.tolist())
    return values.dtype.kind in "iu"


def _array_values(array: npt.NDArray[Any], spot: Spot) -> Values:
    if array.dtype.kind in "UT":
        return encode_text(array.tolist(), spot)
    if array.dtype.kind == "O":
        converted = _object_values(array, spot)
        if isinstance(converted, Text):
            return converted
        array = converted
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    return array


def _values(column: Any, spot: Spot) -> Values:
    """Turn a column without missing values into an array or `Text`."""
    if not isinstance(column, nw.Series):
        return _array_values(column, spot)
    if column.dtype == nw.String:
        return series_text(column, spot)
    if len(column) == 0 and column.dtype in (nw.Unknown, nw.Object):
        return Text.of([])
    if column.dtype == nw.Decimal:
        column = column.cast(nw.Float64)
    if column.dtype in (nw.Int128, nw.UInt128):
        return _array_values(np.array(column.to_list(), dtype=object), spot)
    return _array_values(column.to_numpy(), spot)


# Arrays to what is stored.


def _key(values: Values, declared: Declared | None, spot: Spot) -> tuple[Values, KeyType]:
    if declared not in (None, "integer", "string"):
        raise spot.error(f'types declares this key as {declared!r}; a key is an "integer" or a "string".')
    if isinstance(values, Text):
        if declared == "integer" and values.rows:
            raise spot.error(f"the key {values.at(0)!r} is text, and types declares integers; convert it.", 0)
        return values, "string"
    if not _whole(values):
        sort = "objects of several types" if values.dtype.kind == "O" else f"{values.dtype} values"
        raise spot.error(f"it holds {sort}; a key is an integer or text: convert it, or choose another key.")
    if declared == "string":
        return Text.of(map(str, values.tolist())), "string"
    if values.dtype.kind == "O":
        row = next(i for i, v in enumerate(values.tolist()) if not -(2**63) <= v < 2**63)
        raise spot.too_wide(values[row], row)
    return values, "integer"


def _is_number(value: object) -> bool:
    try:
        float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _refuse_text(values: Values, spot: Spot) -> SchemaError:
    """Point at the first value that is no number; if all look like numbers, at the first."""
    if isinstance(values, Text):
        rows: Sequence[Any] = [values.at(i) for i in range(values.rows)]
    else:
        rows = values.tolist()
    row = next((i for i, value in enumerate(rows) if not _is_number(value)), 0)
    what = "is text" if isinstance(rows[row], str) else f"is a {type(rows[row]).__name__}"
    return spot.error(
        f"the value {rows[row]!r} {what}, not a number; leave the column out with columns=[...], or "
        "encode it as numbers first.",
        row,
    )


def _feature(values: Values, declared: Declared | None, spot: Spot) -> tuple[npt.NDArray[Any], Kind]:
    """Check a feature against its kind: a real one becomes float64, an integer or a boolean int64."""
    if declared not in (None, "real", "integer", "boolean"):
        raise spot.error(f'types declares it as {declared!r}; a feature is "real", "integer" or "boolean".')
    if isinstance(values, Text) and values.rows == 0:
        values = np.zeros(0)
    if not isinstance(values, Text) and values.dtype.kind == "O" and _whole(values):
        if declared != "real":
            refuse_large(values, spot)
        values = np.array([float(v) if abs(v) < 2**1023 else np.inf for v in values.tolist()])
    if isinstance(values, Text) or values.dtype.kind not in "biuf":
        raise _refuse_text(values, spot)
    inferred: dict[str, Kind] = {"b": "boolean", "i": "integer", "u": "integer", "f": "real"}
    kind = declared or inferred[values.dtype.kind]
    infinite = np.isinf(values)
    if infinite.any():
        raise spot.error(
            "the value is infinite, or as good as; replace it or drop the row.", int(np.argmax(infinite))
        )
    if kind == "real":
        return values.astype(np.float64), kind
    if kind == "boolean":
        wrong, rule = (values != 0) & (values != 1), "a boolean, which is 0 or 1"
    else:
        wrong, rule = values != np.rint(values), "an integer"
    if wrong.any():
        row = int(np.argmax(wrong))
        raise spot.error(
            f'the value {values[row]} is not {rule}; correct it, or declare the column "real".', row
        )
    if values.dtype.kind != "b":
        refuse_large(values, spot)
    return values.astype(np.int64), kind


def _scale(request: Request, name: str, kind: Kind, values: npt.NDArray[Any]) -> int:
    scale = request.scales.get(name)
    if scale is None:
        ends = request.ranges.get(name)
        return automatic_scale(values, kind=kind) if ends is None else range_scale(*ends, kind=kind)
    spot = Spot(request.table, name)
    if kind == "boolean" and scale != 0:
        raise spot.error(
            f"scales gives {scale!r}, but a boolean is stored at scale 0; leave it out of scales."
        )
    if isinstance(scale, bool) or not isinstance(scale, Integral) or not SCALES[0] <= scale <= SCALES[1]:
        raise spot.error(f"scales gives {scale!r}; a scale is an integer from {SCALES[0]} to {SCALES[1]}.")
    return int(scale)


def _require_range(values: npt.NDArray[Any], ends: tuple[float, float], kind: Kind, spot: Spot) -> None:
    """Raise `SchemaError`, with row and value, for one outside of the range that its owner declared."""
    low, high = check_range(ends, kind, f'Table "{spot.table}", column "{spot.column}"')
    outside = (values < low) | (values > high)
    if outside.any():
        row = int(np.argmax(outside))
        raise spot.error(
            f"the value {values[row]} is outside of {low:g} to {high:g}, which ranges= declares; correct it, "
            "or widen the range.",
            row,
        )


def _stored(column: Any, name: str, request: Request) -> tuple[npt.NDArray[np.int64], list[ColumnSchema]]:
    """A feature as rows of integers: its values and, if some may be missing, where they are.

    A missing value is stored as the mean of the others, which enlarges no spread and is never read as one.
    """
    nulls, spot = _absent(column), Spot(request.table, name)
    if nulls.any() and request.missing == "refuse":
        raise spot.missing(nulls)
    spot = Spot(request.table, name, np.flatnonzero(~nulls))
    values, kind = _feature(_values(_without(column, nulls), spot), request.types.get(name), spot)
    ends = request.ranges.get(name)
    if ends is not None:
        _require_range(values, ends, kind, spot)
    scale = _scale(request, name, kind, values)
    there = fixed_point(values, scale, spot)
    if not nulls.any():
        return there[None], [ColumnSchema(name, kind, scale, range=ends)]
    unit = 1 if kind == "real" else 1 << scale
    stored = np.full((2, len(nulls)), round(float(there.mean()) / unit) * unit if there.size else 0, np.int64)
    stored[0, ~nulls], stored[1] = there, nulls
    beside = f"{name}_missing"
    return stored, [
        ColumnSchema(name, kind, scale, range=ends, missing=beside),
        ColumnSchema(beside, "boolean"),
    ]


def _hash(keys: Mapping[str, Values], table: str) -> npt.NDArray[np.uint64]:
    hashes = hash_keys(keys, table=table)
    twice = find_duplicate(hashes)
    if twice is not None:
        names = ", ".join(f'"{name}"' for name in keys)
        rest = "the only repetition" if twice.repeats == 1 else f"the first of {twice.repeats} repetitions"
        raise SchemaError(
            f'Table "{table}", key {names}: row {twice.row} has the same key as row {twice.earlier} '
            f"(counted from 0), {rest}; a key names one row, so merge or drop the others."
        )
    return hashes


def encode(
    source: Any,
    *,
    name: str,
    key: str | Sequence[str],
    owner: str,
    columns: Sequence[str] | None = None,
    scales: Mapping[str, int] | None = None,
    types: Mapping[str, Declared] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    missing: Missing = "refuse",
    min_count: int = 1,
) -> EncodedTable:
    """Read a table, check it and encode it as integers.

    `source`: a pandas, polars or pyarrow table, or any other that narwhals accepts (a lazy one is collected);
    a dictionary of one-dimensional columns; or the path of a .csv, .csv.gz, .tsv, .tsv.gz or .parquet file.
    `key`: the column, or columns, whose values name a row; a level of a pandas index will do, which is
    otherwise ignored. `columns`: the features to keep, in this order (default: all in the order of the
    source; `[]` keeps the key only).

    `types`: the kind of a column where the dtype does not tell: "real", "integer" or "boolean" (0 and 1) for
    a feature; "string" or "integer" for a key. A key in a CSV file is read as integers if all are written
    canonically (no "007", no "+7"), else as text; a key of integers declared "string" becomes their decimal
    text. `scales`: the fractional bits of a column, in place of `automatic_scale`. `ranges`: public bounds of
    columns; such a column takes its scale from them and not from its values. `missing`: "indicator" gives
    each column with missing values a boolean one beside it, `<name>_missing`, which everyone may know to
    exist. `min_count`: the least number of rows that a revealed figure may rest on.

    Returns an `EncodedTable`. Raises `SchemaError`, a sentence with table, column, row and the mend, for a
    file that cannot be read, unknown or repeated columns, missing (unless they are asked for), infinite or
    textual values, values out of range, and duplicate keys. The source is not changed.
    """
    check_name(name, "The table's name")
    check_name(owner, f'The owner of table "{name}"')
    chosen = None if columns is None else names_of(columns)
    request = Request(name, key, chosen, dict(scales or {}), dict(types or {}), dict(ranges or {}), missing)
    table = read(source, request)
    request.require(request.keys, list(table), "key")
    request.require(chosen or (), list(table), "columns")
    features = [column for column in (table if chosen is None else chosen) if column not in request.keys]
    request.require(request.types, [*request.keys, *features], "types")
    request.require(request.scales, features, "scales")
    request.require(request.ranges, features, "ranges")
    for column in (*request.keys, *features):
        check_name(column, f'A column of table "{name}"')

    described: list[ColumnSchema] = []
    keys: dict[str, Values] = {}
    for column in request.keys:
        spot, nulls = Spot(name, column), _absent(table[column])
        if nulls.any():
            raise spot.missing(nulls)
        values = _values(_without(table[column], nulls), spot)
        keys[column], key_type = _key(values, request.types.get(column), spot)
        described.append(ColumnSchema(column, "key", key_type=key_type))
    hashes = _hash(keys, name)
    blocks = [np.empty((0, hashes.shape[1]), np.int64)]
    for column in features:
        block, schemas = _stored(table[column], column, request)
        blocks.append(block)
        described += schemas
    schema = TableSchema(name, owner, tuple(described), hashes.shape[1], min_count)
    return EncodedTable(schema, hashes, np.concatenate(blocks))


def decode(stored: npt.ArrayLike, scale: int) -> npt.NDArray[np.float64]:
    """Turn stored integers of any shape back into numbers: `stored * 2**-scale`."""
    with np.errstate(over="ignore", under="ignore"):
        return cast("npt.NDArray[np.float64]", np.ldexp(np.asarray(stored, np.float64), -scale))
