"""Columns to arrays: what a column of any data frame holds, checked, before anyone asks how it is stored.

A column comes apart into where its values are missing and those that are there; these become a NumPy array or
`Text` as early as possible, and everything after that is NumPy. Whatever is wrong with a value is said with
its table, column and row.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, cast
from uuid import UUID

import narwhals as nw
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml.cells import (
    INTEGER,
    NUMBER,
    Cells,
    Doubt,
    doubt_text,
    feature_cells,
    key_cells,
    mixed_truth,
    no_number,
    symbolic_cells,
)
from tercet.ml.codes import clock_codes
from tercet.ml.meanings import SYMBOLIC, Meaning, Symbolic, as_written
from tercet.ml.reading import Declared
from tercet.ml.row_keys import Text, encode_text, series_text
from tercet.ml.schema import KeyType, Kind, Spot, check_range, refuse_large

Values = npt.NDArray[Any] | Text

_TRUTH_TYPES = (bool, np.bool_)
_DAYS = np.dtype("M8[D]")
MOST_BITS = 8192
"""Of integers that errors show; Python writes no longer ones."""


# A column comes apart into where its values are missing and those that are there.


def feature_parts(column: Any, spot: Spot, declared: Declared | None) -> tuple[npt.NDArray[np.bool_], Values]:
    """Where a feature's values are missing, shape (n,), and those that are not."""
    if not isinstance(column, Cells):
        return _parts(column, spot, times=declared in (None, "date", "datetime"))
    return symbolic_cells(column, spot) if declared in SYMBOLIC else feature_cells(column, spot)


def key_parts(column: Any, spot: Spot, *, integers: bool) -> tuple[npt.NDArray[np.bool_], Values]:
    """As `feature_parts`, of a key; cells of a file are `integers`, if all are, only where these may be."""
    if not isinstance(column, Cells):
        return _parts(column, spot)
    nulls = np.array([not text for text in column.texts], np.bool_)
    if nulls.any():
        return nulls, Text.of([])
    return nulls, key_cells(column, spot, integers=integers)


def _parts(column: Any, spot: Spot, *, times: bool = False) -> tuple[npt.NDArray[np.bool_], Values]:
    if isinstance(column, nw.Series):
        column = _known(column, spot, times=times)
    nulls = _absent(column)
    return nulls, _values(_without(column, nulls), spot.only(~nulls), times=times)


def _known(column: nw.Series[Any], spot: Spot, *, times: bool) -> Any:
    """A column of a data frame, or, where its type says nothing of numbers or text, an array of its objects.

    Raises SchemaError for what is neither, such as lists, unless all of it is missing.
    """
    try:
        dtype = column.dtype
    except (TypeError, ValueError):  # narwhals has no name for some, such as decimals of negative scale
        return _objects(column)
    if dtype.is_numeric() or dtype in (nw.Boolean, nw.String, nw.Categorical, nw.Enum, nw.Date):
        return column
    if isinstance(dtype, nw.Datetime) and times:
        if dtype.time_zone is not None:
            raise spot.error(
                f"it holds times of the zone {dtype.time_zone}; a column has times without one: "
                "convert it, as with .dt.tz_convert(...).dt.tz_localize(None)."
            )
        return column.to_numpy()
    if dtype.is_nested() or dtype in (nw.Binary, nw.Time, nw.Duration, nw.Datetime):
        if len(column) and not column.is_null().all():
            native = column.to_native()
            raise _unknown(getattr(native, "dtype", None) or native.type, spot)
        return np.full(len(column), None)
    return _objects(column)


def _objects(column: nw.Series[Any]) -> npt.NDArray[Any]:
    return np.fromiter(column.to_list(), object, len(column))


def _unknown(dtype: object, spot: Spot) -> SchemaError:
    days = (
        " (timestamps to days with .dt.date)" if str(dtype).lower().startswith(("date", "timestamp")) else ""
    )
    return spot.error(
        f"it holds {dtype} values; a column holds numbers, booleans or text, a key integers, text, dates or "
        f"UUIDs: convert it{days}, or leave it out by naming the others (columns=[...], or --column)."
    )


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
    if column.dtype.kind in "fcmM":
        nowhere: npt.NDArray[np.bool_] = np.isnat(column) if column.dtype.kind in "mM" else np.isnan(column)
        return nowhere
    if column.dtype.kind not in "OT":
        return np.zeros(len(column), np.bool_)
    return np.fromiter(map(_is_nothing, column.tolist()), np.bool_, len(column))


def _is_nothing(value: object) -> bool:
    if isinstance(value, str):
        return False
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float | np.floating | np.datetime64 | np.timedelta64):
        return bool(value != value)
    return type(value).__name__ in ("NoneType", "NAType", "NaTType")


