"""Ingestion: from a data frame or a file to the integers that are secret-shared.

This runs at the owner of the data, in the clear, before anything leaves the machine, so it is the one place
that can look at every value and say what is wrong with it. `encode` reads a source chunk by chunk, checks it
against what was asked, hashes the keys and lets the numbers wait in a spool until all have been seen: only
then are the kinds and scales of columns known, and rows can be asked for as integers in fixed point. It
either returns a whole table or raises a `SchemaError` that names the table, the column and the row. Rows
count from 0. Neither source nor table need fit in memory.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, cast

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PrecisionWarning, SchemaError
from tercet.ml.cells import Cells, Doubt, doubt_text, mixed_truth
from tercet.ml.codes import Labels
from tercet.ml.columns import Values, feature_of, feature_parts, key_of, key_parts, range_of, require_range
from tercet.ml.key_findings import KeyFindings
from tercet.ml.meanings import SYMBOLIC
from tercet.ml.normalising import normalised
from tercet.ml.reading import CHUNK_ROWS, Declared, Request, read
from tercet.ml.row_keys import Text, find_duplicate_in_parts, hash_keys
from tercet.ml.schema import (
    SCALES,
    VARYING_BITS,
    ColumnSchema,
    KeyType,
    Kind,
    Spot,
    TableSchema,
    check_column_name,
    check_name,
    fixed_point,
    magnitude,
    range_scale,
    scale_for,
)
from tercet.ml.spool import RowSpool

Missing = Literal["refuse", "indicator"]
"""What to do with missing values: refuse them, or tell where they are in a secret column beside."""
Numbers = npt.NDArray[np.float64]
KINDS: tuple[Kind, ...] = ("boolean", "integer", "real")
"""Kinds of features, each of which holds the values of those before it."""


@attrs.frozen(eq=False)
class Feature:
    """How a feature is stored. `place` is its row of the spool; `fill` what stands for missing values."""

    place: int
    schema: ColumnSchema
    spread: float
    """Standard deviation, as a number."""
    fill: int = 0
    codes: Numbers | None = None
    """Of a category, the code of each number in the spool."""


@attrs.frozen(eq=False)
class EncodedTable:
    """A table as integers, ready to be secret-shared; rows may be read piece by piece, from one thread.

    A feature that may be missing is two columns of its schema. `findings` on keys are for the owner alone.
    """

    schema: TableSchema
    features: tuple[Feature, ...]
    content: bytes
    """32 bytes that stand for its contents; they tell on them, and stay with the owner."""
    _hashes: RowSpool
    _numbers: RowSpool
    findings: tuple[str, ...] = ()

    def key_rows(self, start: int, stop: int) -> npt.NDArray[np.uint64]:
        """The 128-bit hashes of the keys of some rows, uint64 (2, n); see `tercet.ml.row_keys.hash_keys`."""
        return cast("npt.NDArray[np.uint64]", self._hashes.read(start, stop))

    def value_rows(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The features of some rows, int64 (features, n), row j being `schema.features[j]`."""
        numbers = cast("Numbers", self._numbers.read(start, stop))
        rows = [np.empty((0, stop - start), np.int64)]
        rows += [
            _stored(numbers[feature.place], feature, self.schema.name, start) for feature in self.features
        ]
        return np.concatenate(rows)

    def value_words(self, start: int, stop: int) -> npt.NDArray[np.uint64]:
        """The features of some rows as words of the ring."""
        return self.value_rows(start, stop).view(np.uint64)

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """The hashes of all rows."""
        return self.key_rows(0, self.schema.rows)

    @property
    def values(self) -> npt.NDArray[np.int64]:
        """The features of all rows; decode them with their columns' scales."""
        return self.value_rows(0, self.schema.rows)


def _stored(numbers: Numbers, feature: Feature, table: str, start: int) -> npt.NDArray[np.int64]:
    """Some values of a feature as integers `(1, n)`; `(2, n)` with where they are missing, if some are."""
    nulls = np.isnan(numbers)
    there = np.flatnonzero(~nulls)
    spot = Spot(table, feature.schema.name, start + there)
    values = numbers[there] if feature.schema.kind == "real" else numbers[there].astype(np.int64)
    if feature.codes is not None:
        values = feature.codes[values]
    stored = np.full((1 if feature.schema.missing is None else 2, numbers.size), feature.fill, np.int64)
    stored[0, there] = fixed_point(values, feature.schema.scale, spot)
    if feature.schema.missing is not None:
        stored[1] = nulls
    return stored


