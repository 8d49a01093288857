"""Schemas: what everyone may know about a table, and how its numbers are stored.

A table of the lake is public in its name, owner, column names, kinds, scales and number of rows; the values
are secret. Every value is stored as an integer, `round(value * 2**scale)`, so that the arithmetic on shares
is exact, and every stored integer is small enough that sums of products over a million rows fit 64 bits. This
module fixes those bounds, picks the scale of a column, and checks whatever claims to be a schema, for it may
come from another party.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from tercet.errors import SchemaError
from tercet.ml.meanings import SYMBOLIC, Meaning, check_labels
from tercet.ml.unseen import unseen_in

Kind = Literal["key", "real", "integer", "boolean", "category", "date", "datetime"]
KeyType = Literal["integer", "string"]

INTEGER_BITS = 30
"""Every stored integer of a column that is no key satisfies `abs(stored) <= 2**INTEGER_BITS`."""

SPREAD_BITS = 16
"""The automatic scale stores one standard deviation of a column as at most `2**SPREAD_BITS`."""

VARYING_BITS = 8
"""Models take a column that spreads over less than `2**VARYING_BITS` stored units for constant."""

NORMALISING = ("nfc", "strip", "case", "zeros")
"""What owners may agree to do to keys, in the order in which it is done."""

SCALES = (-1100, 1104)
"""The smallest and the largest scale; between them lies all that a 64-bit float can need."""

_TABLE_FIELDS = ("name", "owner", "columns", "rows", "min_count", "unique")
_LATER_FIELDS = ("unique",)
"""Those that schemas of earlier releases lack."""
_COLUMN_FIELDS = ("name", "kind", "scale", "key_type", "range", "missing", "labels", "normalise")
_NAME = re.compile(r"[\w\-. ]+")


def check_name(text: object, what: str) -> str:
    """Return `text` if it can name a table or an owner, else raise `SchemaError` about `what`.

    These stand in rules, addresses and commands, so they are narrower than names of columns: a name has
    letters of any script, digits, underscores, hyphens, dots and spaces inside. It has one spelling: no space
    at either end, and composed Unicode (NFC), so that names that look alike are alike.
    """
    if not isinstance(text, str):
        raise SchemaError(f"{what} is {text!r}, which is not text; rename it.")
    if not text:
        raise SchemaError(f"{what} is empty; give it a name.")
    if not _NAME.fullmatch(text) or text != unicodedata.normalize("NFC", text).strip():
        raise SchemaError(
            f"{what} is {text!r}; a name has letters, digits, underscores, hyphens, dots and spaces, with no "
            "space at either end and accents composed with their letters (NFC): rename it."
        )
    return text


def check_column_name(text: object, what: str) -> str:
    """Return `text` if it can name a column, else raise `SchemaError` about `what`.

    Names that R, SPSS and Excel write are taken as they are: letters, marks, digits, punctuation and signs of
    all scripts, and spaces inside. What nobody can see is not: control characters and line breaks, which
    would end lines of messages and files; format characters such as those that turn the direction of text,
    and spaces other than the plain one, which make different names look alike. As for tables, a name has one
    spelling: no space at either end, and composed Unicode (NFC).
    """
    if not isinstance(text, str):
        raise SchemaError(f"{what} is {text!r}, which is not text; rename it.")
    if not text.strip():
        raise SchemaError(
            f"{what} has the name {text!r}, which is empty; give it a name, or, if it is an index that "
            "pandas has written, write the file with index=False."
        )
    if (hidden := unseen_in(text)) is not None:
        raise SchemaError(
            f"{what} is {text!r}, with {hidden} in it, which nobody can see or tell from others: rename it."
        )
    if text != unicodedata.normalize("NFC", text).strip():
        raise SchemaError(
            f"{what} is {text!r}; a name has no space at either end and accents composed with their letters "
            "(NFC): rename it."
        )
    return text


def suggest(name: object, known: Iterable[str], *, kind: str = "columns") -> str:
    """Say what a misspelt `name` may have meant, and what there is, to end an error message with."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f'Did you mean "{close[0]}"? ' if close else ""
    return hint + (f"The {kind} are: {', '.join(names)}." if names else f"There are no {kind}.")


def _ceil_log2(value: float) -> int:
    mantissa, exponent = math.frexp(value)
    return exponent - (mantissa == 0.5)


