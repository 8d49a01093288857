"""Inner join of tables on their keys, in MPC: the function of SQL's INNER JOIN on unique keys.

Owners hash keys to 128 bits at upload. A join draws a fresh PRF key that nobody knows, computes the pseudonym
of every key under it, shuffles every table together with its pseudonyms, opens the pseudonyms to the nodes
and matches them in the clear. Since pseudonyms are fresh and rows are in random order, the nodes learn how
many rows match and nothing on which. Linear in rows; 12 rounds for the PRF, 3 for the shuffle, 1 to open,
whatever the number of tables. If these are of several owners, booleans of the joined rows are compared with
zero, in 4 rounds more: an upload may say of any numbers that they are zeros and ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tercet.errors import SchemaError
from tercet.ml.computations import computation
from tercet.ml.stored_columns import Column, Part
from tercet.ml.table import Steps, Table, as_names
from tercet.options import COLUMNS
from tercet.plans import Value, concatenate


@computation("join", group="tables", on=COLUMNS)
def inner_join(tables: Sequence[Table], on: str | Sequence[str]) -> Steps[Table]:
    """Join tables on their keys; rows come out in random order.

    Discloses to the nodes the number of rows that match. The strictest minimum count among the tables goes on
    to hold, since whoever sees a row of one learns that it is in all. A table with a key twice, which owners'
    clients refuse to upload, is not joined: the nodes learn how often its keys occur, and the PlanError says
    how many rows are too many, and of which table. Raises SchemaError for keys that differ
    in name or type, and for columns of one name in two tables.
    """
    keys = as_names(on)
    _check(tables, keys)
    lake = tables[0].lake
    name = "+".join(table.name for table in tables)
    builder = lake.builder(f"join {name}")
    prf_key = builder.random_words(2)
    shuffled, opened = [], []
    for table in tables:
        with builder.scope(table.name):
            words = builder.input(table.keys.handle, table.keys.type)
            pseudonyms = builder.apply("prf", prf_key, words)
            payload = [builder.input(part.handle, part.type) for part in table.parts]
            moved = builder.apply_all("shuffle", pseudonyms, words, *payload)
            opened.append(moved[0].open("pseudonyms of shuffled keys, random words"))
            shuffled.append(moved[1:])
    matched = builder.apply("match", *opened, rows="join.rows", lists=tuple(table.name for table in tables))
    handles: list[str] = []
    several = len({column.owner for table in tables for column in table.columns}) > 1
    for number, values in enumerate(shuffled):
        for place, value in enumerate(values):
            if place == 0 and number > 0:
                continue  # the key of the first table serves the joined one
            handles.append(lake.handle(name))
            taken = builder.apply("take", value, matched, table=number)
            bits = _bits(tables[number], place - 1) if several and place else set()
            (_told_anew(taken, bits) if bits else taken).store(handles[-1])
    result = yield builder.plan()
    stored = [Part(handle, result.stored[handle]) for handle in handles]
    return attrs.evolve(
        tables[0],
        name=name,
        columns=_side_by_side(tables, [table.columns for table in tables]),
        selection=_side_by_side(tables, [table.selection for table in tables]),
        rows=result.symbols["join.rows"],
        parts=tuple(stored[1:]),
        keys=stored[0],
        rows_of_sources=max(table.rows_of_sources for table in tables),
        min_count=max(table.min_count for table in tables),
        uploads=frozenset[str]().union(*(table.uploads for table in tables)),
    )


def _bits(table: Table, part: int) -> set[int]:
    """Places in a part of a table of what should be zeros and ones."""
    columns = (*table.columns, *table.selection)
    return {one.place for one in columns if one.part == part and one.schema.kind == "boolean"}


def _told_anew(values: Value, bits: set[int]) -> Value:
    """Columns `(d, n)` in which those at some places are compared with zero, and so are zeros and ones.

    A number beyond that, from a false upload, would count as so many rows of the other owners.
    """
    rows = []
    for place in range(int(values.shape[0])):
        row = values.select([place])
        if place in bits:
            flag = row.squeeze().bounded(1.0, "a condition")
            row = (flag * -1).is_negative().to_ring().reshape(1, *flag.shape)
        rows.append(row)
    return concatenate(rows)


def _side_by_side(tables: Sequence[Table], groups: Sequence[Sequence[Column]]) -> tuple[Column, ...]:
    """Columns of several tables, as columns of one that has the parts of all."""
    columns: list[Column] = []
    offset = 0
    for table, group in zip(tables, groups, strict=True):
        columns += [attrs.evolve(column, part=column.part + offset) for column in group]
        offset += len(table.parts)
    return tuple(columns)


def _check(tables: Sequence[Table], keys: tuple[str, ...]) -> None:
    if len(tables) < 2:
        raise SchemaError(f"a join takes two or more tables, got {len(tables)}; name the tables to join with")
    first = tables[0]
    owners: dict[str, str] = {}
    for table in tables:
        if not isinstance(table, Table):
            raise SchemaError(f"a join takes tables of a lake, not a {type(table).__name__}; upload it first")
        if table.lake is not first.lake:
            raise SchemaError(
                f"tables {first.name!r} and {table.name!r} are in different lakes; upload both to one"
            )
        if set(table.key_names) != set(keys):
            raise SchemaError(
                f"table {table.name!r} was uploaded with key {', '.join(table.key_names)}, so it cannot be "
                f"joined on {', '.join(keys)}; upload it with key={list(keys)!r}"
            )
        if table.key_names != first.key_names:
            raise SchemaError(
                f"tables {first.name!r} and {table.name!r} name their key columns in different order "
                f"({', '.join(first.key_names)}; {', '.join(table.key_names)}); upload both with the same "
                "order"
            )
        for key, ours, theirs in zip(first.key_names, first.key_types, table.key_types, strict=True):
            if ours != theirs:
                raise SchemaError(
                    f"key {key!r} is {ours} in table {first.name!r} and {theirs} in table {table.name!r}, so "
                    f"no row could match; upload one of them with types={{{key!r}: 'string'}} or convert it "
                    "to integers"
                )
        for column in table.columns:
            if column.name in owners:
                raise SchemaError(
                    f"column {column.name!r} is in table {owners[column.name]!r} and in table "
                    f"{table.name!r}; rename it in one of them, or leave it out with columns="
                )
            owners[column.name] = table.name
