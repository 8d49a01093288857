"""Evaluating a model: sums stay secret at the nodes, and metrics are revealed one by one.

`evaluate` computes the sums that the wanted metrics need. What is then asked for is computed from them in
MPC, divisions included, and revealed to one receiver; everything else stays secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from tercet import options
from tercet.errors import PlanError
from tercet.ml import views
from tercet.ml.computations import Data, computation, referred
from tercet.ml.describe import require_enough
from tercet.ml.disclosure import UNDEFINED, all_at_least, both, marked, tellable
from tercet.ml.faces import Async, F, Faced, Sync, computes
from tercet.ml.metrics import curves, ranks, sums
from tercet.ml.metrics.ratios import Ratios
from tercet.ml.metrics.sums import Scored
from tercet.ml.table import ANALYST, Steps, Table, Workspace, as_names
from tercet.options import LEVEL, NAMES, RECEIVER, TABLE, Made, Number
from tercet.plans import Builder, Type, Value
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.linear_model import LogisticRegression
    from tercet.ml.models import SecretModel

MODEL = Made(of="SecretParameters", what="a fitted model")
POINTS, BINS = Number(whole=True, least=3, most=1000), Number(whole=True, least=1, most=1000)

PARTS: Mapping[str, Callable[[Scored], Mapping[str, Value]]] = {
    "outcomes": sums.outcomes,
    "labels": sums.labels,
    "losses": sums.losses,
    "ranks": ranks.ranks,
}
"""What an evaluation computes of the rows, by part, as far as the wanted metrics need it."""


@attrs.frozen
class _Metric:
    """How a metric is computed, which parts it needs, what it takes, and on which counts of rows it rests."""

    compute: Callable[[Ratios], Value]
    parts: tuple[str, ...]
    divides_by: tuple[str, ...] = ()
    """Names of counts of `Ratios` of which none may be below `least`; none for all rows that count."""
    takes: str = "a row that counts"
    """The same in words."""
    least: int = 1
    rests_on: tuple[str, ...] = ()
    """Names of counts that owners' rules are applied to; none for all rows that count."""


_LABELS, _RANKS, _LOSSES = ("outcomes", "labels"), ("outcomes", "ranks"), ("outcomes", "losses")
_CLASSES, _CELLS = ("positives", "negatives"), ("agreed_on_zero", "alarms", "missed", "agreed")
_BOTH, _TRUE, _FALSE = "rows of both outcomes", "rows whose outcome is 1", "rows whose outcome is 0"

_METRICS: Mapping[str, _Metric] = {
    "accuracy": _Metric(Ratios.accuracy, _LABELS),
    "balanced_accuracy": _Metric(Ratios.balanced_accuracy, _LABELS, _CLASSES, _BOTH, rests_on=_CLASSES),
    "precision": _Metric(
        Ratios.precision, _LABELS, ("predicted",), "rows labelled 1", rests_on=("predicted",)
    ),
    "recall": _Metric(Ratios.recall, _LABELS, ("positives",), _TRUE, rests_on=("positives",)),
    "specificity": _Metric(Ratios.specificity, _LABELS, ("negatives",), _FALSE, rests_on=("negatives",)),
    "f1": _Metric(
        Ratios.f1,
        _LABELS,
        ("labelled_or_positive",),
        "rows whose label or outcome is 1",
        rests_on=("predicted", "positives"),
    ),
    "mcc": _Metric(
        Ratios.mcc,
        _LABELS,
        ("predicted", "labelled_zero", *_CLASSES),
        "rows of both labels and both outcomes",
        rests_on=_CELLS,
    ),
    "roc_auc": _Metric(Ratios.roc_auc, _RANKS, _CLASSES, _BOTH, rests_on=_CLASSES),
    "roc_auc_se": _Metric(
        Ratios.roc_auc_variance, _RANKS, _CLASSES, "two rows of each outcome", least=2, rests_on=_CLASSES
    ),
    "average_precision": _Metric(Ratios.average_precision, _RANKS, ("positives",), _TRUE, rests_on=_CLASSES),
    "log_loss": _Metric(Ratios.log_loss, _LOSSES),
    "brier": _Metric(Ratios.brier, _LOSSES),
    "confusion_matrix": _Metric(Ratios.confusion_matrix, _LABELS, least=0, rests_on=_CELLS),
}
METRICS = tuple(_METRICS)
"""Names of all metrics, in the order in which they are shown."""


