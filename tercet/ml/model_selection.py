"""Splitting rows into train and test sets."""

from __future__ import annotations

import math

import attrs

from tercet.errors import SchemaError
from tercet.ml.table import Part, Steps, Table


def split(table: Table, test_size: float) -> Steps[tuple[Table, Table]]:
    """Train and test rows, drawn at random by a shuffle that nobody can follow; every call draws anew.

    `test_size` is the share of test rows, rounded up as in scikit-learn. Discloses nothing but the two row
    counts, which everyone can work out.
    """
    if not 0 < test_size < 1:
        raise SchemaError(f"test_size={test_size} is not between 0 and 1; give the share of rows to test on")
    table.require_rows("a split", least=2)
    test_rows = min(table.rows - 1, math.ceil(test_size * table.rows))
    cut = table.rows - test_rows
    builder = table.lake.builder(f"split {table.name}")
    sources = [*table.parts, table.keys]
    values = builder.apply_all("shuffle", *[builder.input(part.handle, part.type) for part in sources])
    pieces: list[list[str]] = [[], []]
    for side, (start, stop) in enumerate([(0, cut), (cut, table.rows)]):
        for value in values:
            handle = table.lake.handle(f"{table.name}.{('train', 'test')[side]}")
            value.slice(start, stop).store(handle)
            pieces[side].append(handle)
    result = yield builder.plan()
    made = []
    for label, handles in zip(("train", "test"), pieces, strict=True):
        parts = [Part(handle, result.stored[handle]) for handle in handles]
        keys = parts.pop()
        rows = int(result.stored[handles[0]].rows)
        made.append(
            attrs.evolve(table, name=f"{table.name}.{label}", rows=rows, parts=tuple(parts), keys=keys)
        )
    return made[0], made[1]
