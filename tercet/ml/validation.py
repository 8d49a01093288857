"""Fits of models that differ in public options alone, on the same folds.

All of them are one plan, so that they share their rounds: it takes about as many as one fit. Few steps come
first, as in a fit; if some fit has not converged after them, there is another plan, of all steps.
"""

from __future__ import annotations

import functools
import inspect
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import ConvergenceWarning, PlanError, SchemaError, UndefinedMetricWarning
from tercet.ml import fitting
from tercet.ml.describe import require_enough
from tercet.ml.disclosure import inverted, side_by_side
from tercet.ml.linear_model import LogisticRegression
from tercet.ml.metrics import METRICS, allowed, defined, metric_of, sums_of, takes
from tercet.ml.roles import Roles
from tercet.ml.splitting import Fold, folds
from tercet.ml.table import ANALYST, Steps, Table, as_names
from tercet.plans import Builder, Type, Value

P = ParamSpec("P")
T = TypeVar("T")

SCORES = tuple(name for name in METRICS if name not in ("roc_auc_se", "confusion_matrix"))
"""Metrics that a cross-validation can score with: those of which a mean over folds means something."""
TOO_FEW = "whether a score rests on fewer rows than owners allow"

Stored = tuple[str, Type]


@attrs.frozen(eq=False)
class Scored:
    """Where scores of folds `(cv,)` are, by name, and bits that say in which folds they are defined.

    Where owners set a minimum count, the bits say which rest on enough rows. A score is zero where its bit
    is; those that are always defined, and rest on public numbers of rows, have no bits.
    """

    scores: Mapping[str, Stored]
    defined: Mapping[str, Stored]

    def input(self, builder: Builder, name: str) -> tuple[Value, Value | None]:
        """In a plan, a score of all folds, and its bits."""
        bits = builder.input(*self.defined[name]) if name in self.defined else None
        return builder.input(*self.scores[name]), bits


def scores_of(scoring: str | Sequence[str]) -> tuple[str, ...]:
    """Names of scores. Raises PlanError for unknown ones."""
    names = as_names(scoring)
    for name in names:
        if name not in SCORES:
            raise PlanError(f"there is no score {name!r}; known are {', '.join(SCORES)}")
    return names