@frozen
class Spot:
    """A column of a table, as the errors about its values name it; rows count from 0.

    `rows` are the numbers of the rows that are looked at, if it is not all of them.
    """

    table: str
    column: str
    rows: npt.NDArray[np.int64] | None = field(default=None, eq=False)

    def error(self, message: str, row: int | None = None) -> SchemaError:
        """Build the error whose `message` is about this column, or about its value in one row."""
        place = f'Table "{self.table}", column "{self.column}"'
        if row is not None and self.rows is not None:
            row = int(self.rows[row])
        return SchemaError(
            f"{place}: {message}" if row is None else f"{place}, row {row} (counted from 0): {message}"
        )

    def only(self, chosen: npt.NDArray[np.bool_]) -> Spot:
        """The spot of some of these rows, those where `chosen` is true."""
        rows = np.flatnonzero(chosen) if self.rows is None else self.rows[chosen]
        return Spot(self.table, self.column, rows)

    def missing(self, nulls: npt.NDArray[np.bool_], *, more: bool = False) -> SchemaError:
        """Build the error that values are missing where `nulls`, shape (n,), is true; `more` may follow."""
        count = int(nulls.sum())
        total = "the first one" if more else "the only one" if count == 1 else f"the first of {count}"
        return self.error(
            f"the value is missing, {total}; fill or drop such rows first.", int(np.argmax(nulls))
        )

    def too_wide(self, key: object, row: int) -> SchemaError:
        """Build the error that an integer key does not fit 64 bits."""
        return self.error(
            f"the key {key} does not fit a signed 64-bit integer; declare it as text, in every table "
            f'joined on it, with types={{"{self.column}": "string"}}.',
            row,
        )


def largest_scale(values: npt.NDArray[Any]) -> int:
    """Return the largest scale at which all `values`, of which one is not 0, fit `INTEGER_BITS`."""
    return INTEGER_BITS - _ceil_log2(float(np.max(np.abs(values))))


def automatic_scale(values: npt.NDArray[Any], *, kind: Kind = "real") -> int:
    """Pick the scale of a column from its finite values, shape (n,).

    For a real column it is the largest integer e with `std(values) * 2**e <= 2**SPREAD_BITS` and
    `max(abs(values)) * 2**e <= 2**INTEGER_BITS`. The standard deviation is the population's (divided by n);
    in a constant column the maximum stands in for it; a column of zeros, or without rows, gets `SPREAD_BITS`.
    For an integer column it is the same, but from 0 to `SPREAD_BITS`, so that integers are exact. For a
    boolean one it is 0.

    A scale is public. It is an integer, so it tells the order of magnitude of the column's spread, to a
    factor of two (or that of its largest value, where the second bound decides), and nothing else.
    """
    if kind == "boolean":
        return 0
    if not values.size:
        return SPREAD_BITS
    low, high = float(np.min(values)), float(np.max(values))
    # In units of the largest value the squares neither overflow nor vanish.
    spread = float(np.std(np.ldexp(values.astype(np.float64), -magnitude(low, high)))) if low != high else 0.0
    return scale_for(low, high, spread, kind=kind)


def magnitude(low: float, high: float) -> int:
    """The power of two that bounds numbers from `low` to `high`, of which one is not 0."""
    largest = max(abs(low), abs(high))
    return _ceil_log2(largest) if largest else 0


def scale_for(low: float, high: float, spread: float, *, kind: Kind) -> int:
    """The scale of a column by its ends and its standard deviation, in units of `2**magnitude(low, high)`."""
    if low == high == 0:
        return SPREAD_BITS
    bits = magnitude(low, high)
    spread_bits = _ceil_log2(spread) + bits if spread > 0.0 else bits
    scale = min(SPREAD_BITS - spread_bits, INTEGER_BITS - bits)
    return min(max(scale, 0), SPREAD_BITS) if kind == "integer" else scale


def refuse_large(values: npt.NDArray[Any], spot: Spot) -> None:
    """Raise `SchemaError`, with row and value, if an integer of `values`, shape (n,), is too large."""
    bound = 1 << INTEGER_BITS
    large = values > bound if values.dtype.kind == "u" else (values > bound) | (values < -bound)
    if large.any():
        row = int(np.argmax(large))
        raise spot.error(
            f"the value {values[row]} is an integer beyond 2**{INTEGER_BITS}; declare the column real with "
            f'types={{"{spot.column}": "real"}}.',
            row,
        )


def fixed_point(values: npt.NDArray[Any], scale: int, spot: Spot) -> npt.NDArray[np.int64]:
    """Store finite numbers, shape (n,), as `round(value * 2**scale)`, halves to even.

    Raises `SchemaError`, with row and value, if one is beyond `INTEGER_BITS`.
    """
    with np.errstate(over="ignore", under="ignore"):
        stored = np.rint(np.ldexp(values.astype(np.float64), scale))
    outside = np.abs(stored) > 1 << INTEGER_BITS
    if outside.any():
        row = int(np.argmax(outside))
        raise spot.error(
            f"the value {values[row]} is outside the fixed-point range at scale {scale}: it would be stored "
            f"as {stored[row]:.6g}, beyond 2**{INTEGER_BITS}; lower the scale to {largest_scale(values)} or "
            "less.",
            row,
        )
    return stored.astype(np.int64)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_tuple(given: object) -> Any:
    """What msgpack gives back as a list, as the tuple that it was."""
    return tuple(given) if isinstance(given, list) else given


