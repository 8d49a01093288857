"""Quality metrics of a secret model on a secret test set, computed in MPC and revealed one by one.

`evaluate` leaves sums at the nodes: counts of the confusion matrix, the loss, the squared error, the rank sum
behind the AUC. What is asked for is computed from them in MPC, divisions included, when it is revealed;
everything else stays secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet.actors import Builder, Type, Value, concatenate, sigmoid, softplus_tail
from tercet.errors import PlanError
from tercet.ml.linalg import halvings, reciprocal
from tercet.ml.table import ANALYST, Steps, Table, Workspace

if TYPE_CHECKING:
    from tercet.ml.linear_model import LogisticRegression

DECISION_SCALE = 24
TAIL_BOUND = 56.0
"""Where decision values are cut off for probabilities: e^-56 is far below the fixed point's last place."""
TAIL_ERROR = 2e-5
DEALT_BITS, COEFFICIENT_BITS = 20, 18
TIE = 2.0**-22
"""Decision values nearer than this are tied: truncation tells equal ones apart by one unit in the last
place."""
RATIO_SCALE = 28


def _magnitudes(z: Value) -> tuple[Value, Value]:
    """Signs `[z < 0]` in the ring, and |z| cut off at the tail's bound."""
    widest = math.ldexp(z.type.limit, -z.scale)
    negative = z.is_negative().to_ring()
    flipped = (negative * z).rescale(z.scale)
    size = (z - flipped * 2).bounded(widest, "|z| is no larger than z")
    over = (size * -1 + TAIL_BOUND).is_negative().to_ring()
    cut = (size - (over * (size - TAIL_BOUND)).rescale(z.scale)).bounded(TAIL_BOUND, "cut off")
    return negative, cut


def probabilities(z: Value) -> Value:
    """Sigmoid of decision values of any size, within 2e-5 and the fixed point, at scale 38."""
    negative, cut = _magnitudes(z)
    (upper,) = cut.fourier(
        sigmoid(TAIL_BOUND, TAIL_ERROR), dealt_bits=DEALT_BITS, coefficient_bits=COEFFICIENT_BITS
    )
    # sigmoid(-a) = 1 - sigmoid(a)
    return upper + (negative * (upper * -2 + 1)).rescale(upper.scale)


def evaluate(model: LogisticRegression, table: Table) -> Steps[Evaluation]:
    """Sums that all metrics follow from, left at the nodes.

    Discloses a random order of shuffled rows to the nodes. Raises SchemaError for a table without the target
    or without rows.
    """
    table.require_rows("an evaluation")
    table.require_boolean(model.target_, "target")
    builder = table.lake.builder(f"evaluate {model.target_} on {table.name}")
    z = model.decision_values(builder, table).rescale(DECISION_SCALE)
    (raw,) = table.raw(builder, [model.target_])
    sums = _sums(z, raw.squeeze(), table.rows)
    handles = {name: table.lake.handle(f"metrics.{name}") for name in sums}
    for name, value in sums.items():
        value.reshape(1).store(handles[name])
    result = yield builder.plan()
    stored = {name: (handle, result.stored[handle]) for name, handle in handles.items()}
    return Evaluation(table.lake, f"{model.target_!r} on {table.name!r}", table.rows, stored)


def _sums(z: Value, y: Value, rows: int) -> dict[str, Value]:
    builder = z.builder
    with builder.scope("labels"):
        labels = (-z).is_negative().to_ring()  # 1 where z > 0, as scikit-learn's predict
        agreed = labels.dot(y).reshape(1)
    with builder.scope("losses"):
        negative, cut = _magnitudes(z)
        upper, tail = cut.fourier(
            sigmoid(TAIL_BOUND, TAIL_ERROR),
            softplus_tail(TAIL_BOUND, TAIL_ERROR),
            dealt_bits=DEALT_BITS,
            coefficient_bits=COEFFICIENT_BITS,
        )
        # 1 where the sign of z disagrees with the outcome
        wrong = (negative * y * 2 - negative - y + 1).bounded(1.0, "one bit equals another").rescale(0)
        shrink = halvings(rows)
        # log-loss: softplus(z) - y z is log(1 + e^-|z|), and |z| more where the sign is wrong
        missed = wrong.dot(cut, magnitude=TAIL_BOUND * rows).reshape(1)
        loss = missed.shifted(shrink).rescale(RATIO_SCALE) + tail.sum().reshape(1).shifted(shrink).rescale(
            RATIO_SCALE
        )
        # Brier: (p - y)^2 = (1/2 - q)^2 + 2 e q with q = sigmoid(|z|) - 1/2 and e the wrong sign
        q = (upper - 0.5).rescale(20)
        square = (q * q - q.at_scale(40) + 0.25).sum().reshape(1) + 2 * wrong.dot(q.at_scale(40)).reshape(1)
        brier = square.bounded(rows, "each summand is at most one").shifted(shrink).rescale(RATIO_SCALE)
    with builder.scope("ranks"):
        # Beyond the tail's bound, all are certain: cut off, keys and row numbers fit one word.
        key = (cut * (negative * -2 + 1)).bounded(TAIL_BOUND, "cut off")
        bits = DECISION_SCALE + halvings(int(TAIL_BOUND)) + 2
        ordered, outcomes = builder.apply_all("sort", key, y, bits=bits)
        ranks = (outcomes * builder.apply("count_up", outcomes)).sum().reshape(1).at_scale(1)
    with builder.scope("ties"):
        ranks = ranks + _tie_correction(ordered, outcomes, rows)
    return {
        "agreed": agreed,
        "predicted": labels.sum(),
        "positives": y.sum(),
        "loss": loss,
        "brier": brier,
        "ranks": ranks,
    }


