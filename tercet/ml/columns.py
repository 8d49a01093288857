"""Columns to arrays: what a column of any data frame holds, checked, before anyone asks how it is stored.

A column comes apart into where its values are missing and those that are there; these become a NumPy array or
`Text` as early as possible, and everything after that is NumPy. Whatever is wrong with a value is said with
its table, column and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, cast

import narwhals as nw
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml.keys import Text, encode_text, series_text
from tercet.ml.reading import Declared
from tercet.ml.schema import KeyType, Kind, Spot, check_range, refuse_large

Values = npt.NDArray[Any] | Text


# Missing values: a column comes apart into where they are and what is there.


def absent(column: Any) -> npt.NDArray[np.bool_]:
    """Tell where the values of a column are missing, shape (n,): null, masked, None or not a number."""
    if isinstance(column, nw.Series):
        nulls = column.is_null().to_numpy().astype(bool)
        if column.dtype.is_float():
            nulls[~nulls] = np.isnan(without(column, nulls).to_numpy().astype(np.float64))
        found: npt.NDArray[np.bool_] = nulls
        return found
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.getmaskarray(column) | absent(column.data)
    if column.dtype.kind == "f":
        return np.isnan(np.asarray(column, np.float64))
    if column.dtype.kind != "O":
        return np.zeros(len(column), np.bool_)
    nothing = ("NoneType", "NAType", "NaTType")
    items = column.tolist()
    return np.array(
        [type(v).__name__ in nothing or (isinstance(v, float) and v != v) for v in items], np.bool_
    )


def without(column: Any, nulls: npt.NDArray[np.bool_]) -> Any:
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


def values_of(column: Any, spot: Spot) -> Values:
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


def key_of(values: Values, declared: Declared | None, spot: Spot) -> tuple[Values, KeyType]:
    """Check a key, of integers or text, and give its type."""
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
        f"the value {rows[row]!r} {what}, not a number; leave the column out by naming the "
        "others (columns=[...], or --column), or encode it as numbers first.",
        row,
    )


def feature_of(values: Values, declared: Declared | None, spot: Spot) -> tuple[npt.NDArray[Any], Kind]:
    """Check a feature against its kind; integers may be of any size yet."""
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
        return values, kind
    if kind == "boolean":
        wrong, rule = (values != 0) & (values != 1), "a boolean, which is 0 or 1"
    else:
        wrong, rule = values != np.rint(values), "an integer"
    if wrong.any():
        row = int(np.argmax(wrong))
        raise spot.error(
            f'the value {values[row]} is not {rule}; correct it, or declare the column "real".', row
        )
    return values, kind


def require_range(values: npt.NDArray[Any], ends: tuple[float, float], kind: Kind, spot: Spot) -> None:
    """Raise `SchemaError`, with row and value, for one outside of the range that its owner declared."""
    low, high = check_range(ends, kind, f'Table "{spot.table}", column "{spot.column}"')
    outside = (values < low) | (values > high)
    if outside.any():
        row = int(np.argmax(outside))
        raise spot.error(
            f"the value {values[row]} is outside of {low:g} to {high:g}, which is declared as its range; "
            "correct it, or widen the range.",
            row,
        )