# -- the first pass: what is known once all rows have been seen ----------------------------------------------


class _Column:
    """What is known of a feature after some chunks."""

    def __init__(self, place: int, name: str, request: Request) -> None:
        self.place, self.name = place, name
        self.kind: Kind | None = None
        self.empty: Kind = "boolean"
        """Of chunks without values, which tell the kind only if no other does."""
        self.low, self.high = np.inf, -np.inf
        self.missing = 0
        self.range: tuple[float, float] | None = None
        """The declared one, as numbers."""
        self._bits = True
        """Whether every value so far is 0 or 1."""
        self._request = request
        self._large: SchemaError | None = None
        self._truth: bool | None = None
        """Whether its values are booleans, and not numbers."""
        declared = request.declared(name)
        self.labels = Labels(request.categories.get(name)) if declared == "category" else None

    def add(self, column: Any, start: int) -> Numbers:
        """Check the values of a chunk that begins with row `start`; as numbers, missing ones as NaN."""
        request = self._request
        spot = Spot(request.table, self.name, start + np.arange(len(column)))
        declared = request.declared(self.name)
        nulls, found = feature_parts(column, spot, declared)
        if nulls.any() and request.missing == "refuse":
            raise spot.missing(nulls, more=start + len(column) >= CHUNK_ROWS or isinstance(column, Cells))
        self.missing += int(nulls.sum())
        spot = spot.only(~nulls)
        kind: Kind = "category"
        if self.labels is not None:
            self.labels.expect(column)
            values, large = self.labels.add(found, spot), None
        else:
            values, kind, large = feature_of(found, declared, spot)
        if self.name in request.ranges:
            self.range = range_of(request.ranges[self.name], kind, spot)
            require_range(values, self.range, kind, spot)
        if values.size:
            self._note(values, kind, spot)
            self._large = self._large or large
        else:
            self.empty = max(self.empty, kind, key=(*KINDS, *SYMBOLIC).index)
        numbers = np.full(len(nulls), np.nan)
        numbers[~nulls] = values
        return numbers

    def _note(self, values: npt.NDArray[Any], kind: Kind, spot: Spot) -> None:
        truth = values.dtype.kind == "b"
        if self._truth is not None and truth != self._truth:
            raise mixed_truth(spot, 0)
        self._truth = truth
        self.kind = kind if self.kind is None else _joint(self.kind, kind, spot)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self._bits = self._bits and bool(((values == 0) | (values == 1)).all())

    def settle(self, *, binary: bool) -> tuple[Kind, float, float]:
        """The kind of the column and its ends; with `binary`, undeclared numbers 0 and 1 are booleans.

        Raises SchemaError for integers that are too large.
        """
        kind = self.kind or self.empty
        low, high = (self.low, self.high) if self.kind else (0.0, 0.0)
        if kind == "integer" and self._large is not None:
            raise self._large
        free = self.name not in self._request.types and self.name not in self._request.ranges
        if binary and free and self.kind and self._bits and kind not in SYMBOLIC:
            kind = "boolean"
        return kind, low, high


def _joint(before: Kind, kind: Kind, spot: Spot) -> Kind:
    """The kind that holds the values of two. Raises SchemaError if none does."""
    if before == kind:
        return kind
    if kind in SYMBOLIC or before in SYMBOLIC:
        raise spot.error(f"some chunks have a {before} and some a {kind}; give all chunks the same type.")
    return max(before, kind, key=KINDS.index)


