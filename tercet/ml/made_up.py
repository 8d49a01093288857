"""Made-up rows: tables that anyone may see, with the public schema of tables that nobody may see.

An analyst designs a study on them. All that they are made of is a `TableSchema`, which is public, and a seed;
so they tell nothing about rows of the lake, and what is computed from them means nothing. They are plausible
for what the schema says: a column without a declared range lies mostly between zero and four times the spread
that its scale stands for, one with a range fills it as far as that spread allows. Keys of two tables overlap,
so that joins match; those of tables with the same columns do not, so that they can be put together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import SchemaError
from tercet.ml.ingest import EncodedTable
from tercet.ml.schema import INTEGER_BITS, SPREAD_BITS, ColumnSchema, TableSchema
from tercet.ml.stored_columns import WIDE_SPREAD
from tercet.ml.upload import encode_for_upload

Numbers = npt.NDArray[np.float64]

LEAST_ROWS = 20
REPEATS = 3
"""Rows of each key, where keys may repeat."""
"""Fewer rows have no outcomes of both kinds beside missing values."""
MATCHING = 0.8
"""The share of a table's keys that every other table has too."""
MISSING = 0.1
"""The share of values that are missing where some may be."""
ONES = 0.4
"""The share of ones in a boolean column."""
SHIFT, STRETCH = -0.1, 0.85
"""The values of a column without a range, in units of its largest spread: an exponential distribution."""
WIDEST = 3.0
"""How wide values in a range lie, in units of the largest spread: evenly spread ones have 3 / sqrt(12)."""


@attrs.frozen
class MadeUp:
    """Tables to make up when they are asked for: their schemas by name, how many rows, and for whom."""

    schemas: Mapping[str, TableSchema]
    rows: int
    seed: int
    caller: str

    def encoded(self, name: str) -> EncodedTable:
        """A table of made-up rows, as an owner's is dealt."""
        schema = self.schemas[name]
        alike = sorted(one for one, other in self.schemas.items() if _columns(other) == _columns(schema))
        rows = made_up_rows(schema, self.rows, self.seed, alike=(alike.index(name), len(alike)))
        return encode_for_upload(rows, **upload_options(schema))


def _columns(schema: TableSchema) -> tuple[str, ...]:
    """What tables that are put together have in common: keys, and columns but indicators, in any order."""
    indicators = {column.missing for column in schema.features}
    return (*schema.key_names, *sorted({column.name for column in schema.features} - indicators))


