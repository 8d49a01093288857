"""Choosing a model by what it does on rows that it has not seen.

All fits of a cross-validation, over folds and over a grid of penalties, share their plans and rounds (see
`validation`). What each of them scores stays secret but for the figures that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet import options
from tercet.errors import PlanError, SchemaError
from tercet.ml import views
from tercet.ml.computations import Calls, computation
from tercet.ml.disclosure import marked
from tercet.ml.estimator import Estimator
from tercet.ml.faces import Async, Faced, M, Sync, computes_on_table, fits
from tercet.ml.linear_model import LogisticRegression
from tercet.ml.metrics import takes
from tercet.ml.metrics.evaluation import decode
from tercet.ml.model_formulas import FitColumns
from tercet.ml.roles import COLUMNS_OF_A_FIT
from tercet.ml.table import ANALYST, Steps, Table
from tercet.ml.validation import Validation, of_validation, scores_of
from tercet.options import FLAG, RECEIVER, Made, Names, Number, Several, Text
from tercet.plans import concatenate
from tercet.tracebacks import short, short_tracebacks

Reals = npt.NDArray[np.float64]

LOSSES = ("log_loss", "brier")
"""Scores of which the smallest is the best."""
FOLDS = Number(whole=True, least=2, most=1000, error=SchemaError, advice="cv is the number of folds")
SCORING = Names(what="names of scores", advice="as in scoring='roc_auc'")
SCORE = Text(what="the name of a score", advice="as in scoring='roc_auc'")
PENALTIES = Several(each=Number(above=0), most=256, advice="as in C=[0.1, 1, 10]")
OPTIONS: dict[str, Any] = {
    **COLUMNS_OF_A_FIT,
    "model": Made(of="LogisticRegression", what="a LogisticRegression"),
    "cv": FOLDS,
    "scoring": SCORING,
    "stratify": FLAG,
    "random_state": options.RANDOM_STATE,
    "to": RECEIVER,
}
DECLARED: dict[str, Any] = {"group": "models", "fresh": ["model"], **OPTIONS}
"""What both searches are declared with."""

# -- validation ----------------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class CrossValidation:
    """Scores in the clear, by name: `(folds,)` each, `nan` in folds in which a score is not defined."""

    what: str
    scores: Mapping[str, Reals]

    __repr__ = views.as_printed

    def __getitem__(self, name: str) -> Reals:
        return self.scores[name]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each score over the folds in which it is defined; `nan` if it is in none."""
        return {name: _mean(scores[~np.isnan(scores)]) for name, scores in self.scores.items()}

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"{name:<17} {_spread(one)}" for name, one in self.scores.items())])


def _decoded(name: str, scores: Reals) -> Reals:
    """Revealed scores as what users see, each as the metric of that name."""
    return np.array([decode(name, scores[place : place + 1]) for place in range(len(scores))])


def _mean(scores: Reals) -> float:
    return float(scores.mean()) if len(scores) else math.nan


def _spread(scores: Reals) -> str:
    """Scores of folds in a line: their mean and ends, and in how many folds they are defined."""
    some = scores[~np.isnan(scores)]
    if not len(some):
        return "nan: not defined in any fold"
    line = f"{_mean(some):.4f}, from {some.min():.4f} to {some.max():.4f}"
    return line if len(some) == len(scores) else f"{line}, in {len(some)} of {len(scores)} folds"


