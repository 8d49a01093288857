"""Joins whose count is told: pseudonyms of shuffled keys are opened, and nodes match them in the clear.

Owners hash keys to 128 bits at upload. A join draws a fresh PRF key that nobody knows, computes the pseudonym
of every key under it, shuffles every table together with its pseudonyms, opens the pseudonyms to the nodes
and matches them. Since pseudonyms are fresh and rows are in random order, the nodes learn how many rows match
and nothing on which. Linear in rows; 12 rounds for the PRF, 3 for the shuffle, 1 to open, whatever the number
of tables. If these are of several owners, booleans of the joined rows are compared with zero, in 4 rounds
more: an upload may say of any numbers that they are zeros and ones.

With noise, both tables get dummy rows beforehand, pairs of which match or not by a secret coin each, and the
count that is told is the true one and how many coins have come up.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tercet.ml.disclosure import both, inverted
from tercet.ml.preparation import made_of, owners
from tercet.ml.schema import ColumnSchema
from tercet.ml.sides import Side, bits_of, described, links_of, selected, several, told_anew
from tercet.ml.stored_columns import Column, Part
from tercet.ml.table import Steps, Table
from tercet.plans import Builder, Value, concatenate

PSEUDONYMS = "pseudonyms of shuffled keys, random words"


def inner_join(tables: Sequence[Table], name: str) -> Steps[Table]:
    """The rows whose keys are in all tables, in random order, with the parts of all."""
    lake = tables[0].lake
    builder = lake.builder(f"join {name}")
    moved = _shuffled(builder, tables, [_parts(builder, table) for table in tables])
    matched = builder.apply(
        "match",
        *[names for names, *_ in moved],
        rows="join.rows",
        lists=tuple(table.name for table in tables),
    )
    handles: list[str] = []
    anew = several(tables)
    for number, (_, *values) in enumerate(moved):
        for place, value in enumerate(values):
            if place == 0 and number > 0:
                continue  # the key of the first table serves the joined one
            handles.append(lake.handle(name))
            taken = value.take(matched, table=number)
            bits = bits_of(tables[number], place - 1) if anew and place else set()
            (told_anew(taken, bits) if bits else taken).store(handles[-1])
    result = yield builder.plan()
    stored = [Part(handle, result.stored[handle]) for handle in handles]
    return attrs.evolve(
        _joined(tables, name),
        columns=_side_by_side(tables, [table.columns for table in tables]),
        selection=_side_by_side(tables, [table.selection for table in tables]),
        rows=result.symbols["join.rows"],
        parts=tuple(stored[1:]),
        keys=stored[0],
    )


def paired_join(left: Table, right: Table, how: str, name: str) -> Steps[Table]:
    """Rows of two tables of which not all match, in random order: `how` is "left", "anti" or "outer"."""
    lake = left.lake
    builder = lake.builder(f"join {name}")
    anew = several((left, right))
    mine = Side.of(builder, left, anew=anew) if how == "outer" else None
    other = Side.of(builder, right, anew=anew) if how != "anti" else None
    flags = [selected(builder, table, anew=anew) for table in (left, right)]
    sides = [mine, other]
    payloads = [
        ([] if side is None else [side.centred]) + ([] if flag is None else [flag])
        for side, flag in zip(sides, flags, strict=True)
    ]
    if how != "outer":
        payloads[0] = _parts(builder, left)
    moved = _shuffled(builder, (left, right), payloads)
    # Where a secret flag says which rows of the right table count, nobody knows which of the left are left.
    pairs = "left" if how == "anti" and flags[1] is not None else how
    matched = builder.apply(
        "match", moved[0][0], moved[1][0], rows="join.rows", lists=(left.name, right.name), how=pairs
    )
    taken = [
        [value.take(matched, table=number) for value in values] for number, (_, *values) in enumerate(moved)
    ]
    keys = taken[0][0]
    gone = _gone(matched, flags, taken)
    parts: list[Value] = []
    columns: tuple[Column, ...] = left.columns
    selection: tuple[Column, ...] = left.selection
    links = links_of(left, right)
    if how == "outer":
        keys = keys ^ moved[1][1].take(matched, table=2)
        columns, selection = (), ()
    else:
        parts = [
            told_anew(value, bits) if anew and (bits := bits_of(left, place)) else value
            for place, value in enumerate(taken[0][1:])
        ]
    for number, (table, side) in enumerate(zip((left, right), sides, strict=True)):
        if side is None:
            continue
        names = [*columns, *(right.columns if number == 0 else ())]
        columns += described(
            table, len(parts), len(table.columns), links=links, taken=[one.name for one in names]
        )
        parts.append(concatenate([side.told(taken[number][1], gone[number]), _row(gone[number])]))
    if how == "outer" and any(flag is not None for flag in flags):
        selection = (_flag((left, right), len(parts)),)
        parts.append(_row(inverted(both(*gone))))
    elif how == "anti" and flags[1] is not None:
        selection = (*selection, _flag((right,), len(parts)))
        parts.append(_row(gone[1]))
    handles = [lake.handle(name) for _ in (keys, *parts)]
    for handle, value in zip(handles, (keys, *parts), strict=True):
        value.store(handle)
    result = yield builder.plan()
    stored = [Part(handle, result.stored[handle]) for handle in handles]
    return attrs.evolve(
        _joined((left, right), name),
        columns=columns,
        selection=selection,
        rows=result.symbols["join.rows"],
        parts=tuple(stored[1:]),
        keys=stored[0],
    )


# -- rows ----------------------------------------------------------------------------------------------------


def _parts(builder: Builder, table: Table) -> list[Value]:
    return [builder.input(part.handle, part.type) for part in table.parts]


def _shuffled(
    builder: Builder, tables: Sequence[Table], payloads: Sequence[Sequence[Value]]
) -> list[list[Value]]:
    """For each table its pseudonyms, which are opened, its keys and its payload, all in one random order."""
    secret = builder.random_words(2)
    moved = []
    for table, payload in zip(tables, payloads, strict=True):
        with builder.scope(table.name):
            words = builder.input(table.keys.handle, table.keys.type)
            names = builder.apply("prf", secret, words)
            first, *others = builder.apply_all("shuffle", names, words, *payload)
            moved.append([first.open(PSEUDONYMS), *others])
    return moved


def _gone(matched: Value, flags: Sequence[Value | None], taken: Sequence[Sequence[Value]]) -> list[Value]:
    """For each table, ones `(m,)` where the result has no row of it that counts; flags are last of `taken`.

    None at all of tables without columns and flags, of which nobody asks.
    """
    numbers = [value for _, *values in taken for value in values]
    if not numbers:
        return []
    first = numbers[0] if len(numbers[0].shape) == 1 else numbers[0].select([0]).squeeze()
    found = []
    for number, (flag, values) in enumerate(zip(flags, taken, strict=True)):
        if flag is None:
            found.append(first * 0 + matched.builder.apply("absent", matched, table=number))
        else:
            found.append(inverted(values[-1].bounded(1.0, "a condition")))
    return [one.bounded(1.0, "a bit") for one in found]


def _row(value: Value) -> Value:
    return value.reshape(1, *value.shape)


# -- tables --------------------------------------------------------------------------------------------------


def _side_by_side(tables: Sequence[Table], groups: Sequence[Sequence[Column]]) -> tuple[Column, ...]:
    """Columns of several tables, as columns of one that has the parts of all."""
    columns: list[Column] = []
    offset = 0
    for table, group in zip(tables, groups, strict=True):
        columns += [attrs.evolve(column, part=column.part + offset) for column in group]
        offset += len(table.parts)
    return tuple(columns)


def _flag(tables: Sequence[Table], part: int) -> Column:
    """The column of zeros and ones that tells which rows count, by the filters of tables."""
    columns = [column for table in tables for column in table.selection]
    return Column(ColumnSchema("joined", "boolean"), owners(columns), part, 0, sources=made_of(columns))


def _joined(tables: Sequence[Table], name: str) -> Table:
    """The first table under the name of the result, and what the strictest of them says."""
    return attrs.evolve(
        tables[0],
        name=name,
        rows_of_sources=max(table.rows_of_sources for table in tables),
        min_count=max(table.min_count for table in tables),
    )