class _Key:
    """What is known of a key column after some chunks."""

    def __init__(self, name: str, request: Request) -> None:
        self.name = name
        self.type: KeyType | None = None
        self._doubt = Doubt()
        self._request = request
        self._seen = False

    def add(self, column: Any, start: int) -> Values:
        """Check the keys of a chunk that begins with row `start`. Raises SchemaError, or `_MixedKeyError`."""
        request, written = self._request, isinstance(column, Cells)
        declared = request.types.get(self.name)
        spot = Spot(request.table, self.name, start + np.arange(len(column)))
        apart = declared != "string" and self.name not in request.as_text and not request.normalise
        nulls, found = key_parts(column, spot, integers=apart)
        if nulls.any():
            raise spot.missing(nulls, more=start + len(column) >= CHUNK_ROWS or written)
        wanted: Declared | None = "string" if request.normalise else declared
        values, key_type, doubt = key_of(found, wanted, spot, written=written)
        if request.normalise and isinstance(values, Text):
            values = normalised(values, [name for name in request.normalise if name != "case"])
            if declared != "string":  # looked at as it was written, but for what does not count
                doubt = doubt_text(values, spot, written=written)
            values = normalised(values, [name for name in request.normalise if name == "case"])
        self._doubt |= doubt
        if len(column) or self.type is None:
            if self._seen and key_type != self.type:
                raise _MixedKeyError(self.name, spot, again=written)
            self.type, self._seen = key_type, self._seen or bool(len(column))
        return values

    def settle(self) -> KeyType:
        """The type of the key. Raises SchemaError for numbers that are ids only where others are words."""
        if self._doubt.error is not None and not self._doubt.word:
            raise self._doubt.error
        return cast("KeyType", self.type)


