"""From sums over rows to metrics, in MPC: fractions, their reciprocals and roots.

Counts become fractions of the row count, halved to below one, which are exact. A ratio multiplies by a
reciprocal, which one step of Newton's method makes as exact as its last place. Where what it is divided by is
zero, a ratio is some number that means nothing: `tercet.ml.metrics.evaluation` knows which counts each metric
takes, and tells of one that lacks them nothing but that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from tercet.ml.disclosure import side_by_side
from tercet.ml.linalg import halvings, inverse_sqrt, reciprocal
from tercet.ml.metrics.ranks import squares_shift
from tercet.ml.metrics.sums import SUM_SCALE
from tercet.plans import Builder, Value

FRACTION_SCALE = 34
INVERSE_SCALE = 26
"""A fraction times an inverse fits 62 bits."""
VARIANCE_SCALE, ERROR_SCALE = 30, 44
ROOT_SCALE = 20
COVARIANCE_SCALE = 40


@attrs.frozen(eq=False)
class Ratios:
    """Metrics as values of a plan, from stored sums over so many rows.

    If not all of them count, `sums` has a secret number of `rows` that do.
    """

    builder: Builder
    sums: Mapping[str, Value]
    rows: int

    @property
    def halved(self) -> int:
        """Counts are read over 2 to this power."""
        return halvings(self.rows)

    # -- counts ----------------------------------------------------------------------------------------------

    @property
    def agreed(self) -> Value:
        """Rows labelled 1 whose outcome is 1."""
        return self.sums["agreed"]

    @property
    def predicted(self) -> Value:
        """Rows labelled 1."""
        return self.sums["predicted"]

    @property
    def positives(self) -> Value:
        """Rows whose outcome is 1."""
        return self.sums["positives"]

    @property
    def negatives(self) -> Value:
        """Rows whose outcome is 0."""
        return self._others(self.positives)

    @property
    def labelled_zero(self) -> Value:
        """Rows labelled 0."""
        return self._others(self.predicted)

    @property
    def labelled_or_positive(self) -> Value:
        """Rows labelled 1 and rows whose outcome is 1, both counted."""
        return (self.predicted + self.positives).bounded(2 * self.rows, "two counts")

    @property
    def _total(self) -> Value | int:
        """Rows that count."""
        return self.sums.get("rows", self.rows)

    def _others(self, count: Value) -> Value:
        return (-count + self._total).bounded(self.rows, "a count")

    @property
    def agreed_on_zero(self) -> Value:
        """Rows labelled 0 whose outcome is 0."""
        count = -self.predicted - self.positives + self.agreed + self._total
        return count.bounded(self.rows, "a count")

    @property
    def counted(self) -> list[Value]:
        """Rows that count, if their number is secret."""
        return [self.sums["rows"]] if "rows" in self.sums else []

    @property
    def alarms(self) -> Value:
        """Rows labelled 1 whose outcome is 0."""
        return (self.predicted - self.agreed).bounded(self.rows, "a count")

    @property
    def missed(self) -> Value:
        """Rows labelled 0 whose outcome is 1."""
        return (self.positives - self.agreed).bounded(self.rows, "a count")

    # -- fractions -------------------------------------------------------------------------------------------

    def _fraction(self, count: Value) -> Value:
        """A count, or half of one, over `2^halved`, exactly."""
        return count.shifted(self.halved).at_scale(FRACTION_SCALE)

    def _inverse(self, count: Value) -> Value:
        """One over a count's fraction, within 2^-26 of it and the last place. `count` may be halved.

        From 1e-5, by a step of Newton's method: `v + v (1 - x v)`.
        """
        x, low = self._fraction(count), -self.halved - 1
        first = reciprocal(x, low=low, high=1, scale=INVERSE_SCALE)
        missing = (x.times(first, magnitude=1.1) * -1 + 1).bounded(1.1, "zero has no inverse")
        short = missing.rescale(min(SUM_SCALE, 48 - self.halved))
        added = first.times(short, magnitude=2.0 ** (-low - 14)).rescale(INVERSE_SCALE)
        return (first + added).bounded(2.0 ** (1 - low), "one over half a row")

    def _over(self, value: Value, count: Value) -> Value:
        """A fraction over a count's, where the count is the larger one."""
        result = value.times(self._inverse(count), magnitude=2.0).rescale(FRACTION_SCALE)
        return result.bounded(1.01, "a part of a whole")

    def ratio(self, part: Value, count: Value) -> Value:
        """A count over another that is no smaller."""
        return self._over(self._fraction(part), count)

    def _over_rows(self, value: Value) -> Value:
        total = self._total
        if isinstance(total, Value):
            return value.times(self._inverse(total), magnitude=64.0).rescale(SUM_SCALE)
        factor = self.builder.constant(2.0**self.halved / total, scale=24)
        return (value * factor).rescale(SUM_SCALE)

    # -- of labels -------------------------------------------------------------------------------------------

    def confusion_matrix(self) -> Value:
        """True negatives, false positives, false negatives, true positives, as scikit-learn flattens them."""
        return side_by_side([self.agreed_on_zero, self.alarms, self.missed, self.agreed])

    def accuracy(self) -> Value:
        """Share of rows labelled right."""
        right = (self.agreed + self.agreed_on_zero).bounded(self.rows, "a count")
        return self._over_rows(self._fraction(right).rescale(SUM_SCALE))

    def precision(self) -> Value:
        """Share of right ones among rows labelled 1."""
        return self.ratio(self.agreed, self.predicted)

    def recall(self) -> Value:
        """Share of rows labelled 1 among those whose outcome is 1."""
        return self.ratio(self.agreed, self.positives)

    def specificity(self) -> Value:
        """Share of rows labelled 0 among those whose outcome is 0."""
        return self.ratio(self.agreed_on_zero, self.negatives)

    def balanced_accuracy(self) -> Value:
        """Mean of recall and specificity."""
        return (self.recall() + self.specificity()).shifted(1)

    def f1(self) -> Value:
        """Harmonic mean of precision and recall."""
        mean = self.labelled_or_positive.shifted(1).bounded(self.rows, "a mean of counts")
        return self.ratio(self.agreed, mean)

    def mcc(self) -> Value:
        """Matthews' correlation coefficient of labels and outcomes: their covariance over both deviations."""
        product = self.predicted * self.positives
        covariance = _placed(self.agreed * self._total - product, 2 * self.halved, COVARIANCE_SCALE, 1.0)
        counts = [self.predicted, self.positives, self._others(self.predicted), self.negatives]
        fractions = side_by_side(self._fraction(count) for count in counts)
        low = -math.ceil(self.halved / 2)
        roots = inverse_sqrt(fractions, low=low, high=1, scale=ROOT_SCALE).column()
        for place in range(4):  # no covariance exceeds either deviation
            root = roots.select([place]).reshape(1)
            covariance = covariance.times(root, magnitude=1.01).rescale(COVARIANCE_SCALE)
        return covariance

    # -- of probabilities ------------------------------------------------------------------------------------

    def log_loss(self) -> Value:
        """Mean negative log-likelihood."""
        return self._over_rows(self.sums["loss"])

    def brier(self) -> Value:
        """Mean squared error of the probabilities."""
        return self._over_rows(self.sums["brier"])

    # -- of the order of rows --------------------------------------------------------------------------------

    def roc_auc(self) -> Value:
        """Area under the ROC curve: share of pairs of both outcomes in the right order, ties one half."""
        above = _entry(self.sums["pairs"], 1)
        share = _placed(above, 2 * self.halved + 1, FRACTION_SCALE, 1.0)
        return self._over(self._over(share, self.positives), self.negatives)

    def roc_auc_variance(self) -> Value:
        """Variance of the area over samples of rows (DeLong, DeLong, Clarke-Pearson 1988).

        For each outcome, the variance over its rows of the share of rows of the other outcome that are on the
        right side, over the number of rows; so it takes two rows of each.
        """
        positives, negatives = self.positives, self.negatives
        area = self.roc_auc()
        first = self._mean_variance(_entry(self.sums["squares"], 0), -area + 1, positives, negatives)
        second = self._mean_variance(_entry(self.sums["squares"], 1), area, negatives, positives)
        return (first + second).shifted(self.halved).rescale(ERROR_SCALE)

    def _mean_variance(self, squares: Value, mean: Value, count: Value, others: Value) -> Value:
        """Variance of the mean of shares of `others` over `count` rows, times 2^halved.

        `squares` sums the squares of twice those numbers, `mean` is that of the shares.
        """
        bits = 3 * self.halved + 2 - squares_shift(self.rows)
        square = _placed(squares, bits, FRACTION_SCALE, 1.0)
        for divisor in (count, others, others):
            square = self._over(square, divisor)
        short = mean.bounded(1.01, "a share").rescale(VARIANCE_SCALE)
        spread = square.rescale(VARIANCE_SCALE) - (short * short).rescale(VARIANCE_SCALE)
        fewer = (count - 1).bounded(self.rows, "a count, or -1")
        inverse = self._inverse(fewer).rescale(min(INVERSE_SCALE, 31 - self.halved))
        return spread.times(inverse, magnitude=0.3 * 2.0**self.halved)  # a share varies by 1/4 at most

    def average_precision(self) -> Value:
        """Mean of the precision at each positive row's threshold."""
        return self._over(_placed(self.sums["precisions"], self.halved, FRACTION_SCALE, 1.0), self.positives)


def _entry(pair: Value, place: int) -> Value:
    return pair.column().select([place]).reshape(1)


def _placed(value: Value, bits: int, scale: int, magnitude: float) -> Value:
    """A value over 2^bits, which then is at most `magnitude`, at `scale`."""
    return value.shifted(bits).bounded(magnitude, "a fraction").rescale(scale)