@attrs.frozen(eq=False)
class Validation:
    """Fits of models that differ in public options alone, on the same folds."""

    model: LogisticRegression
    table: Table
    target: str
    cv: int
    scoring: tuple[str, ...] = attrs.field(converter=scores_of)
    features: str | Sequence[str] | None
    sample_weight: str | None
    offset: str | None
    stratify: bool
    random_state: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What it was made of, by name: arguments of a computation that is declared `of_validation`."""
        return attrs.asdict(self, recurse=False)

    @property
    def what(self) -> str:
        """A title."""
        return f"{self.target!r} on {self.table.name!r}"

    @property
    def mend(self) -> str:
        """What helps if an outcome is missing from a fold."""
        return "use fewer folds" if self.stratify else "use stratify=True, or fewer folds"

    def warn_of_folds(self, score: str, without: npt.NDArray[np.bool_]) -> None:
        """Warn of folds `(cv,)` in which a score is not defined."""
        if not without.any():
            return
        numbers = ", ".join(map(str, np.flatnonzero(without) + 1))
        warnings.warn(
            f"cross-validation of {self.what}: {score} is not defined in fold {numbers} of {self.cv}, since "
            f"it takes {takes(score)}; the mean leaves such folds out; {self.mend}",
            UndefinedMetricWarning,
            stacklevel=2,
        )

    def _roles(self, table: Table) -> Roles:
        return Roles.of(table, self.target, self.features, self.sample_weight, self.offset)

    def run(self, models: Sequence[LogisticRegression]) -> Steps[list[Scored]]:
        """For each model, where its scores are. Reveals check bits only.

        Few steps come first, and all of them if some fit still moved. Should a decision value leave the range
        of the sigmoid anywhere, all start again with a wider one.
        """
        for model in models:
            model.check_options()
            if model.tol is not None:
                raise PlanError(
                    "a cross-validation has a fixed number of steps, since its fits share their rounds; "
                    "leave tol None"
                )
        self._roles(self.table)
        parts = yield from folds(
            self.table, self.cv, self.target if self.stratify else None, self.random_state
        )
        for _, test in parts:
            require_enough(test, test.min_count, "scores of folds")
        bounds = models[0].bounds(min(train.rows for train, _ in parts))
        for bound in bounds:
            for steps in models[0].step_counts(bound):
                revealed, scored = yield from self._try(models, parts, bound, steps)
                strayed = revealed.get(fitting.OUT_OF_RANGE, False)
                moves = revealed.get(fitting.MOVING, False) and not revealed.get(fitting.APART)
                # In the widest range, more steps may come back to it.
                if not moves or (strayed and bound != bounds[-1]):
                    break
            if not strayed:
                self._warn_of_moving(revealed)
                return scored
        raise SchemaError(
            f"cross-validation of {self.what}: in some fold a decision value left [-{bound:g}, {bound:g}], "
            "where the sigmoid is exact, or a coefficient grew without limit; use "
            f"{fitting.stronger(self.model.penalty is not None)}, a larger z_bound, or fewer columns"
        )

    def _try(
        self, models: Sequence[LogisticRegression], parts: Sequence[Fold], bound: float, steps: int
    ) -> Steps[tuple[dict[str, bool], list[Scored]]]:
        """All fits with one range and number of steps: the check bits, and where the scores are."""
        builder = self.table.lake.builder(f"cross-validate {self.what}")
        handles, bits = self._plan(builder, models, parts, bound, steps)
        for name, flags in bits.items():
            any_bit(flags).reveal(name, to=ANALYST, kind="check")
        result = yield builder.plan()
        revealed = {name: bool(result.revealed[name][0] > 0.5) for name in bits}
        self._require_sound(revealed)
        stored = [
            Scored(
                *({name: (handle, result.stored[handle]) for name, handle in part.items()} for part in one)
            )
            for one in handles
        ]
        return revealed, stored

    def _plan(
        self,
        builder: Builder,
        models: Sequence[LogisticRegression],
        parts: Sequence[Fold],
        bound: float,
        steps: int,
    ) -> tuple[list[tuple[dict[str, str], ...]], dict[str, list[Value]]]:
        """All fits and their scores: for each model handles of scores and of bits; all check bits by name."""
        handles: list[tuple[dict[str, str], ...]] = []
        bits: dict[str, list[Value]] = {}
        for model in models:
            scores: dict[str, list[Value]] = {name: [] for name in self.scoring}
            sound: dict[str, list[Value]] = {}
            for number, (train, test) in enumerate(parts):
                with builder.scope(f"C={model.C:g}, fold {number + 1}"):
                    problem = model.problem(train, self._roles(train), bound)
                    found, checks = model.planned(builder, problem, steps)
                    few = self._score(builder, found, train, test, scores, sound)
                    for name, bit in {**checks, **few}.items():
                        bits.setdefault(name, []).append(bit)
            handles.append(tuple(map(self._keep, (scores, sound))))
        return handles, bits

    def _keep(self, found: Mapping[str, Sequence[Value]]) -> dict[str, str]:
        """Store a vector of what was found in all folds `(1,)`, by name; the handles."""
        handles = {name: self.table.lake.handle(name) for name in found}
        for name, values in found.items():
            side_by_side(values).store(handles[name])
        return handles

    def _score(
        self,
        builder: Builder,
        found: fitting.Parameters,
        train: Table,
        test: Table,
        scores: Mapping[str, list[Value]],
        sound: dict[str, list[Value]],
    ) -> Mapping[str, Value]:
        """Append scores on one table of what was fitted on another, and bits that say if they are defined.

        Returns the bit that says whether owners refuse one of them, if one may be refused.
        """
        roles = self._roles(train)
        z = fitting.linear_predictor(
            test, roles.features, found.weights, found.intercept, like=train, offset=roles.offset
        )
        sums = sums_of(z, test, self.target, self.scoring)
        least, few = test.min_count, list[Value]()
        for name in self.scoring:
            score = metric_of(builder, name, sums, test.rows)
            if least > 1:  # what owners allow is defined as well
                bit = allowed(builder, name, sums, test.rows, least)
                few += [] if bit is None else [inverted(bit)]
            else:
                bit = defined(builder, name, sums, test.rows)
            scores[name].append(score if bit is None else score * bit)
            if bit is not None:
                sound.setdefault(name, []).append(bit)
        return {TOO_FEW: any_bit(few)} if few else {}

    def _require_sound(self, revealed: Mapping[str, bool]) -> None:
        """Raise SchemaError for what no wider range of the sigmoid and no more steps can mend."""
        if revealed.get(fitting.TOO_FEW):
            raise SchemaError(
                f"cross-validation of {self.what}: without one of the folds, fewer than "
                f"{self.table.min_count} rows count, and their owners do not allow figures that rest on so "
                "few; filter by a wider condition, or use more rows"
            )
        if revealed.get(fitting.FLAWED):
            raise SchemaError(
                f"cross-validation of {self.what}: in some fold a weight is negative, or too large beside "
                "the mean of all; leave such rows out, or use weights nearer to each other"
            )
        if revealed.get(fitting.FAR_OFFSET):
            raise SchemaError(
                f"cross-validation of {self.what}: some value of offset {self.offset!r} is beyond "
                f"{fitting.WIDEST_OFFSET:g} on one side, and offsets are added to log-odds"
            )
        if revealed.get(fitting.ONE_CLASS):
            raise SchemaError(
                f"cross-validation of {self.what}: without one of the folds, all rows that count have the "
                f"same outcome, or none counts, so there is nothing to tell apart; {self.mend}, or more rows"
            )
        if revealed.get(TOO_FEW):
            raise SchemaError(
                f"cross-validation of {self.what}: in some fold a score rests on fewer rows of an outcome "
                "than owners allow; use fewer folds, or score by accuracy, log_loss or brier"
            )

    def _warn_of_moving(self, revealed: Mapping[str, bool]) -> None:
        """Warn of fits that still move after all steps."""
        if revealed.get(fitting.MOVING) or revealed.get(fitting.APART):
            warnings.warn(
                f"cross-validation of {self.what}: some fit was still moving after its last step; raise "
                f"max_iter, use {fitting.stronger(self.model.penalty is not None)}, or leave out columns "
                "that nearly repeat others or tell outcomes apart without error",
                ConvergenceWarning,
                stacklevel=2,
            )


def any_bit(bits: Sequence[Value]) -> Value:
    """Whether any of some bits `(1,)` is set, `(1,)`."""
    return -functools.reduce(operator.add, bits).is_zero().to_ring() + 1


def of_validation(computed: Callable[Concatenate[Validation, P], Steps[T]]) -> Callable[..., Steps[T]]:
    """Plans of a validation as a function of what that is made of, by name, as requests have it."""

    @functools.wraps(computed)
    def call(**given: Any) -> Steps[T]:
        made = {name: given.pop(name) for name in own if name in given}
        return computed(Validation(**made), **given)  # type: ignore[call-arg]

    own = inspect.signature(Validation).parameters
    _, *others = inspect.signature(computed).parameters.values()
    keywords = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=inspect.Parameter.empty)
        for one in (*own.values(), *others)
    ]
    call.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return call