class _Survey:
    """Everything that the first pass finds out: keys and numbers go to spools, columns are summed up."""

    def __init__(self, request: Request, columns: Sequence[str]) -> None:
        self.request = request
        request.require(request.keys, columns, "key")
        request.require(request.columns or (), columns, "columns")
        chosen = columns if request.columns is None else request.columns
        names = [name for name in chosen if name not in request.keys]
        request.require(request.types, [*request.keys, *names], "types")
        request.require(request.scales, names, "scales")
        request.require(request.ranges, names, "ranges")
        request.require(request.categories, names, "categories")
        for name in (*request.keys, *names):
            check_column_name(name, f'A column of table "{request.table}"')
        self.keys = [_Key(name, request) for name in request.keys]
        self.columns = [_Column(place, name, request) for place, name in enumerate(names)]
        self.hashes, self.numbers = RowSpool(np.uint64, 2), RowSpool(np.float64, len(names))
        self.findings = KeyFindings(request.table, request.keys, request.normalise)

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the next rows. Raises SchemaError, or `_MixedKeyError`."""
        start = self.hashes.rows
        keys = {key.name: key.add(chunk[key.name], start) for key in self.keys}
        hashes = hash_keys(keys, table=self.request.table)
        numbers = np.empty((len(self.columns), hashes.shape[1]))
        for column in self.columns:
            numbers[column.place] = column.add(chunk[column.name], start)
        self.hashes.append(hashes)
        self.findings.add(keys, hashes)
        self.numbers.append(numbers)

    def blocks(self) -> Iterator[tuple[int, Numbers]]:
        """The numbers of all features again, some rows at a time, with the number of the first row."""
        for start in range(0, self.numbers.rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, self.numbers.rows)
            yield start, cast("Numbers", self.numbers.read(start, stop))

    def finish(
        self, *, owner: str, min_count: int, label_count: int, unique: bool, binary: bool
    ) -> EncodedTable:
        """The whole table. Raises SchemaError for keys that occur twice, and values that cannot be stored."""
        described = [
            ColumnSchema(key.name, "key", key_type=key.settle(), normalise=self.request.normalise)
            for key in self.keys
        ]
        if unique:
            self._check_keys()
        settled = [column.settle(binary=binary) for column in self.columns]
        moments = self._moments([(low, high) for _, low, high in settled])
        features, least = [], max(min_count, label_count)
        for column, (kind, low, high), (spread, mean) in zip(self.columns, settled, moments, strict=True):
            feature = self._feature(column, kind, (low, high), spread, mean, least)
            features.append(feature)
            described.append(feature.schema)
            if feature.schema.missing is not None:
                described.append(ColumnSchema(feature.schema.missing, "boolean"))
        schema = TableSchema(self.request.table, owner, tuple(described), self.hashes.rows, min_count, unique)
        digests = self.hashes.digest() + self.numbers.digest()
        content = hashlib.blake2b(repr(schema).encode() + digests, digest_size=32).digest()
        spools, found = (self.hashes, self.numbers), tuple(self.findings.sentences())
        return EncodedTable(schema, tuple(features), content, *spools, found)

    def _check_keys(self) -> None:
        twice = find_duplicate_in_parts(
            lambda start, stop: cast("npt.NDArray[np.uint64]", self.hashes.read(start, stop)),
            self.hashes.rows,
        )
        if twice is not None:
            names = ", ".join(f'"{name}"' for name in self.request.keys)
            after = f" after normalise={list(self.request.normalise)}" if self.request.normalise else ""
            count = twice.repeats
            rest = "the only repetition" if count == 1 else f"the first of {count} repetitions"
            raise SchemaError(
                f'Table "{self.request.table}", key {names}: row {twice.row} has the same key as row '
                f"{twice.earlier} (counted from 0){after}, {rest}; a key names one row, so merge or drop the "
                "others, or let keys repeat with unique=False."
            )

    def _moments(self, ends: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Standard deviation and mean of each feature, of the values that are there.

        Deviations are in units of the column's magnitude, where squares neither overflow nor vanish, and
        added up block by block (Chan, Golub, LeVeque 1983).
        """
        units = [magnitude(low, high) for low, high in ends]
        count, mean, squares = (np.zeros(len(ends)) for _ in range(3))
        for _, block in self.blocks():
            for place, unit in enumerate(units):
                values = np.ldexp(block[place][~np.isnan(block[place])], -unit)
                if values.size:
                    before, total = count[place], count[place] + values.size
                    step = values.mean() - mean[place]
                    squares[place] += values.size * (values.var() + step**2 * before / total)
                    mean[place] += step * values.size / total
                    count[place] = total
        spreads = np.sqrt(squares / np.maximum(count, 1))
        return [(float(s), float(np.ldexp(m, u))) for s, m, u in zip(spreads, mean, units, strict=True)]

    def _feature(
        self,
        column: _Column,
        kind: Kind,
        ends: tuple[float, float],
        spread: float,
        mean: float,
        least: int,
    ) -> Feature:
        request, (low, high) = self.request, ends
        declared = column.range
        scale = request.scales.get(column.name)
        if scale is not None:
            scale = _given_scale(scale, kind, Spot(request.table, column.name))
        elif kind == "boolean" or kind in SYMBOLIC:
            scale = 0
        elif declared is not None:
            scale = range_scale(*declared, kind=kind)
        else:
            scale = scale_for(low, high, 0.0 if low == high else spread, kind=kind)
        beside = f"{column.name}_missing" if column.missing else None
        if column.labels is not None:
            labels, codes = column.labels.settle(least, Spot(request.table, column.name))
            schema = ColumnSchema(column.name, kind, missing=beside, labels=labels)
            return Feature(column.place, schema, 0.0, codes=codes)
        schema = ColumnSchema(column.name, kind, scale, range=declared, missing=beside)
        unit = 1 if kind == "real" else 1 << scale
        deviation = float(np.ldexp(spread, magnitude(low, high)))
        feature = Feature(column.place, schema, deviation, round(float(np.ldexp(mean, scale)) / unit) * unit)
        self._check(feature, ends)
        if declared is not None and kind not in SYMBOLIC:
            _warn_of_width(declared, deviation, schema, request.table)
        return feature

    def _check(self, feature: Feature, ends: tuple[float, float]) -> None:
        """Raise SchemaError, with row and value, if one of the values does not fit at its scale."""
        spot = Spot(self.request.table, feature.schema.name)
        try:
            fixed_point(np.array(ends), feature.schema.scale, spot)
        except SchemaError:
            for start, block in self.blocks():
                _stored(block[feature.place], feature, self.request.table, start)
            raise


class _MixedKeyError(Exception):
    """A chunk has text where chunks before it have integers; `again` if the source can be read again."""

    def __init__(self, name: str, spot: Spot, *, again: bool) -> None:
        super().__init__(name)
        self.name, self.spot, self.again = name, spot, again


def _given_scale(scale: int, kind: Kind, spot: Spot) -> int:
    if kind == "boolean" and scale != 0:
        raise spot.error(
            f"scales gives {scale!r}, but a boolean is stored at scale 0; leave it out of scales."
        )
    if isinstance(scale, bool) or not isinstance(scale, Integral) or not SCALES[0] <= scale <= SCALES[1]:
        raise spot.error(f"scales gives {scale!r}; a scale is an integer from {SCALES[0]} to {SCALES[1]}.")
    return int(scale)