@frozen
class ColumnSchema:
    """One column: its name, its kind and how its values are stored.

    `scale` is the number of fractional bits: the stored integer is `round(value * 2**scale)`. It may be
    negative, for huge values; it is 0 for booleans and keys. `key_type` says what a key column held before it
    was hashed, and is None for every other kind. `range` are bounds that the owner declared and checked;
    `missing` names the boolean column that is 1 where the value is missing, if some may be. `labels` are
    those of a category, whose codes are their places. `normalise` says what was done to a text key before it
    was hashed. Raises `SchemaError` if these do not fit together.
    """

    name: str
    kind: Kind
    scale: int = 0
    key_type: KeyType | None = None
    range: tuple[float, float] | None = field(default=None, converter=_as_tuple)
    missing: str | None = None
    labels: tuple[str, ...] | None = field(default=None, converter=_as_tuple)
    normalise: tuple[str, ...] = field(default=(), converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        check_column_name(self.name, "A column's name")
        where = f'Column "{self.name}"'
        if self.kind not in get_args(Kind):
            raise SchemaError(f"{where} has kind {self.kind!r}; the kinds are {', '.join(get_args(Kind))}.")
        if not _is_int(self.scale) or not SCALES[0] <= self.scale <= SCALES[1]:
            raise SchemaError(
                f"{where} has scale {self.scale!r}; a scale is an integer from {SCALES[0]} to {SCALES[1]}."
            )
        if self.kind in ("key", "boolean", *SYMBOLIC) and self.scale != 0:
            raise SchemaError(f"{where} has kind {self.kind} and scale {self.scale}; its scale must be 0.")
        if self.range is not None:
            check_range(self.range, self.kind, where)
        if self.missing is not None:
            check_column_name(self.missing, f"{where}: the column that tells where it is missing")
        allowed: tuple[object, ...] = get_args(KeyType) if self.kind == "key" else (None,)
        if self.key_type not in allowed:
            options = " or ".join(repr(option) for option in allowed)
            raise SchemaError(
                f"{where} has kind {self.kind} and key type {self.key_type!r}; it must be {options}."
            )
        if (self.kind == "category") != (self.labels is not None):
            raise SchemaError(
                f"{where} has kind {self.kind} and labels {self.labels!r:.80}; only categories do."
            )
        if self.labels is not None:
            check_labels(self.labels, where)
        known = isinstance(self.normalise, tuple) and all(one in NORMALISING for one in self.normalise)
        if not known or (self.normalise and self.key_type != "string"):
            raise SchemaError(
                f"{where} has kind {self.kind} and normalise={self.normalise!r:.80}; a text key has some of "
                f"{', '.join(NORMALISING)}."
            )

    @property
    def written(self) -> str:
        """What a key held before it was hashed, and what was done to it."""
        return f"{self.key_type} ({', '.join(self.normalise)})" if self.normalise else str(self.key_type)

    @property
    def meaning(self) -> Meaning | None:
        """What its integers stand for, if not for themselves."""
        if self.kind == "category" or self.kind == "date" or self.kind == "datetime":
            return Meaning(self.kind, self.labels or ())
        return None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Public bounds of its values: a declared range, or what labels, dates and times have anyway."""
        return self.range if self.range is not None or self.meaning is None else self.meaning.ends


def check_range(given: object, kind: Kind, where: str) -> tuple[float, float]:
    """Return a declared range as two numbers, else raise `SchemaError` about the column named `where`."""
    numbers = tuple(given) if isinstance(given, list | tuple) else ()
    if len(numbers) != 2 or not all(isinstance(n, int | float) and abs(n) < 2**1023 for n in numbers):
        raise SchemaError(f"{where} has range {given!r:.80}; a range is two finite numbers, as in (0, 120).")
    low, high = map(float, numbers)
    if low > high:
        raise SchemaError(f"{where} has range {given!r:.80}; the first number must not exceed the second.")
    if kind in ("key", "boolean", "category"):
        raise SchemaError(
            f"{where} has kind {kind} and range {given!r:.80}; only numbers and dates have a range."
        )
    # What is made of dates may lie beyond those that an owner may upload, but is stored as they are.
    if kind in SYMBOLIC and not all(n.is_integer() and abs(n) <= 1 << INTEGER_BITS for n in (low, high)):
        raise SchemaError(
            f"{where} has kind {kind} and range {given!r:.80}; its ends are whole days or seconds, of at "
            f"most 2**{INTEGER_BITS}."
        )
    return low, high


def range_scale(low: float, high: float, *, kind: Kind) -> int:
    """The scale of a column that lies in a declared range: like `automatic_scale`, from the range alone.

    What lies between two bounds has a standard deviation of at most half their distance (Popoviciu 1935).
    """
    return automatic_scale(np.array([low, high]), kind=kind)


def _all_columns(columns: Iterable[ColumnSchema]) -> tuple[ColumnSchema, ...]:
    return tuple(columns)


@frozen
class TableSchema:
    """A table: its name, its owner's name, its columns, keys first, and its number of rows.

    `min_count` is the owner's rule for disclosures: the least number of rows that a revealed figure may rest
    on. Unless keys are `unique`, several rows may have the same. Raises `SchemaError` for a name that cannot
    be one, two columns of one name, a key after a feature, or a count that is no natural number.
    """

    name: str
    owner: str
    columns: tuple[ColumnSchema, ...] = field(converter=_all_columns)
    rows: int
    min_count: int = 1
    unique: bool = True

    def __attrs_post_init__(self) -> None:
        check_name(self.name, "A table's name")
        check_name(self.owner, f'The owner of table "{self.name}"')
        seen: set[str] = set()
        features = False
        for column in self.columns:
            if not isinstance(column, ColumnSchema):
                raise SchemaError(f'Table "{self.name}": {column!r} is no ColumnSchema.')
            if column.name in seen:
                raise SchemaError(f'Table "{self.name}" has two columns named "{column.name}"; rename one.')
            if column.kind == "key" and features:
                raise SchemaError(
                    f'Table "{self.name}": key column "{column.name}" must stand before the features.'
                )
            seen.add(column.name)
            features |= column.kind != "key"
        if not _is_int(self.rows) or self.rows < 0:
            raise SchemaError(
                f'Table "{self.name}" has {self.rows!r} rows; a row count is an integer of 0 or more.'
            )
        if not _is_int(self.min_count) or self.min_count < 1:
            raise SchemaError(
                f'Table "{self.name}" has min_count={self.min_count!r}; it is a whole number of at least 1, '
                "the least number of rows that a revealed figure may rest on."
            )
        if not isinstance(self.unique, bool):
            raise SchemaError(f'Table "{self.name}" has unique={self.unique!r}; it is True or False.')

    def resting_on(self, least: int) -> TableSchema:
        """The same where figures rest on so many rows at least."""
        return evolve(self, min_count=max(self.min_count, least))

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key columns, in the order in which they were hashed."""
        return tuple(column.name for column in self.columns if column.kind == "key")

    @property
    def features(self) -> tuple[ColumnSchema, ...]:
        """The columns that are no keys, in the order of the rows of `EncodedTable.values`."""
        return tuple(column for column in self.columns if column.kind != "key")

    def column(self, name: str) -> ColumnSchema:
        """Return the column of that name; `SchemaError`, with the names there are, if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        known = [column.name for column in self.columns]
        raise SchemaError(f'Table "{self.name}" has no column {name!r}. {suggest(name, known)}')

    def to_dict(self) -> dict[str, object]:
        """The schema as plain values for msgpack; `from_dict` is the inverse."""
        columns = [{name: getattr(column, name) for name in _COLUMN_FIELDS} for column in self.columns]
        return {name: getattr(self, name) for name in _TABLE_FIELDS} | {"columns": columns}

    @classmethod
    def from_dict(cls, fields: object) -> TableSchema:
        """Rebuild a schema from what `to_dict` gave, perhaps elsewhere; `SchemaError` for anything else."""
        names = tuple(
            name
            for name in _TABLE_FIELDS
            if name not in _LATER_FIELDS or not isinstance(fields, Mapping) or name in fields
        )
        top = _fields(fields, names, "A table's schema")
        items = top["columns"]
        if not isinstance(items, list | tuple):
            raise SchemaError(
                f"The schema of table {top['name']!r} has columns {items!r}; it must be a list."
            )
        what = f"A column's schema in table {top['name']!r}"
        parts = [_fields(_with_labels(item), _COLUMN_FIELDS, what) for item in items]
        columns = tuple(ColumnSchema(**cast("dict[str, Any]", part)) for part in parts)
        return cls(**cast("dict[str, Any]", {**top, "columns": columns}))


def _with_labels(given: object) -> object:
    """A column's schema as an earlier release has written it, which knew no labels and left keys alone."""
    return {"labels": None, "normalise": (), **given} if isinstance(given, Mapping) else given


def _fields(given: object, names: tuple[str, ...], what: str) -> dict[str, object]:
    if not isinstance(given, Mapping) or set(given) != set(names):
        found = sorted(map(str, given)) if isinstance(given, Mapping) else repr(given)
        raise SchemaError(f"{what} must have exactly the fields {', '.join(names)}; it has {found}.")
    return dict(given)
