"""What metrics need of the rows of a table: decision values against outcomes, summed in MPC.

Every metric follows from a few sums over rows. They come in parts, so that an evaluation pays only for what
is asked of it: counts of labels, losses of probabilities, and what needs the rows in the order of their
decision values (`tercet.ml.metrics.ranks`). Parts share what they have in common, since a plan makes equal
nodes once.
"""

from __future__ import annotations

import math

import attrs

from tercet.ml.linalg import halvings, settled
from tercet.plans import Value, sigmoid, softplus_tail

DECISION_SCALE = 24
TAIL_BOUND = 56.0
"""Where decision values are cut off for probabilities: e^-56 is far below the fixed point's last place."""
TAIL_BITS = 6
"""The bound is below 2 to this power."""
TAIL_ERROR = 2e-5
DEALT_BITS, COEFFICIENT_BITS = 20, 18
SUM_SCALE = 28
"""Fractional bits of sums of losses."""
SUM_BITS = 61
"""Bits that a number of rows and fractional bits of losses may have together, so that sums fit a word."""


@attrs.frozen(eq=False)
class Scored:
    """Decision values z of rows, and their outcomes y, zeros and ones; both `(rows,)`.

    `mask` `(rows,)` is 1 in rows that count and 0 in others, where y is zero too; None if all count.

    What follows is secret: the sign of z, z and its size up to TAIL_BOUND, probabilities. Signs and cuts are
    compared at once.
    """

    z: Value
    y: Value
    rows: int
    mask: Value | None = None

    @classmethod
    def of(cls, z: Value, y: Value, rows: int, mask: Value | None = None) -> Scored:
        """Rows at a scale such that sums of decision values, and these beside row numbers, fit a word.

        Where that cuts bits, equal decision values stay equal.
        """
        scale = min(z.scale, key_scale(rows))
        if mask is not None:
            mask = settled(mask)
            y = settled((y * mask).bounded(1.0, "a product of bits"))
        return cls(settled(z.nearest(scale)), y, rows, mask)

    @property
    def positive(self) -> Value:
        """1 where z > 0, which is the label, as in scikit-learn."""
        return (-self.z).is_negative().to_ring()

    @property
    def labelled(self) -> Value:
        """1 in rows that count and are labelled 1."""
        if self.mask is None:
            return self.positive
        return settled((self.positive * self.mask).bounded(1.0, "a product of bits"))

    @property
    def cut(self) -> Value:
        """z, cut off at the tail's bound on both sides."""
        widest = math.ldexp(self.z.type.limit, -self.z.scale)
        above = (self.z * -1 + TAIL_BOUND).is_negative().to_ring()
        below = (self.z + TAIL_BOUND).is_negative().to_ring()
        excess = above.times(self.z - TAIL_BOUND, magnitude=widest)
        excess = excess + below.times(self.z + TAIL_BOUND, magnitude=widest)
        excess = excess.bounded(widest, "no number is beyond both bounds")
        return settled((self.z - excess).bounded(TAIL_BOUND, "cut off"))

    @property
    def size(self) -> Value:
        """|z|, cut off at the tail's bound."""
        sign = (self.positive * 2 - 1).bounded(1.0, "plus or minus one")
        return settled(self.cut.times(sign, magnitude=TAIL_BOUND))

    @property
    def upper(self) -> Value:
        """Sigmoid of |z|, within 2e-5 and the fixed point, at scale 38."""
        return self._functions()[0]

    @property
    def softplus(self) -> Value:
        """log(1 + e^-|z|), as exactly."""
        return self._functions()[1]

    def _functions(self) -> list[Value]:
        return self.size.fourier(
            sigmoid(TAIL_BOUND, TAIL_ERROR),
            softplus_tail(TAIL_BOUND, TAIL_ERROR),
            dealt_bits=DEALT_BITS,
            coefficient_bits=COEFFICIENT_BITS,
        )

    @property
    def probability(self) -> Value:
        """Sigmoid of z: sigmoid(-a) = 1 - sigmoid(a)."""
        return _mirrored(self.upper, self.positive)


def _mirrored(upper: Value, positive: Value) -> Value:
    lifted = positive.times(upper * 2 - 1, magnitude=1.01).rescale(upper.scale)
    return lifted - upper + 1


def key_scale(rows: int) -> int:
    """Fractional bits that decision values may have: with sign and row number, they fit 63 bits."""
    return 63 - 1 - TAIL_BITS - halvings(rows)


def probabilities(z: Value) -> Value:
    """Sigmoid of decision values of any size, within 2.2e-5, at scale 48: no sum needs room."""
    scored = Scored(z, z, 0)
    (upper,) = scored.size.fourier(sigmoid(TAIL_BOUND, TAIL_ERROR), dealt_bits=24, coefficient_bits=24)
    return _mirrored(upper, scored.positive)


def outcomes(scored: Scored) -> dict[str, Value]:
    """Rows whose outcome is 1, `(1,)`; where not all rows count, also how many do."""
    counted = {"positives": scored.y} if scored.mask is None else {"positives": scored.y, "rows": scored.mask}
    return {
        name: bits.sum(magnitude=scored.rows).reshape(1).bounded(scored.rows, "a count")
        for name, bits in counted.items()
    }


def labels(scored: Scored) -> dict[str, Value]:
    """Rows labelled 1, and those of them whose outcome is 1; `(1,)` each."""
    agreed = scored.labelled.dot(scored.y, magnitude=scored.rows)
    predicted = scored.labelled.sum(magnitude=scored.rows)
    return {"agreed": agreed.reshape(1), "predicted": predicted.reshape(1)}


def losses(scored: Scored) -> dict[str, Value]:
    """Sums over rows of log-loss and squared error, over 2^halvings(rows), `(1,)` each at SUM_SCALE.

    A decision value that is wrong and beyond TAIL_BOUND counts as one there.
    """
    rows, shrink = scored.rows, halvings(scored.rows)
    wrong = scored.labelled + scored.y - scored.labelled * scored.y * 2
    wrong = settled(wrong.bounded(1.0, "one bit differs from another"))
    # log-loss: softplus(z) - y z is log(1 + e^-|z|), and |z| more where the sign is wrong
    missed = wrong.dot(scored.size, magnitude=TAIL_BOUND * rows).reshape(1)
    most = SUM_BITS - (rows - 1).bit_length()
    total = _total(scored, _shortened(scored.softplus, most), 0.7)
    loss = missed.shifted(shrink).rescale(SUM_SCALE) + total.shifted(shrink).rescale(SUM_SCALE)
    # Brier: (p - y)^2 = (1/2 - q)^2 + 2 e q with q = sigmoid(|z|) - 1/2 and e the wrong sign
    q = (scored.upper - 0.5).rescale(20)
    nearest = _shortened((q * q - q.at_scale(40) + 0.25).bounded(0.3, "(1/2 - q)^2"), most)
    square = _total(scored, nearest, 0.3) + 2 * wrong.dot(q.at_scale(nearest.scale)).reshape(1)
    brier = square.bounded(rows, "each summand is at most one").shifted(shrink).rescale(SUM_SCALE)
    return {"loss": loss, "brier": brier}


def _shortened(x: Value, scale: int) -> Value:
    """A number with no more fractional bits than that; its rounding is lost in the mean of many rows."""
    return x if x.scale <= scale else x.rescale(scale)


def _total(scored: Scored, x: Value, most: float) -> Value:
    """The sum of numbers of at most `most` over rows that count, `(1,)`."""
    bound = most * scored.rows
    total = x.sum(magnitude=bound) if scored.mask is None else scored.mask.dot(x, magnitude=bound)
    return total.reshape(1)