def _tie_correction(ordered: Value, outcomes: Value, rows: int) -> Value:
    """What makes each pair of tied rows of both outcomes count one half in the rank sum, `(1,)` at scale 1.

    In a run of equal values, let P and N be the positives and negatives before a row. The rank sum of
    positives has N for each positive row too many or too few by half: the correction is half the sum of P
    over negative rows less half the sum of N over positive ones. P and N come by doubling: with counts over a
    window of k rows and the bit that all of those are tied, the window of 2 k rows takes one product. log2(n)
    rounds.
    """
    gap = ordered - ordered.delay(1)
    tied = (gap - TIE).is_negative().to_ring().reshape(1, rows)
    y = outcomes.reshape(1, rows)
    window = tied * concatenate([y, y * -1 + 1]).delay(1)
    window, width = window.bounded(1.0, "one row"), 1
    while width < rows:
        grown = tied * concatenate([tied, window]).delay(width)
        tied, added = grown.select([0]).bounded(1.0, "a bit"), grown.select([1, 2])
        window, width = (window + added).bounded(2.0 * width, "as many rows"), 2 * width
    positives, negatives = (window.select([place]).squeeze() for place in (0, 1))
    excess = (outcomes * (positives + negatives)).sum(magnitude=float(rows) ** 2)
    return (positives.sum(magnitude=float(rows) ** 2) - excess).shifted(1).reshape(1)


# -- from sums to metrics ------------------------------------------------------------------------------------


class _Ratios:
    """Metrics as values of a plan, from the stored sums.

    Counts become fractions of the halved row count first.
    """

    def __init__(self, builder: Builder, sums: dict[str, Value], rows: int) -> None:
        self.builder, self.rows = builder, rows
        self.halved = halvings(rows)
        self.factor = 2.0**self.halved / rows
        counts = ("agreed", "predicted", "positives")
        self.sums = {
            name: value.bounded(rows, "a count") if name in counts else value for name, value in sums.items()
        }

    def _fraction(self, count: Value) -> Value:
        """A count over `2^halved`, exactly, at the ratios' scale."""
        return count.shifted(self.halved).at_scale(max(RATIO_SCALE, self.halved)).rescale(RATIO_SCALE)

    def _ratio(self, numerator: Value, denominator: Value) -> Value:
        """`numerator / denominator` of counts; 0 where both are 0, as scikit-learn."""
        below = self._fraction(denominator)
        inverse = reciprocal(below, low=-self.halved, high=2, scale=RATIO_SCALE)
        return self._fraction(numerator).times(inverse, magnitude=2.0).rescale(RATIO_SCALE)

    def _over_rows(self, value: Value) -> Value:
        return (value * self.builder.constant(self.factor, scale=24)).rescale(RATIO_SCALE)

    @property
    def _negatives(self) -> Value:
        return -self.sums["positives"] + self.rows

    def confusion_matrix(self) -> Value:
        """True negatives, false positives, false negatives, true positives, as scikit-learn flattens them."""
        agreed, predicted, positives = (self.sums[name] for name in ("agreed", "predicted", "positives"))
        entries = [
            -predicted - positives + agreed + self.rows,
            predicted - agreed,
            positives - agreed,
            agreed,
        ]
        return concatenate([entry.reshape(1, 1) for entry in entries]).reshape(4)

    def accuracy(self) -> Value:
        """Share of rows labelled right."""
        right = self.sums["agreed"] * 2 - self.sums["predicted"] - self.sums["positives"] + self.rows
        return self._over_rows(self._fraction(right))

    def precision(self) -> Value:
        """Share of right ones among rows labelled 1."""
        return self._ratio(self.sums["agreed"], self.sums["predicted"])

    def recall(self) -> Value:
        """Share of rows labelled 1 among those whose outcome is 1."""
        return self._ratio(self.sums["agreed"], self.sums["positives"])

    def f1(self) -> Value:
        """Harmonic mean of precision and recall."""
        return self._ratio(self.sums["agreed"] * 2, self.sums["predicted"] + self.sums["positives"])

    def log_loss(self) -> Value:
        """Mean negative log-likelihood."""
        return self._over_rows(self.sums["loss"])

    def brier(self) -> Value:
        """Mean squared error of the probabilities."""
        return self._over_rows(self.sums["brier"])

    def roc_auc(self) -> Value:
        """Area under the ROC curve.

        The rank sum of the positives less its least value, over positives times negatives. Tied decision
        values count one half, as in scikit-learn. 0 if only one outcome occurs.
        """
        ranks, positives = self.sums["ranks"], self.sums["positives"]
        pairs = float(self.rows) ** 2
        least = (positives * (positives - 1)).shifted(1).bounded(pairs, "a number of pairs")
        above = (ranks.bounded(pairs, "a sum of ranks") - least).bounded(pairs, "a number of pairs")
        scaled = above.shifted(2 * self.halved)
        result = scaled.rescale(RATIO_SCALE)
        for count in (positives, self._negatives):
            inverse = reciprocal(self._fraction(count), low=-self.halved, high=2, scale=RATIO_SCALE)
            result = result.times(inverse, magnitude=2.0).rescale(RATIO_SCALE)
        return result