def known_metrics(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of metrics as a tuple, all for None. Raises PlanError for unknown ones."""
    wanted = METRICS if names is None else as_names(names)
    for name in wanted:
        if name not in METRICS:
            raise PlanError(f"there is no metric {name!r}; known are {', '.join(METRICS)}")
    return wanted


def sums_of(z: Value, table: Table, target: str, metrics: Sequence[str]) -> dict[str, Value]:
    """What metrics need of decision values `(rows,)` and of the table with the outcomes, inside a plan."""
    (outcomes,) = table.raw(z.builder, [target])
    scored = Scored.of(z, outcomes.squeeze(), table.rows, table.selected(z.builder))
    wanted = {part for name in metrics for part in _METRICS[name].parts}
    found: dict[str, Value] = {}
    for part, compute in PARTS.items():
        if part in wanted:
            with z.builder.scope(part):
                found |= compute(scored)
    return found


def metric_of(builder: Builder, name: str, found: Mapping[str, Value], rows: int) -> Value:
    """A metric from such sums, `(1,)`, or `(4,)` for a confusion matrix."""
    with builder.scope(name):
        return _METRICS[name].compute(Ratios(builder, found, rows))


def defined(builder: Builder, name: str, found: Mapping[str, Value], rows: int) -> Value | None:
    """Whether a metric is defined, `(1,)`: whether there is what it takes; None if it always is."""
    metric = _METRICS[name]
    with builder.scope(name):
        ratios = Ratios(builder, found, rows)
        counts = [getattr(ratios, count) for count in metric.divides_by] or ratios.counted
        return all_at_least(counts, metric.least) if counts and metric.least else None


def takes(name: str) -> str:
    """What a metric takes to be defined, in words."""
    return _METRICS[name].takes


def rule_on(name: str) -> str:
    """How the bit is declared that says whether a minimum count allows a metric."""
    return f"whether the rule allows {name}"


def allowed(builder: Builder, name: str, found: Mapping[str, Value], rows: int, least: int) -> Value | None:
    """Whether all secret counts that a metric rests on are at least `least`, `(1,)`; None without any."""
    with builder.scope(name):
        ratios = Ratios(builder, found, rows)
        counts = [getattr(ratios, count) for count in _METRICS[name].rests_on] or ratios.counted
        return all_at_least(counts, least) if counts else None


def decode(name: str, numbers: npt.NDArray[np.float64]) -> Any:
    """A revealed metric as what users see, `nan` for UNDEFINED.

    Fixed point can leave a metric's range by a unit in the last place.
    """
    if name == "confusion_matrix":
        return np.rint(numbers).astype(np.int64).reshape(2, 2)
    number = float(numbers[0])
    if number < UNDEFINED / 2:
        return math.nan
    if name == "log_loss":
        return number
    if name == "roc_auc_se":
        return math.sqrt(max(number, 0.0))
    return float(np.clip(number, -1.0 if name == "mcc" else 0.0, 1.0))


def is_nan(value: Any) -> bool:
    """Whether a metric in the clear is missing."""
    return isinstance(value, float) and math.isnan(value)


@computation("evaluate", group="statistics", model=MODEL, table=TABLE, metrics=NAMES)
def evaluate(
    model: LogisticRegression[Any] | SecretModel, table: Table, metrics: str | Sequence[str] | None = None
) -> Steps[Evaluation]:
    """Sums that the named metrics follow from (all by default), left at the nodes.

    Rows that a filter left out do not count, and nobody learns how many do. Discloses a random order of
    shuffled rows to the nodes, if a metric needs the order of decision values.
    Raises SchemaError for a table without the target or without rows, PlanError for an unknown metric.
    """
    wanted = known_metrics(metrics)
    table.require_rows("an evaluation")
    table.require_boolean(model.target_, "target")
    if table.min_count > 1:
        require_enough(table, table.min_count, "metrics")
    builder = table.lake.builder(f"evaluate {model.target_} on {table.name}")
    z = model.decision_values(builder, table)
    found = sums_of(z, table, model.target_, wanted)
    handles = {name: table.lake.handle(f"metrics.{name}") for name in found}
    for name, value in found.items():
        value.store(handles[name])
    result = yield builder.plan()
    stored = {name: (handle, result.stored[handle]) for name, handle in handles.items()}
    title = f"{model.target_!r} on {table.name!r}"
    fitted = model.fitted_model()
    return Evaluation(table, title, wanted, stored, "" if fitted.is_fitted_like(table) else fitted.weights[0])


@short_tracebacks
@attrs.frozen(eq=False)
class Evaluation(Faced[F]):
    """Metrics of a model on a test set, secret until `reveal`; curves, until they are asked for.

    On an `AsyncLake`, every method gives an awaitable of what is annotated here.
    """

    table: Table = attrs.field(repr=False)
    what: str
    metrics: tuple[str, ...]
    _stored: dict[str, tuple[str, Type]] = attrs.field(repr=False)
    tells_of: str = attrs.field(default="", repr=False)
    """The model that it tells of, by its handle, if that was fitted on columns made otherwise."""
    origin: Data = attrs.field(default=None, repr=False)

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> Evaluation[Sync]: ...
        @property
        def _on_async(self) -> Evaluation[Async]: ...

    __repr__ = views.evaluation_text

    @property
    def lake(self) -> Workspace:
        """Where the table is."""
        return self.table.lake

    @property
    def rows(self) -> int:
        """Rows of the table, also those that a filter left out."""
        return self.table.rows

    @property
    def least(self) -> int:
        """What owners allow figures to rest on: no fewer rows."""
        return self.table.min_count

    def to_data(self, *, fresh: bool = False) -> Data:  # noqa: ARG002 - an evaluation is what it is
        """How requests refer to it."""
        return referred(self.origin, what=f"the evaluation of {self.what}")

    def from_computation(self, origin: Data) -> Evaluation[F]:
        """The same, which a computation has given."""
        return attrs.evolve(self, origin=origin)

    @computes
    @options.takes(metrics=NAMES, to=RECEIVER)
    def reveal(self, metrics: Sequence[str] | str | None = None, *, to: str = ANALYST) -> RevealedMetrics:
        """Some metrics in the clear (all that were computed by default), to one receiver.

        Discloses these and nothing else (of a filtered table, a confusion matrix tells how many rows count);
        where owners set a minimum count, also for each whether it rests on enough rows (a rate on those that
        it is a rate of, others on both outcomes, a confusion matrix and mcc on each of four cells, the former
        also on a number of rows that may be told). If not,
        the metric stays secret and is `nan`.

        A metric that is not defined is `nan` too, and tells nothing but that: a rate of no rows, an area, its
        error or balanced_accuracy without rows of both outcomes (the error takes two of each), mcc without
        rows of both labels besides, any but a confusion matrix where a filter leaves no row. `reasons` says
        why. To another member than the analyst metrics go as they lie at the nodes: -4 is "not defined", and
        roc_auc_se a variance.

        Known are accuracy, balanced_accuracy, precision, recall,
        specificity, f1, mcc (Matthews' correlation), roc_auc, roc_auc_se (its standard error, after DeLong),
        average_precision, log_loss, brier and confusion_matrix. Raises PlanError for others, and for those
        that the evaluation left out.
        """
        names = self.metrics if metrics is None else known_metrics(metrics)
        self._require(names)
        revealed: RevealedMetrics = self.lake.perform(self.revealed(names, to), "evaluate")
        return revealed

    @computation("metrics", group="statistics", names=attrs.evolve(NAMES, none=False), to=RECEIVER)
    def revealed(self, names: Sequence[str], to: str) -> Steps[RevealedMetrics]:
        """The plan of `reveal`."""
        self._require(names)
        builder = self.lake.builder(f"reveal metrics of {self.what}")
        found = {name: builder.input(*stored) for name, stored in self._stored.items()}
        for name in names:
            value = metric_of(builder, name, found, self.rows)
            value = marked(value, defined(builder, name, found, self.rows))
            rule = allowed(builder, name, found, self.rows, self.least) if self.least > 1 else None
            if rule is not None and name == "confusion_matrix" and self.table.filtered_from is not None:
                counted = value.sum().reshape(1)  # which tells how many rows do not count
                rule = both(rule, tellable(counted, self.table.filtered_from, self.least))
            if rule is not None:
                value = value * rule
                rule.reveal(rule_on(name), to=to, kind="check")
            value.reveal(name, to=to, kind="count" if name == "confusion_matrix" else "figure")
        told = (yield builder.plan()).revealed
        hidden = [name for name in names if told.get(rule_on(name), 1.0) < 0.5]
        values = {name: math.nan if name in hidden else decode(name, told[name]) for name in names}
        reasons = {name: f"takes {takes(name)}" for name in names if is_nan(values[name])}
        rule_says = f"rests on fewer than {self.least} rows, which owners do not allow"
        return RevealedMetrics(self.what, self.rows, values, reasons | dict.fromkeys(hidden, rule_says))

    @computes
    @options.takes(points=POINTS, to=RECEIVER)
    def roc_curve(self, *, points: int = 50, to: str = ANALYST) -> curves.RocCurve:
        """The ROC curve at so many points, its ends among them, to one receiver.

        Between the ends, thresholds lie after equal shares of the rows in the order of their decision values,
        or before the group of ties that these would cut through. Discloses the true and the false positive
        rates there, which are `nan` in rows of one outcome, of which there is no rate, and tell just that;
        where owners set a minimum count, also which points are told: those that have as many rows of both
        outcomes between them. Of a filtered table, it does not tell how many rows count. Raises SchemaError
        if no point may be told.
        """
        self._require_order("the ROC curve")
        curve: curves.RocCurve = self.lake.perform(self._roc_curve(points, to), "evaluate")
        return curve

    @computation("roc_curve", group="statistics", points=POINTS, to=RECEIVER)
    def _roc_curve(self, points: int, to: str) -> Steps[curves.RocCurve]:
        self._require_order("the ROC curve")
        builder = self.lake.builder(f"ROC curve of {self.what}")
        ratios, before = self._ratios(builder), builder.input(*self._stored["before"])
        curve = yield from curves.roc_curve(
            ratios, before, what=self.what, points=points, least=self.least, to=to
        )
        return curve

    @computes
    @options.takes(bins=BINS, to=RECEIVER)
    def calibration(self, *, bins: int = 10, to: str = ANALYST) -> curves.Calibration:
        """Predicted and observed risk in so many groups of rows, to one receiver.

        Groups are of equal size but for one row, by predicted risk. Discloses in each the sum of the
        probabilities and the number of rows whose outcome is 1; of a filtered table, also the number of rows
        that count. Where owners set a minimum count, neighbouring groups become one until each has as many
        rows of both outcomes, and it discloses which did. Raises SchemaError if not even all rows have, or if
        a filter leaves no row.
        """
        self._require_order("the calibration")
        table: curves.Calibration = self.lake.perform(self._calibration(bins, to), "evaluate")
        return table

    @computation("calibration", group="statistics", bins=BINS, to=RECEIVER)
    def _calibration(self, bins: int, to: str) -> Steps[curves.Calibration]:
        self._require_order("the calibration")
        builder = self.lake.builder(f"calibration of {self.what}")
        columns = [builder.input(*self._stored[name]) for name in ("outcomes", "probabilities")]
        table = yield from curves.calibration(
            self._ratios(builder), *columns, what=self.what, bins=bins, least=self.least, to=to
        )
        return table

    def _require(self, names: Sequence[str]) -> None:
        for name in known_metrics(names):
            if name not in self.metrics:
                raise PlanError(
                    f"the evaluation of {self.what} left out {name!r}; evaluate again, with "
                    f"metrics=[{name!r}]"
                )

    def _ratios(self, builder: Builder) -> Ratios:
        """The stored sums in a plan."""
        found = {name: builder.input(*stored) for name, stored in self._stored.items()}
        return Ratios(builder, found, self.rows)

    def _require_order(self, what: str) -> None:
        if "before" not in self._stored:
            raise PlanError(
                f"the evaluation of {self.what} did not sort its rows, and {what} needs their order; "
                "evaluate again, with metrics=['roc_auc'] or more"
            )


@attrs.frozen(eq=False)
class RevealedMetrics:
    """Metrics in the clear, as attributes; what was not asked for is missing.

    A metric that is not defined, or that a rule of owners keeps secret, is `nan`; `reasons` says why, by
    name.
    """

    what: str
    rows: int
    values: dict[str, Any]
    reasons: dict[str, str] = attrs.field(factory=dict)

    __repr__ = views.as_printed

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "values")
        if name in values:
            return values[name]
        if name in METRICS:
            raise AttributeError(f"the metric {name!r} was not revealed; ask for it in reveal(metrics=[...])")
        raise AttributeError(name)

    @options.takes(level=LEVEL)
    def roc_auc_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the ROC AUC, from its standard error and the normal distribution.

        Both ends are `nan` where one of the two is.
        """
        reach = NormalDist().inv_cdf((1 + level) / 2) * self.roc_auc_se
        low, high = np.clip([self.roc_auc - reach, self.roc_auc + reach], 0.0, 1.0)
        return float(low), float(high)

    def as_dict(self) -> dict[str, float | npt.NDArray[np.int64]]:
        """Metrics by name."""
        return dict(self.values)

    def __str__(self) -> str:
        lines = [f"{self.what}, {self.rows} rows"]
        for name, value in self.values.items():
            if name == "confusion_matrix" and isinstance(value, np.ndarray):
                (tn, fp), (fn, tp) = value.tolist()
                lines.append(
                    f"{name:<17} {tn} true negatives, {fp} false positives, {fn} false negatives, {tp} true "
                    "positives"
                )
            else:
                reason = f": {self.reasons[name]}" if name in self.reasons else ""
                lines.append(f"{name:<17} {value:.4f}{reason}")
        return "\n".join(lines)
