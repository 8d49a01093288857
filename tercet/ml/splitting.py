"""Splitting rows at random: train and test rows, or the folds of a cross-validation.

Rows are dealt to hands by shuffles that nobody can follow; stratified, each hand gets its share of the ones
of a column, and nobody learns which rows those are. With a `random_state`, rows are dealt in the order of
numbers that follow from it and from their keys, so that the same rows fall into the same hands again.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence

import attrs

from tercet.errors import SchemaError
from tercet.ml.computations import computation
from tercet.ml.stored_columns import Column, Part
from tercet.ml.table import Steps, Table
from tercet.options import MAYBE_COLUMN, RANDOM_STATE, TABLE, TEST_SIZE
from tercet.plans import Builder, Value

Fold = tuple[Table, Table]
"""Train and test rows."""

RANDOM_ORDER = "places of shuffled rows, a random order"
SORTED_BITS = 62
"""Bits of what is sorted by, with the numbers of rows and a class: so many less than those of a word."""
NUMBER_BITS = 44
"""No more bits of a row's number are looked at, 41 of a million rows: a cut meets equal ones once in 2^20."""


@computation(
    "split",
    group="tables",
    table=TABLE,
    test_size=TEST_SIZE,
    stratify=MAYBE_COLUMN,
    random_state=RANDOM_STATE,
)
def split(
    table: Table, test_size: float, stratify: str | None = None, random_state: int | None = None
) -> Steps[Fold]:
    """Train and test rows, drawn at random by a shuffle that nobody can follow; every call draws anew.

    `test_size` is the share of test rows, rounded up as in scikit-learn. `stratify` names a 0/1 column of
    which both parts shall have the same share of ones, within a row or two. With a `random_state`, the rows
    of a table fall into the same parts again, under any protocol, in any run and on any machine: test rows
    are those of the least numbers, which follow from that and from a row's key. Of rows that share one, which
    are parted if the cut falls among them, the first in the table come first. So whoever knows the keys knows
    who is in which part; in what order rows lie there, nobody knows.

    Discloses nothing but the two row counts, which everyone can work out, and to the nodes, for `stratify` a
    random order of shuffled rows, for a `random_state` comparisons of such; not how many ones there are.
    """
    table.require_rows("a split", least=2)
    test_rows = min(table.rows - 1, math.ceil(test_size * table.rows))
    sizes = (test_rows, table.rows - test_rows)
    builder = table.lake.builder(f"split {table.name}")
    values = _in_hands(builder, table, sizes, stratify, random_state)
    hands = []
    for start, stop in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
        hand = [value.slice(start, stop) for value in values]
        # Nodes know which of the dealt rows are first, by class or number: their order has to be forgotten.
        known = stratify is not None or random_state is not None
        hands.append(builder.apply_all("shuffle", *hand) if known else hand)
    test, train = yield from _stored(builder, table, hands, ("test", "train"))
    return train, test


def folds(
    table: Table, count: int, stratify: str | None, random_state: int | None = None
) -> Steps[list[Fold]]:
    """Train and test rows of each of `count` folds, which take each row once. Discloses what `split` does."""
    if not 2 <= count <= table.rows:
        raise SchemaError(
            f"cv={count} is no number of folds between 2 and the {table.rows} rows that there are"
        )
    sizes = tuple(table.rows // count + (fold < table.rows % count) for fold in range(count))
    builder = table.lake.builder(f"folds of {table.name}")
    values = _in_hands(builder, table, sizes, stratify, random_state)
    hands, labels = [], []
    for fold, cut in enumerate(itertools.pairwise(itertools.accumulate(sizes, initial=0))):
        hands += [[value.omit(*cut) for value in values], [value.slice(*cut) for value in values]]
        labels += [f"without fold {fold + 1}", f"fold {fold + 1}"]
    made = yield from _stored(builder, table, hands, labels)
    return list(zip(made[::2], made[1::2], strict=True))


def _in_hands(
    builder: Builder, table: Table, sizes: Sequence[int], stratify: str | None, random_state: int | None
) -> list[Value]:
    """All parts of a table and its keys, rows in random order; stratified, hands of these sizes one by one.

    For that, each row gets its place in the order of classes, and at once a new one by a second shuffle. Then
    places are opened, and tell nothing but that shuffle; places at even distances make a hand.
    """
    sources = [*table.parts, table.keys]
    inputs = [builder.input(part.handle, part.type) for part in sources]
    if stratify is not None:
        table.require_boolean(stratify, "stratify=")
    if random_state is not None:
        return _by_number(builder, table, inputs, sizes, stratify, random_state)
    values = builder.apply_all("shuffle", *inputs)
    if stratify is None:
        return values
    ones = _ones(values, table.column(stratify)).bounded(1.0, "a boolean")
    *moved, places = builder.apply_all("shuffle", *values, _places_by_class(ones, table.rows))
    dealt = builder.apply("deal", places.open(RANDOM_ORDER), sizes=tuple(sizes))
    return [value.take(dealt) for value in moved]


def _ones(values: Sequence[Value], column: Column) -> Value:
    """A boolean column among the parts of its table, `(rows,)`."""
    return values[column.part].select([column.place]).squeeze()


def _by_number(
    builder: Builder,
    table: Table,
    inputs: Sequence[Value],
    sizes: Sequence[int],
    stratify: str | None,
    random_state: int,
) -> list[Value]:
    """The same, rows in the order of their numbers; stratified, of zeros before ones, at even distances."""
    bits = min(NUMBER_BITS, SORTED_BITS - (table.rows - 1).bit_length() - 1)
    seed = hashlib.blake2b(b"%d" % random_state, digest_size=16, person=b"tercet-split").digest()
    order = builder.apply("key_numbers", inputs[-1], key=seed, bits=bits)
    if stratify is not None:
        # A comparison gives a bit, whatever an owner has uploaded.
        one = (_ones(inputs, table.column(stratify)) * -1).is_negative().to_ring()
        order, bits = order + one * 2**bits, bits + 1
    _, *values = builder.apply_all("sort", order, *inputs, bits=bits + 1)
    if stratify is None:
        return values
    dealt = builder.apply("deal", builder.apply("count_up", values[-1]), sizes=tuple(sizes))
    return [value.take(dealt) for value in values]


def _places_by_class(ones: Value, rows: int) -> Value:
    """The place `(rows,)` of each row if zeros came before ones, and else all stayed in order."""
    up_to = ones.cumulate(magnitude=rows)
    zeros = ones.builder.apply("count_up", ones) - up_to  # before a row that is zero
    later = up_to * 2 + (-ones.sum(magnitude=rows) + rows).reshape(1) - ones.builder.apply("count_up", ones)
    place = zeros + ones.times(later - 1, magnitude=rows)
    return place.bounded(rows, "a place")


def _stored(
    builder: Builder, table: Table, hands: Sequence[Sequence[Value]], labels: Sequence[str]
) -> Steps[list[Table]]:
    """Tables of hands of rows; each hand has the table's parts and its keys."""
    handles = [
        [table.lake.handle(f"{table.name}.{label}") for _ in hand]
        for hand, label in zip(hands, labels, strict=True)
    ]
    for hand, names in zip(hands, handles, strict=True):
        for value, handle in zip(hand, names, strict=True):
            value.store(handle)
    result = yield builder.plan()
    made = []
    for label, names in zip(labels, handles, strict=True):
        *parts, keys = (Part(handle, result.stored[handle]) for handle in names)
        made.append(
            attrs.evolve(
                table, name=f"{table.name}.{label}", rows=int(keys.type.rows), parts=tuple(parts), keys=keys
            )
        )
    return made
