"""What metrics need of the order of decision values: areas, their variance, curves. Ties count right.

Rows are sorted by falling decision value, as exact integers, so that equal ones are equal. A threshold can
only lie between groups of tied rows, so every sum here runs over groups: over the last row of each, which
knows how many rows and positives there are up to its own group, and up to the group before. The first is a
running total. The second is the total at the last row of a group that came before, copied down to the row
(see `tercet.ml.segments`).
"""

from __future__ import annotations

import attrs

from tercet.ml.linalg import halvings, settled
from tercet.ml.metrics.sums import TAIL_BITS, TAIL_BOUND, Scored
from tercet.ml.segments import copied
from tercet.plans import Value, concatenate

BEYOND = 60.0
"""The key of rows that do not count: beyond the tail's bound, below 2^TAIL_BITS."""
PRECISION_BITS = 60
"""Of a sum of precisions, those below the sign and above the last place."""


@attrs.frozen(eq=False)
class Ordered:
    """Rows in the order of falling decision values: outcomes and probabilities `(rows,)`.

    `last` `(1, rows)` is 1 in the last row of each group of ties. `before` `(2, rows)` counts the positives
    and the rows of all groups before a row's own; `reached` those up to a row, and with it; `ends` the same
    in last rows, and zero in others.
    """

    rows: int
    outcomes: Value
    probabilities: Value
    last: Value
    before: Value
    ends: Value
    reached: Value


def order(scored: Scored) -> Ordered:
    """Sort the rows. Discloses a random order of shuffled rows to the nodes."""
    rows, builder = scored.rows, scored.z.builder
    # Beyond the tail's bound, all are certain: cut off, keys and row numbers fit one word.
    key = -scored.cut
    columns = [scored.y, scored.probability]
    if scored.mask is not None:  # what does not count comes last, as a group of its own
        moved = scored.mask.times(settled(key) - BEYOND, magnitude=TAIL_BOUND + BEYOND)
        key = (moved + BEYOND).bounded(BEYOND, "where it counts, within the tail's bound")
        columns.append(scored.mask)
    keys, outcomes, probabilities, *mask = builder.apply_all(
        "sort", key, *columns, bits=key.scale + TAIL_BITS + 1
    )
    # Keys do not fall, and equal rows have equal ones: less than a unit more than the one before is no more.
    tied = (keys - keys.delay(1) - 2.0**-key.scale).is_negative().to_ring()
    last = tied.delay(-1).reshape(1, rows) * -1 + 1
    last = last.bounded(1.0, "a bit")
    counted = mask[0] if mask else outcomes * 0 + 1
    reached = concatenate([outcomes.reshape(1, rows), counted.reshape(1, rows)]).cumulate(magnitude=rows)
    ends = settled((last * reached).bounded(rows, "a count or zero"))
    before = copied(last.squeeze(), ends).delay(1)
    return Ordered(rows, outcomes, probabilities, last, before, ends, reached)


def ranks(scored: Scored) -> dict[str, Value]:
    """Sums behind the areas under curves, and what curves need of the sorted rows, `outcomes` and others."""
    ordered = order(scored)
    kept = {name: getattr(ordered, name) for name in ("outcomes", "probabilities", "before")}
    return {**areas(ordered), **kept}


def areas(ordered: Ordered) -> dict[str, Value]:
    """Sums over groups of ties behind the areas under curves; integers but for the last.

    With P, N the positives and negatives of a group, and m, k twice the negatives and positives above it, its
    own counting once: `pairs` is the sums of P m and N k, `squares` those of P m^2 and N k^2, `(2,)` each.
    `precisions` `(1,)` is the sum of P times the precision at the group.
    """
    rows, before, builder = ordered.rows, ordered.before, ordered.before.builder
    groups = settled((ordered.ends - ordered.last * before).bounded(rows, "rows of one group"))
    positives, size = (groups.select([place]) for place in (0, 1))
    sizes = concatenate([positives, (size - positives).bounded(rows, "rows of one group")])
    both = before + ordered.reached
    twice, all_twice = (both.select([place]) for place in (0, 1))
    levels = concatenate([all_twice - twice, twice]).bounded(2 * rows, "two counts of rows")
    weighted = settled(sizes.times(levels, magnitude=2.0 * rows**2))
    harmonic = builder.apply("reciprocals", ordered.outcomes, scale=PRECISION_BITS - halvings(rows))
    hits = (positives * ordered.reached.select([0])).squeeze().bounded(float(rows) ** 2, "two counts")
    return {
        "pairs": weighted.sum(magnitude=2.0 * rows**2),
        "squares": _third_moments(weighted, levels, rows),
        "precisions": hits.times(harmonic, magnitude=rows).sum(magnitude=rows).reshape(1),
    }


def squares_shift(rows: int) -> int:
    """How many halvings bring the sums of squares to 61 bits; they are below 0.6 rows^3."""
    return max(0, 3 * halvings(rows) - 61)


def _third_moments(weighted: Value, levels: Value, rows: int) -> Value:
    """Sums of P m^2 and N k^2, over 2^squares_shift: P N^2 is at most 4/27 of the cube of their sum."""
    shift = squares_shift(rows)
    coarse = levels.shifted(shift).rescale(0)
    most = 0.6 * rows**3 / 2.0**shift + 2.0 * rows**2
    return weighted.times(coarse, magnitude=most).sum(magnitude=most)