def _survey(source: Any, request: Request, watch: Callable[[int], None] | None) -> _Survey:
    survey: _Survey | None = None
    try:
        for chunk in read(source, request):
            survey = survey or _Survey(request, list(chunk))
            survey.add(chunk)
            if watch is not None:
                watch(len(next(iter(chunk.values()))))
    except _MixedKeyError as found:
        if not found.again:
            raise found.spot.error(
                "some chunks have integers and some have text; convert the column, or declare it text with "
                f'types={{"{found.name}": "string"}}.'
            ) from None
        # Integers in a file are those that are written as text would be.
        return _survey(source, attrs.evolve(request, as_text=request.as_text | {found.name}), watch)
    return cast("_Survey", survey)


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
    categories: Mapping[str, Sequence[str]] | None = None,
    normalise: str | Sequence[str] = (),
    min_count: int = 1,
    label_count: int = 1,
    unique: bool = True,
    binary: bool = False,
    watch: Callable[[int], None] | None = None,
) -> EncodedTable:
    """Read a table, check it and encode it as integers.

    `source`: a pandas, polars or pyarrow table, or any other that narwhals accepts (a lazy one is collected);
    a dictionary of one-dimensional columns; an iterator or a list of those, which are chunks of one table; or
    the path of a .csv, .csv.gz, .tsv, .tsv.gz or .parquet file. `key`: the column, or columns, whose values
    name a row; a level of a pandas index will do, which is otherwise ignored. `columns`: the features to
    keep, in this order (default: all in the order of the source; `[]` keeps the key only).

    `types`: the kind of a column where the dtype does not tell: "real", "integer" or "boolean" (0 and 1) for
    a feature, where "integer" checks that numbers are whole; "string" or "integer" for a key; "category" for
    text, whose values then are public as its labels; "date" and "datetime" for what is written as these.
    `categories`: the labels of categories, in their order, where the data shall not tell them. `scales`,
    `ranges`: fractional bits and public bounds of columns. `missing`: "refuse", or "indicator" for a boolean
    column beside that tells where. `normalise`: what is done to keys before they are hashed, of "nfc",
    "strip", "case" and "zeros"; they are text then. `min_count`: the owner's rule, which labels from the data
    keep too; `label_count`: in how many rows these have to stand besides. `binary`: undeclared numbers that
    are all 0 or 1 are booleans. `watch` is told rows as they are read.

    Returns an `EncodedTable`. Raises `SchemaError`, a sentence with table, column, row and the mend, for a
    file that cannot be read, unknown or repeated columns, missing (unless they are asked for), infinite or
    textual values, values out of range, and duplicate keys unless `unique` is False. The source is not
    changed.
    """
    check_name(name, "The table's name")
    check_name(owner, f'The owner of table "{name}"')
    request = Request.of(name, key, columns, scales, types, ranges, missing, categories, normalise)
    return _survey(source, request, watch).finish(
        owner=owner, min_count=min_count, label_count=label_count, unique=unique, binary=binary
    )


def decode(stored: npt.ArrayLike, scale: int) -> Numbers:
    """Turn stored integers of any shape back into numbers: `stored * 2**-scale`."""
    with np.errstate(over="ignore", under="ignore"):
        return cast("Numbers", np.ldexp(np.asarray(stored, np.float64), -scale))


def _warn_of_width(ends: tuple[float, float], deviation: float, schema: ColumnSchema, table: str) -> None:
    """Warn of a declared range so wide that its scale leaves numbers few digits; not of other reasons."""
    with np.errstate(over="ignore"):
        times, few = (ends[1] - ends[0]) / max(deviation, 1e-300), np.ldexp(1.0, VARYING_BITS - schema.scale)
    if 0 < deviation < few and times > 2.0**VARYING_BITS:
        warnings.warn(
            f"table {table!r}, column {schema.name!r}: its declared range is {times:,.0f} times as wide as "
            "numbers spread, so these keep few digits, and models may take it for constant; declare a "
            "narrower range, or none",
            PrecisionWarning,
            stacklevel=2,
        )