@computes_on_table
@short
@options.takes(**OPTIONS)
def cross_validate(
    model: LogisticRegression,
    table: Table,
    target: str,
    *,
    cv: int = 5,
    scoring: str | Sequence[str] = "roc_auc",
    features: str | Sequence[str] | None = None,
    sample_weight: str | None = None,
    offset: str | None = None,
    stratify: bool = True,
    random_state: int | None = None,
    to: str = ANALYST,
) -> CrossValidation:
    """Fit a model's options on all folds but one, score on that one, for each of `cv` folds.

    `scoring` names metrics (all but roc_auc_se and confusion_matrix). By default folds have the same share of
    outcomes, as in scikit-learn; with a `random_state`, they are the same rows again, as in `Table.split`.
    Fits share their rounds, of which there are about as many as of one fit; the model itself is left as it
    is. Sample weights weigh in the fits alone. A score that is not defined in a fold, as an area where all
    rows have the same outcome, is `nan` there and in no mean; an UndefinedMetricWarning names the folds.

    Discloses each fold's scores to `to`; the check bits of a fit, of all fits together, and where owners set
    a minimum count, whether a score rests on fewer rows, and then none is asked for; to the nodes a random
    order of shuffled rows, for areas under curves and for stratified or repeatable folds. On an `AsyncLake`,
    gives an awaitable. Raises as `LogisticRegression.fit` does, and PlanError for unknown scores.
    """
    options = {
        "cv": cv,
        "scoring": scores_of(scoring),
        "sample_weight": sample_weight,
        "offset": offset,
        "stratify": stratify,
        "random_state": random_state,
    }

    def steps() -> Calls[CrossValidation]:
        search = yield from _validation(
            model, table, FitColumns.of(table, target, features, intercept=model.fit_intercept), options
        )
        scored: CrossValidation = yield _cross_validate(**search.options, to=to)
        return scored

    found: CrossValidation = table.lake.perform(steps(), "cross-validate")
    return found


def _validation(
    model: LogisticRegression, table: Table, given: FitColumns, options: Mapping[str, Any]
) -> Calls[Validation]:
    """A validation of a model by columns, which are computed first where they are not there.

    Nothing that they are made of was learned from rows (see `FitColumns`), so they are made once for all
    folds.
    """
    prepared = yield from given.applied(table)
    return Validation(model, prepared, given.target, features=given.features, **options)


@computation("cross_validate", **DECLARED)
@of_validation
def _cross_validate(search: Validation, to: str) -> Steps[CrossValidation]:
    (scored,) = yield from search.run([search.model])
    builder = search.table.lake.builder(f"reveal scores of {search.what}")
    for name in search.scoring:
        marked(*scored.input(builder, name)).reveal(f"{name} of each fold", to=to, kind="figure")
    revealed = (yield builder.plan()).revealed
    found = {name: _decoded(name, revealed[f"{name} of each fold"]) for name in search.scoring}
    for name, scores in found.items():
        search.warn_of_folds(name, np.isnan(scores))
    return CrossValidation(f"{search.what}, {search.cv} folds", found)