def _without(column: Any, nulls: npt.NDArray[np.bool_]) -> Any:
    """The values of a column that are not missing."""
    if isinstance(column, np.ma.MaskedArray):
        column = column.data
    if not nulls.any():
        return column
    return column.filter((~nulls).tolist()) if isinstance(column, nw.Series) else column[~nulls]


# Columns to arrays: booleans, integers, float64, days, Text, or objects that are refused afterwards.


def _values(column: Any, spot: Spot, *, times: bool) -> Values:
    """Turn a column without missing values into an array or `Text`."""
    if not isinstance(column, nw.Series):
        return _array_values(column, spot, times=times)
    if column.dtype == nw.String:
        return series_text(column, spot)
    if column.dtype in (nw.Decimal, nw.Int128, nw.UInt128, nw.Date):
        return _array_values(_objects(column), spot, times=times)
    return _array_values(column.to_numpy(), spot, times=times)


def _array_values(array: npt.NDArray[Any], spot: Spot, *, times: bool) -> Values:
    if array.dtype.kind in "UT":
        return encode_text(array.tolist(), spot)
    if array.dtype.kind == "O":
        return _object_values(array, spot)
    if times and array.dtype.kind == "M":
        return array
    if array.dtype.kind not in "biuf" and array.dtype != _DAYS:
        raise _unknown(array.dtype, spot)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _object_values(array: npt.NDArray[Any], spot: Spot) -> Values:
    """Give an array of Python objects the type that they share."""
    items = array.tolist()
    types = set(map(type, items))
    if all(issubclass(t, str) for t in types):
        return encode_text(items, spot)
    if types <= set(_TRUTH_TYPES):
        return array.astype(np.bool_)
    if types == {date}:
        return array.astype(_DAYS)
    if types == {np.datetime64}:
        return np.array(items)
    if types and all(issubclass(t, datetime) for t in types) and all(one.tzinfo is None for one in items):
        return array.astype("M8[us]")
    if all(issubclass(t, Real | Decimal | np.bool_) for t in types):
        truths = [isinstance(value, _TRUTH_TYPES) for value in items]
        if any(truths):
            raise mixed_truth(spot, truths.index(not truths[0]))
    if all(issubclass(t, Real) for t in types):
        whole = all(issubclass(t, Integral) for t in types)
        for dtype in (np.int64, np.uint64) if whole else (np.float64,):
            try:
                return array.astype(dtype)
            except OverflowError:
                continue
    for row, value in enumerate(items):
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise spot.error(f"the value is an integer of {value.bit_length()} bits; correct it.", row)
    return array


def _whole(values: npt.NDArray[Any]) -> bool:
    """Tell whether these are integers, which an object array may hold beyond 64 bits."""
    if values.dtype.kind == "O":
        return all(isinstance(value, Integral) for value in values.tolist())
    return values.dtype.kind in "iu"


# Arrays to what is stored.


def key_of(
    values: Values, declared: Declared | None, spot: Spot, *, written: bool
) -> tuple[Values, KeyType, Doubt]:
    """Check a key, of integers or text, and give its type; `written` if it comes from cells of a file."""
    if declared not in (None, "integer", "string"):
        raise spot.error(f'types declares this key as {declared!r}; a key is an "integer" or a "string".')
    if not isinstance(values, Text):
        values = _text_of(values)
    if isinstance(values, Text):
        doubt = Doubt() if declared == "string" else doubt_text(values, spot, written=written)
        if declared == "integer" and values.rows:
            row = next((row for row in range(values.rows) if not INTEGER.fullmatch(values.at(row))), 0)
            raise spot.error(
                f"the key {values.at(row)!r} is text, and types declares integers; convert it.", row
            )
        return values, "string", doubt
    if not _whole(values):
        raise spot.error(_why_no_key(values))
    if declared == "string":
        return Text.of(map(str, values.tolist())), "string", Doubt()
    if values.dtype.kind == "O":
        row = next(i for i, v in enumerate(values.tolist()) if not -(2**63) <= v < 2**63)
        raise spot.too_wide(values[row], row)
    return values, "integer", Doubt()


def _text_of(values: npt.NDArray[Any]) -> Values:
    """Days and UUIDs as the text that standards have for them, as it stands in files; the rest as it is."""
    if values.dtype == _DAYS:
        return Text.of(np.datetime_as_string(values).tolist())
    if values.dtype.kind == "O" and values.size and all(isinstance(v, UUID) for v in values.tolist()):
        return Text.of(map(str, values.tolist()))
    return values


def _why_no_key(values: npt.NDArray[Any]) -> str:
    rule = "a key is an integer or text"
    types = sorted({type(value).__name__ for value in values.tolist()})
    name = str(values.dtype) if values.dtype.kind != "O" else types[0] if len(types) == 1 else ""
    if values.dtype.kind == "f" or (not name and all(isinstance(v, Real) for v in values.tolist())):
        return (
            f"it holds {name or ' and '.join(types)} values; {rule}, and what went through a float, as it "
            "does in pandas where some are missing, may have lost digits: read it again as text or "
            "integers, or convert it if all are whole and less than 2**53."
        )
    holds = f"{name} values" if name else f"objects of several types ({', '.join(types)})"
    return f"it holds {holds}; {rule}, a date or a UUID: convert all to one of these, or choose another key."