_METRICS: dict[str, Callable[[_Ratios], Value]] = {
    "accuracy": _Ratios.accuracy,
    "precision": _Ratios.precision,
    "recall": _Ratios.recall,
    "f1": _Ratios.f1,
    "roc_auc": _Ratios.roc_auc,
    "log_loss": _Ratios.log_loss,
    "brier": _Ratios.brier,
    "confusion_matrix": _Ratios.confusion_matrix,
}
METRICS = tuple(_METRICS)


@attrs.frozen(eq=False)
class Evaluation:
    """Metrics of a model on a test set, secret until `reveal`."""

    lake: Workspace = attrs.field(repr=False)
    what: str
    rows: int
    _sums: dict[str, tuple[str, Type]] = attrs.field(repr=False)

    def reveal(self, metrics: Sequence[str] | str | None = None, *, to: str = ANALYST) -> RevealedMetrics:
        """Some metrics in the clear (all by default), to one receiver; the others stay secret.

        Known are accuracy, precision, recall, f1, roc_auc, log_loss, brier and confusion_matrix. Raises
        PlanError for others.
        """
        names = list(METRICS) if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
        for name in names:
            if name not in METRICS:
                raise PlanError(f"there is no metric {name!r}; known are {', '.join(METRICS)}")
        revealed: RevealedMetrics = self.lake.perform(self._reveal(names, to), "evaluate")
        return revealed

    def _reveal(self, names: Sequence[str], to: str) -> Steps[RevealedMetrics]:
        builder = self.lake.builder(f"reveal metrics of {self.what}")
        sums = {name: builder.input(*stored) for name, stored in self._sums.items()}
        ratios = _Ratios(builder, sums, self.rows)
        for name in names:
            with builder.scope(name):
                _METRICS[name](ratios).reveal(name, to=to)
        result = yield builder.plan()
        values: dict[str, Any] = {}
        for name in names:
            numbers = result.revealed[name]
            if name == "confusion_matrix":
                values[name] = np.rint(numbers).astype(np.int64).reshape(2, 2)
            elif name == "log_loss":
                values[name] = float(numbers[0])
            else:
                values[name] = float(np.clip(numbers[0], 0.0, 1.0))
        return RevealedMetrics(self.what, self.rows, values)


@attrs.frozen(eq=False)
class RevealedMetrics:
    """Metrics in the clear, as attributes; what was not asked for is missing."""

    what: str
    rows: int
    values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "values")
        if name in values:
            return values[name]
        if name in METRICS:
            raise AttributeError(f"the metric {name!r} was not revealed; ask for it in reveal(metrics=[...])")
        raise AttributeError(name)

    def as_dict(self) -> dict[str, float | npt.NDArray[np.int64]]:
        """Metrics by name."""
        return dict(self.values)

    def __str__(self) -> str:
        lines = [f"{self.what}, {self.rows} rows"]
        for name, value in self.values.items():
            if name == "confusion_matrix":
                (tn, fp), (fn, tp) = value.tolist()
                lines.append(
                    f"{name:<17} {tn} true negatives, {fp} false positives, {fn} false negatives, {tp} true "
                    "positives"
                )
            else:
                lines.append(f"{name:<17} {value:.4f}")
        return "\n".join(lines)