def _is_score(instance: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001 - a validator
    scores_of(value)


@short_tracebacks
@attrs.define(eq=False, repr=False)
class GridSearch(Estimator, Faced[M]):
    """The penalty that a cross-validation finds best, and the model with it.

    `fit` makes all fits, for each C and fold, side by side. Revealed of them are means over folds, for each
    C, of one score: `mean_scores_` `(len(C),)`. `best_params_` has the best one (the smallest for
    log_loss and brier), and `best_model_` is fitted with it on all rows. With a `random_state`, folds are the
    same rows again.

    A fold in which a score is not defined is in no mean, and an UndefinedMetricWarning names it. The choice
    is among those C whose score is defined in most folds.
    """

    model: LogisticRegression = attrs.field(
        validator=Made(of="LogisticRegression", what="a LogisticRegression")
    )
    C: Sequence[float] = attrs.field(validator=PENALTIES)
    scoring: str = attrs.field(default="roc_auc", validator=[SCORE, _is_score])
    cv: int = attrs.field(default=5, validator=FOLDS)
    stratify: bool = attrs.field(default=True, validator=FLAG)
    random_state: int | None = attrs.field(default=None, validator=options.RANDOM_STATE)

    mean_scores_: Reals = attrs.field(factory=lambda: np.zeros(0), init=False)
    best_params_: dict[str, float] = attrs.field(factory=dict, init=False)
    best_model_: LogisticRegression[M] | None = attrs.field(default=None, init=False)

    if TYPE_CHECKING:

        @property
        def _on_sync(self) -> GridSearch[Sync]: ...
        @property
        def _on_async(self) -> GridSearch[Async]: ...

    @fits
    @options.takes(**COLUMNS_OF_A_FIT, to=RECEIVER)
    def fit(
        self,
        table: Table,
        target: str,
        *,
        features: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        offset: str | None = None,
        to: str = ANALYST,
    ) -> Self:
        """Search, and fit the best model on all rows; its parameters stay secret.

        Discloses the mean score for each C to `to` and, of a score that may not be defined, in which folds it
        is; otherwise what `cross_validate` and the last fit disclose. Raises SchemaError if the score is
        not defined in any fold, PlanError for a model without a penalty, which no C changes.
        """
        if self.model.penalty is None:
            raise PlanError("the model has penalty=None, which no C changes; search with penalty='l2'")
        if len(set(self.C)) < len(self.C):
            raise PlanError(f"C={list(self.C)} has to name penalties, each of them once")
        options = {
            "cv": self.cv,
            "scoring": scores_of(self.scoring),
            "sample_weight": sample_weight,
            "offset": offset,
            "stratify": self.stratify,
            "random_state": self.random_state,
        }
        given = FitColumns.of(table, target, features, intercept=self.model.fit_intercept)
        fitted: Self = table.lake.perform(self._fit(table, given, options, to), "grid search")
        return fitted

    def _fit(self, table: Table, given: FitColumns, options: Mapping[str, Any], to: str) -> Calls[Self]:
        search = yield from _validation(self.model, table, given, options)
        sums, there = yield _grid_scores(**search.options, C=list(self.C), to=to)
        place = self._choose(search, sums, there)
        self.best_params_ = {"C": float(self.C[place])}
        best = attrs.evolve(self.model, C=self.best_params_["C"])
        self.best_model_ = yield best.fit_steps(
            search.table,
            search.target,
            search.features,
            sample_weight=search.sample_weight,
            offset=search.offset,
        ).then(given.fitted)
        return self

    def _choose(self, search: Validation, sums: Reals, there: npt.NDArray[np.bool_]) -> int:
        """The place of the best C, by sums over folds `(len(C),)` and where they are defined `(.., cv)`."""
        (score,), counts, by_fold = search.scoring, there.sum(1), there.sum(0)
        if not counts.any():
            raise SchemaError(
                f"grid search of {search.what}: {score} is not defined in any fold, for any C, since it "
                f"takes {takes(score)}; {search.mend}, or score by accuracy, log_loss or brier"
            )
        search.warn_of_folds(score, by_fold < len(sums))
        means = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        self.mean_scores_ = _decoded(score, means)
        sign = -1.0 if score in LOSSES else 1.0
        return int(np.argmax(np.where(counts == counts.max(), sign * self.mean_scores_, -np.inf)))


@computation("grid_search", C=PENALTIES, **DECLARED)
@of_validation
def _grid_scores(
    search: Validation, C: Sequence[float], to: str
) -> Steps[tuple[Reals, npt.NDArray[np.bool_]]]:
    """Sums of a score over folds `(len(C),)`, and in which folds it is defined `(len(C), cv)`."""
    (score,) = search.scoring
    found = yield from search.run([attrs.evolve(search.model, C=c) for c in C])
    builder = search.table.lake.builder(f"reveal mean scores of {search.what}")
    what, where = f"sum over folds of {score}, for each C", f"folds in which {score} is defined, for each C"
    inputs = [scored.input(builder, score) for scored in found]
    sums = concatenate([value.sum().reshape(1, 1) for value, _ in inputs]).reshape(len(C))
    sums.reveal(what, to=to, kind="figure")
    sound = [bits for _, bits in inputs if bits is not None]
    if sound:
        concatenate([each.reshape(1, search.cv) for each in sound]).reveal(where, to=to, kind="check")
    revealed = (yield builder.plan()).revealed
    shape = len(C), search.cv
    there = revealed[where].reshape(shape) > 0.5 if sound else np.full(shape, fill_value=True)
    return revealed[what], there
