"""What an owner's table becomes on its way to the nodes: values that fit, and the handle of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tercet.errors import SchemaError
from tercet.ml.ingest import EncodedTable, encode
from tercet.ml.schema import INTEGER_BITS, TableSchema
from tercet.ml.stored_columns import UNIT_BITS, WIDE_SPREAD, Column, Part, recipe_of
from tercet.ml.table import Table, Workspace
from tercet.plans import Form, Type

ROUNDED_SPREAD = 1 + 2.0**-8
"""Rounding may enlarge a spread that is just within its bound by less than this factor."""


def encode_for_upload(source: Any, **options: Any) -> EncodedTable:
    """Encode an owner's table; columns of zeros and ones become booleans, spreads are checked.

    Raises SchemaError as `tercet.ml.ingest.encode` does.
    """
    encoded = encode(source, binary=True, **options)
    for feature in encoded.features:
        column = feature.schema
        if column.meaning is not None:
            continue  # not computed on as numbers
        widest = WIDE_SPREAD if column.kind == "integer" else 1.0
        # Each stored value is within half a unit of its number.
        if np.ldexp(feature.spread, column.scale) + 0.5 > widest * 2.0**UNIT_BITS * ROUNDED_SPREAD:
            raise SchemaError(
                f"table {encoded.schema.name!r}, column {column.name!r}: at scale {column.scale} its spread "
                f"does not fit the fixed-point range; give a smaller scale with scales={{{column.name!r}: "
                f"...}}, or declare it real with types={{{column.name!r}: 'real'}}"
            )
    return encoded


def handles_needed(schema: TableSchema) -> int:
    """How many values at the nodes a table has: its keys, and its columns if there are any."""
    return 2 if schema.features else 1


def describe(schema: TableSchema, handles: Sequence[str], lake: Workspace) -> Table:
    """The handle of a table whose keys, and then columns, are stored under `handles`."""
    limit = 2.0**INTEGER_BITS
    count = len(schema.features)
    parts = [Part(handle, Type(Form.RING, (count, schema.rows), 0, limit)) for handle in handles[1:]]
    return Table(
        lake=lake,
        name=schema.name,
        columns=tuple(
            Column(
                column,
                schema.owner,
                0,
                place,
                sources=frozenset({(schema.name, column.name)}),
                recipe=recipe_of(handles[1], place),
            )
            for place, column in enumerate(schema.features)
        ),
        rows=schema.rows,
        parts=tuple(parts),
        keys=Part(handles[0], Type(Form.WORDS, (2, schema.rows))),
        key_names=tuple(schema.key_names),
        key_types=tuple(c.written for c in schema.columns if c.kind == "key"),
        rows_of_sources=schema.rows,
        min_count=schema.min_count,
        uploads=frozenset({handles[0]}),
        key_holders=frozenset({schema.owner}),
        unique=schema.unique,
    )