def feature_of(
    values: Values, declared: Declared | None, spot: Spot
) -> tuple[npt.NDArray[Any], Kind, SchemaError | None]:
    """Check a feature against its kind; numbers, the kind, and the error that an integer is too large.

    That one is to be raised if the column turns out to be of integers once all rows are seen.
    """
    if declared not in (None, "real", "integer", "boolean", "date", "datetime"):
        raise spot.error(
            f"types declares it as {declared!r}; a feature is "
            '"real", "integer", "boolean", "category", "date" or "datetime".'
        )
    clock = None if isinstance(values, Text) or values.dtype.kind != "M" else values
    if declared == "date" or (declared is None and clock is not None and clock.dtype == _DAYS):
        return clock_codes(values, "date", spot), "date", None
    if declared == "datetime" or (declared is None and clock is not None):
        return clock_codes(values, "datetime", spot), "datetime", None
    if clock is not None and clock.size:
        raise _refuse_text(clock.tolist(), spot)
    if clock is not None:
        values = np.zeros(0)  # all are missing, whatever they would have been
    if isinstance(values, Text):
        if values.rows:
            raise _refuse_text([values.at(row) for row in range(values.rows)], spot)
        values = np.zeros(0)
    inferred: dict[str, Kind] = {"b": "boolean", "i": "integer", "u": "integer", "O": "integer", "f": "real"}
    large = None
    if values.dtype.kind == "O" and not _whole(values):
        values = _as_floats(values, spot)
    kind = declared or inferred[values.dtype.kind]
    if kind == "integer":
        try:
            refuse_large(values, spot)
        except SchemaError as error:
            large = error
    if values.dtype.kind == "O":
        values = _as_floats(values, spot)
    infinite = np.isinf(values)
    if infinite.any():
        raise large or spot.error(
            "the value is infinite, or as good as; replace it or drop the row.", int(np.argmax(infinite))
        )
    if kind != "real":
        _require_kind(values, kind, spot)
    return values, kind, large


def _as_floats(values: npt.NDArray[Any], spot: Spot) -> npt.NDArray[np.float64]:
    """Numbers of Python as floats, infinite where they are beyond; SchemaError for other objects."""
    items = values.tolist()
    if not all(isinstance(value, Real | Decimal) for value in items):
        raise _refuse_text(items, spot)
    return np.array([float(v) if abs(v) < 2**1023 else np.inf for v in items])


def _refuse_text(values: list[Any], spot: Spot) -> SchemaError:
    """Point at the first value that does not even look like a number, or else at the first that is none."""
    rows = [row for row, value in enumerate(values) if not isinstance(value, Real | Decimal)]
    row = next((row for row in rows if not _looks_like_a_number(values[row])), rows[0] if rows else 0)
    return no_number(values[row], spot, row)


def _looks_like_a_number(value: object) -> bool:
    return isinstance(value, str) and NUMBER.fullmatch(value.strip()) is not None


def _require_kind(values: npt.NDArray[Any], kind: Kind, spot: Spot) -> None:
    if kind == "boolean":
        wrong, rule = (values != 0) & (values != 1), "a boolean, which is 0 or 1"
    else:
        wrong, rule = values != np.rint(values), "an integer"
    if wrong.any():
        row = int(np.argmax(wrong))
        raise spot.error(
            f'the value {values[row]} is not {rule}; correct it, or declare the column "real".', row
        )


def range_of(given: Any, kind: Kind, spot: Spot) -> tuple[float, float]:
    """A declared range as numbers, of dates as days. Raises SchemaError for what is none."""
    where = f'Table "{spot.table}", column "{spot.column}"'
    if not isinstance(given, list | tuple):
        return check_range(given, kind, where)
    given = tuple(one.item() if isinstance(one, np.number) else one for one in given)
    if kind not in ("date", "datetime"):
        return check_range(given, kind, where)
    meaning = Meaning(cast("Symbolic", kind))
    low, high = check_range(
        tuple(one if isinstance(one, int | float) else meaning.code(as_written(one), where) for one in given),
        kind,
        where,
    )
    if low < meaning.ends[0] or high > meaning.ends[1]:
        raise spot.error(
            f"its range {given!r:.80} goes beyond the years 1800 to 2200, which dates are of; write it as in "
            "('1900-01-01', '2030-12-31')."
            if kind == "date"
            else f"its range {given!r:.80} goes beyond 34 years from 2010, which times are of; write it as "
            "in ('2010-01-01', '2030-12-31')."
        )
    return low, high


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
