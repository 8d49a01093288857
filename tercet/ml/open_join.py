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
from tercet.ml.linalg import settled
from tercet.ml.noise import COINS, WITH_NOISE, tossed
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
    matched, moved = match_rows(builder, tables, "join.rows")
    handles: list[str] = []
    anew = several(tables)
    for number, values in enumerate(moved):
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


def match_rows(builder: Builder, tables: Sequence[Table], rows: str) -> tuple[Value, list[list[Value]]]:
    """Public places of the rows that all tables have, and keys and parts of each, to take them from.

    Opens pseudonyms of shuffled keys; `rows` names the number of places.
    """
    moved = _shuffled(builder, tables, [_parts(builder, table) for table in tables])
    lists = tuple(table.name for table in tables)
    matched = builder.apply("match", *[names for names, *_ in moved], rows=rows, lists=lists)
    return matched, [values for _, *values in moved]


def paired_join(left: Table, right: Table, how: str, name: str, *, noisy: bool) -> Steps[Table]:
    """Rows of two tables, in random order, where not only those count that match, or dummies are among them.

    `how` is "inner", "semi", "left", "anti" or "outer". With noise, a secret flag says which rows count.
    """
    lake, tables = left.lake, (left, right)
    builder = lake.builder(f"join {name}")
    anew = several(tables)
    sides = [
        Side.of(builder, left, anew=anew) if noisy or how == "outer" else None,
        Side.of(builder, right, anew=anew) if how in ("inner", "left", "outer") else None,
    ]
    flags = [selected(builder, table, anew=anew) for table in tables]
    extra = COINS if noisy else 0
    if noisy:
        flags = [_real(builder, table, flag) for table, flag in zip(tables, flags, strict=True)]
    payloads = [
        ([] if side is None else [side.centred.padded(0, extra)]) + ([] if flag is None else [flag])
        for side, flag in zip(sides, flags, strict=True)
    ]
    whole = how != "outer" and not noisy  # all rows of the left table are there, as they are
    if whole:
        payloads[0] = _parts(builder, left)
    moved = _shuffled(builder, tables, payloads, _dummies(builder) if noisy else None)
    # Where a secret flag says which rows of the right table count, nobody knows which of the left are left.
    pairs = "left" if how == "anti" and flags[1] is not None else how
    matched = _matched(moved, tables, None if how in ("inner", "semi") else pairs, noisy=noisy)
    taken = [
        [value.take(matched, table=number) for value in values] for number, (_, *values) in enumerate(moved)
    ]
    gone = _gone(matched, [None if whole else flags[0], flags[1]], taken)
    keys, parts, columns = taken[0][0], list[Value](), left.columns if whole else ()
    if how == "outer":
        keys = keys ^ moved[1][1].take(matched, table=2)
    if whole:
        parts = [
            told_anew(value, bits) if anew and (bits := bits_of(left, place)) else value
            for place, value in enumerate(taken[0][1:])
        ]
    for number, (table, side) in enumerate(zip(tables, sides, strict=True)):
        if side is None:
            continue
        block = taken[number][1]
        if how == "outer" or (how == "left" and number == 1):
            names = [one.name for one in (*columns, *(right.columns if number == 0 else ()))]
            links, last = links_of(left, right), len(table.columns)
            columns += described(table, len(parts), last, links=links, taken=names)
            parts.append(concatenate([side.told(block, gone[number]), _row(gone[number])]))
        else:
            columns += tuple(
                attrs.evolve(one, part=len(parts), place=place) for place, one in enumerate(table.columns)
            )
            parts.append(side.filled(block))
    counts = _counts(how, gone, flags, noisy=noisy)
    selection = left.selection if whole else ()
    if counts is not None:
        selection = (*selection, _flag(tables if not whole else (right,), len(parts)))
        parts.append(_row(counts))
    handles = [lake.handle(name) for _ in (keys, *parts)]
    for handle, value in zip(handles, (keys, *parts), strict=True):
        value.store(handle)
    result = yield builder.plan()
    stored = [Part(handle, result.stored[handle]) for handle in handles]
    return attrs.evolve(
        _joined(tables, name),
        columns=columns,
        selection=selection,
        rows=result.symbols["join.rows"],
        parts=tuple(stored[1:]),
        keys=stored[0],
    )


# -- noise ---------------------------------------------------------------------------------------------------

NOISY_MATCHES = f"the number of rows that match, {WITH_NOISE}"


def _dummies(builder: Builder) -> list[Value]:
    """Keys of dummy rows `(2, COINS)` of either table, random and equal just where a secret coin says so."""
    keys, others = builder.random_words(2, COINS), builder.random_words(2, COINS)
    coins = tossed(builder)
    return [keys, keys ^ settled(concatenate([coins, coins]) & others)]


def _real(builder: Builder, table: Table, flag: Value | None) -> Value:
    """Ones for rows that count, zeros for others and for dummies, which come last."""
    if flag is not None:
        return flag.padded(0, COINS)
    return builder.apply("marks", rows=table.rows + COINS, start=0, stop=table.rows)


def _counts(how: str, gone: Sequence[Value], flags: Sequence[Value | None], *, noisy: bool) -> Value | None:
    """Ones in the rows of the result that count, None where all do, or as the left table says."""
    if how == "outer":
        return inverted(both(*gone)) if any(flag is not None for flag in flags) else None
    if how == "anti":
        if flags[1] is None:
            return None
        return both(inverted(gone[0]), gone[1]) if noisy else gone[1]
    if not noisy:
        return None
    return inverted(gone[0]) if how == "left" else both(*map(inverted, gone))


# -- rows ----------------------------------------------------------------------------------------------------


def _parts(builder: Builder, table: Table) -> list[Value]:
    return [builder.input(part.handle, part.type) for part in table.parts]


def _shuffled(
    builder: Builder,
    tables: Sequence[Table],
    payloads: Sequence[Sequence[Value]],
    dummies: Sequence[Value] | None = None,
) -> list[list[Value]]:
    """For each table its pseudonyms, which are opened, its keys and its payload, all in one random order.

    `dummies` are keys of further rows at the end of each.
    """
    secret = builder.random_words(2)
    moved = []
    for number, (table, payload) in enumerate(zip(tables, payloads, strict=True)):
        with builder.scope(table.name):
            words = builder.input(table.keys.handle, table.keys.type)
            if dummies is not None:
                words = words.padded(0, COINS) ^ dummies[number].padded(table.rows, 0)
            names = builder.apply("prf", secret, words)
            first, *others = builder.apply_all("shuffle", names, words, *payload)
            moved.append([first.open(PSEUDONYMS), *others])
    return moved


def _matched(
    moved: Sequence[Sequence[Value]], tables: Sequence[Table], how: str | None, *, noisy: bool = False
) -> Value:
    """Positions of the rows that belong together, of which the nodes learn how many there are."""
    more: dict[str, str] = {} if how is None else {"how": how}
    if noisy:
        more["told"] = NOISY_MATCHES
    lists = tuple(table.name for table in tables)
    opened = [names for names, *_ in moved]
    return opened[0].builder.apply("match", *opened, rows="join.rows", lists=lists, **more)


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