def made_up_rows(
    schema: TableSchema, rows: int, seed: int, *, alike: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """Columns of made-up rows by name, keys first; missing values are NaN, and have no indicators yet.

    `alike` is the place of the table among those that have the same columns, and how many these are.

    Raises SchemaError for fewer than 20 rows, and for a column in which no value can be.
    """
    if rows < LEAST_ROWS:
        raise SchemaError(f"{rows} made-up rows are too few to show anything; ask for {LEAST_ROWS} or more")
    order = _generator(schema, "", seed).permutation(rows)
    keys = order if schema.unique else order // REPEATS
    indicators = {column.missing for column in schema.features}
    found: dict[str, Any] = {
        name: _keys(schema, str(schema.column(name).key_type), keys, alike) for name in schema.key_names
    }
    for column in schema.features:
        if column.name not in indicators:
            found[column.name] = _values(schema, column, rows, _generator(schema, column.name, seed))
    return found


def upload_options(schema: TableSchema) -> dict[str, Any]:
    """Options of an upload by which made-up rows get the schema of their model, least count and all."""
    indicators = {column.missing for column in schema.features}
    own = [column for column in schema.features if column.name not in indicators]
    return {
        "name": schema.name,
        "key": list(schema.key_names),
        "owner": schema.owner,
        "columns": [column.name for column in own],
        "scales": {column.name: column.scale for column in own if column.kind in ("real", "integer")},
        "types": _types(schema, own),
        "categories": {column.name: column.labels for column in own if column.labels is not None},
        "ranges": {column.name: column.range for column in own if column.range is not None},
        "missing": "indicator",
        "normalise": next((list(one.normalise) for one in schema.columns if one.normalise), []),
        "min_count": schema.min_count,
        "unique": schema.unique,
    }


def _types(schema: TableSchema, own: list[ColumnSchema]) -> Mapping[str, str]:
    keys = {
        column.name: "string"
        for column in schema.columns
        if column.kind == "key" and column.key_type == "string"
    }
    return keys | {column.name: column.kind for column in own}


def _generator(schema: TableSchema, column: str, seed: int) -> np.random.Generator:
    """Randomness of a column's own: what other tables and columns there are changes nothing."""
    text = "\n".join([str(seed), schema.name, column]).encode()
    return np.random.default_rng(
        int.from_bytes(hashlib.blake2b(text, digest_size=16, person=b"tercet-made-up").digest(), "big")
    )


def _keys(schema: TableSchema, key_type: str, order: npt.NDArray[np.int64], alike: tuple[int, int]) -> Any:
    """Keys of a table: numbers from one for those that all others have, and numbers of its own.

    Tables that are alike share the former among them.
    """
    place, tables = alike
    common = round(MATCHING * len(order))
    own = hashlib.blake2b(f"{schema.owner}\n{schema.name}".encode(), digest_size=4).digest()
    base = (1 + int.from_bytes(own, "big")) << 24
    numbers = np.where((order < common) & (order % tables == place), order + 1, base + order)
    return numbers if key_type == "integer" else [f"K-{number:06d}" for number in numbers]


def _values(schema: TableSchema, column: ColumnSchema, rows: int, rng: np.random.Generator) -> Any:
    there = np.ones(rows, dtype=bool)
    if column.missing is not None:
        there[rng.permutation(rows)[: round(MISSING * rows)]] = False
    found = np.full(rows, np.nan)
    count = int(there.sum())
    if column.kind == "boolean":
        found[there] = rng.permutation(count) < round(ONES * count)
    elif column.meaning is not None:
        low, high = column.ends or column.meaning.ends
        codes = np.full(rows, round(low), np.int64)
        codes[there] = np.round(np.linspace(low, high, count))[rng.permutation(count)]
        symbols = column.meaning.decoded(codes)
        symbols[~there] = None if column.kind == "category" else np.datetime64("NaT")
        return symbols
    else:
        # Evenly spaced, so that the spread is not left to chance.
        found[there] = _numbers(
            schema, column, (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count
        )
    return found


def _numbers(schema: TableSchema, column: ColumnSchema, places: Numbers) -> Numbers:
    """Numbers at these quantiles, from 0 to 1, of a column's made-up distribution."""
    with np.errstate(over="ignore", under="ignore"):
        unit = float(np.ldexp(1.0, min(SPREAD_BITS - column.scale, 1000)))
        end = float(np.ldexp(1.0, min(INTEGER_BITS - column.scale, 1023)))
    low, high = (-end, end) if column.range is None else column.range
    low, high = max(low, -end), min(high, end)
    whole = column.kind == "integer"
    if whole:
        low, high = float(math.ceil(low)), float(math.floor(high))
    if low > high:
        raise SchemaError(
            f'Table "{schema.name}", column "{column.name}": no number of its kind is in its range and fits '
            "its scale, so no rows can be made up; have its owner upload it with other ranges or scales."
        )
    if column.range is None and not (whole and unit < 1):
        found = np.clip((SHIFT - STRETCH * np.log1p(-places)) * unit, low, high)
    else:
        width = _width(unit, whole=whole)
        start = max(low, min(0.0, high)) if column.range is None else low + max(0.0, (high - low - width) / 2)
        start = math.floor(start) if whole else start
        stop = min(high, start + width)
        # In parts, since the whole width may be beyond all floats.
        last = min(stop + 1, start + width + 1) if whole else stop
        found = start * (1 - places) + last * places
        if whole:
            found = np.clip(np.floor(found), low, stop)
    return np.clip(np.rint(found), low, high) + 0.0 if whole else np.clip(found, low, high)


def _width(unit: float, *, whole: bool) -> float:
    """How far apart values may be: whole numbers at least one, if their spread allows it."""
    if not whole or unit >= 1:
        return float(math.floor(WIDEST * unit)) if whole else WIDEST * unit
    return 1.0 if WIDE_SPREAD * unit > 0.5 else 0.0
