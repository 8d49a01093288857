"""Segmented scans in MPC: rows that lie in runs, and what each row learns of those before it in its own run.

Runs are neighbours in an order of rows that nobody need know, such as that of sorted keys. `starts` marks
the first row of each run by a secret one, so neither how many runs there are nor how long they are shows.
Everything here is one scan: with f the mark of a row and v what it holds, `(f, v) after (e, u)` is
`(e or f, v + (1 - f) u)`, which is associative. Where c columns of n rows are few, each row takes in what is
1, 2, 4 and so on rows before it (Hillis, Steele 1986): `(c + 1) n log2(n)` products in log2(n) rounds, since
rounds are what takes time. Else a tree over neighbouring rows works it out on the way up, and hands it to the
rows on the way down (Brent, Kung 1982): about `(2 c + 1) n` products in twice as many rounds. No row is
opened or revealed, and what runs depends on the shapes alone.
"""

from __future__ import annotations

import math

from tercet.errors import PlanError
from tercet.ml.linalg import settled
from tercet.plans import Value, concatenate

MOST_PRODUCTS = 1 << 17
"""Products up to which a scan takes half the rounds: each party sends a megabyte with `replicated`."""


def running(starts: Value, values: Value, *, magnitude: float | None = None, backward: bool = False) -> Value:
    """Sums over the rows of a run up to each row, and with it: `(c, n)`, at the scale of `values`.

    If `backward`, over those from each row on.

    `starts` `(n,)` are secret zeros and ones, one in the first row of a run; rows before the first one are a
    run as well. `values` `(c, n)` are numbers, several columns at once, full sharings or products.
    `magnitude` promises a bound on every result and on every sum over neighbouring rows of one run, without
    which it is n times that of `values`. Where at most one row of each run holds anything, what it holds is
    handed down to the rest of the run, and the bound of `values` will do: see `copied`.

    ceil(log2(n)) rounds and as many times `c + 1` products a row, if those are at most `MOST_PRODUCTS`. Else
    2 ceil(log2(n)) rounds, and about `2 c + 1` words a row are products that get a round: with `replicated`
    `16 c + 8` bytes a row and party. Raises PlanError for shapes that do not fit together.
    """
    rows, columns = values.shape[-1], values.shape[0]
    if len(values.shape) != 2 or starts.shape != (rows,) or not isinstance(rows, int):
        raise PlanError(
            f"a scan takes marks (n,) and values (c, n) of a known number of rows, not {starts.type} and "
            f"{values.type}"
        )
    if not isinstance(columns, int):
        raise PlanError(f"a scan takes a known number of columns, not those of {values.type}")
    most = math.ldexp(values.type.limit, -values.scale) * max(1, rows) if magnitude is None else magnitude
    firsts = ends(starts) if backward else starts
    plain = (firsts.reshape(1, rows) * -1 + 1).bounded(1.0, "a bit")
    far = -1 if backward else 1
    if (columns + 1) * rows * math.ceil(math.log2(max(1, rows))) <= MOST_PRODUCTS:
        return _doubling(plain, values, most, far)
    return _tree(plain, values, most, far)


def _doubling(plain: Value, values: Value, most: float, far: int) -> Value:
    """The scan in which every row takes in twice as many others in each round; `far` is 1 or -1 (backward).

    `plain` `(1, n)` is 1 in rows that start no run: on the way, in those before which no run starts so near.
    """
    rows, distance = int(values.shape[-1]), 1
    values = settled(values)
    while distance < rows:
        taken = plain.times(values.delay(far * distance), magnitude=most)
        values = settled((values + taken).bounded(most, "a sum over a run"))
        if 2 * distance < rows:
            plain = settled((plain * plain.delay(far * distance)).bounded(1.0, "a bit"))
        distance *= 2
    return values


def _tree(plain: Value, values: Value, most: float, far: int) -> Value:
    """The same over a tree of neighbouring rows."""
    columns, rows = int(values.shape[0]), int(values.shape[-1])
    last = 0 if far < 0 else 1  # of a pair, the row where sums are complete
    levels: list[tuple[Value, Value, int]] = []
    while rows > 1:
        bits, held = plain.pair_rows(), values.pair_rows()
        halves = [held.select(range(side * columns, (side + 1) * columns)) for side in (0, 1)]
        levels.append((bits.select([1 - last]), halves[1 - last], rows))
        plain = (bits.select([1]) * bits.select([0])).bounded(1.0, "a bit")
        both = halves[last] + bits.select([last]).times(halves[1 - last], magnitude=most)
        values = both.bounded(most, "a sum over a run")
        rows = -(-rows // 2)
    for bit, held, count in reversed(levels):
        other = held + bit.times(values.delay(far), magnitude=most)
        pair = [other.bounded(most, "a sum over a run"), values]
        values = concatenate(pair[::far]).interleave(count)
    return values


def copied(marks: Value, values: Value) -> Value:
    """For each row, what the last marked row up to it holds, itself included; zero where there is none.

    `marks` `(n,)` are secret zeros and ones, and `values` `(c, n)` are zero in rows that are not marked. Rows
    that start a run and hold nothing are marked too, with zeros: then nothing gets there from the run before.
    A column of ones in marked rows that hold something tells where something has arrived. Exact, with the
    bound of `values`; as many rounds and products as `running`.
    """
    return running(marks, values, magnitude=math.ldexp(values.type.limit, -values.scale))


def ends(starts: Value) -> Value:
    """Ones `(n,)` in the last row of each run, from those in the first, else zeros. Local."""
    inside = (starts * -1 + 1).bounded(1.0, "a bit")
    return (inside.delay(-1) * -1 + 1).bounded(1.0, "a bit")
