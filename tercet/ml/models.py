"""Models after the fit: secret at the nodes, used on other tables, kept under a name; or in the clear.

A `SecretModel` is to parameters what a `Table` is to rows: a handle with public facts, which are the names,
kinds and scales of the columns that it was fitted on. Whoever may use it predicts without learning a
parameter, and the prediction stays secret until it is revealed to whom it is for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

import attrs
import numpy as np
import numpy.typing as npt

from tercet.errors import PlanError, SchemaError
from tercet.ml import clear, views
from tercet.ml.computations import Data, called, computation, referred
from tercet.ml.estimator import Learned, SecretParameters, estimator_named
from tercet.ml.faces import F, Faced, computes, computes_on_table, makes_on_table
from tercet.ml.fitting import WIDEST_COEFFICIENT, linear_predictor
from tercet.ml.linalg import logarithm, settled
from tercet.ml.metrics import DECISION_SCALE, Evaluation, evaluate, probabilities
from tercet.ml.newton import expit
from tercet.ml.schema import ColumnSchema
from tercet.ml.secret_column import SecretColumn
from tercet.ml.stored_columns import Column, Part
from tercet.ml.table import ANALYST, Steps, Table, Workspace
from tercet.options import LEVEL, NAME, NAMES, READERS, RECEIVER, TABLE, Choice, Either, Made, Number, takes
from tercet.plans import Builder, Form, Type, Value
from tercet.tracebacks import short_tracebacks

if TYPE_CHECKING:
    from tercet.ml.linear_model import LogisticRegression
    from tercet.ml.summary import Summary

Reals = npt.NDArray[np.float64]

PROBABILITY_SCALE = 30
LOG_ODDS_BITS, LOWEST_SHARE = 26, 20
"""Fractional bits of a secret threshold, and halvings down to the least one that is told from zero."""
FORMAT = "tercet.logistic/1"
OBJECTIVE = {"penalty", "C", "class_weight", "fit_intercept", "sample_weight"}
"""What a summary has to know of the loss that was minimised, beside the columns."""

THRESHOLD = Either(
    rules=(
        Number(above=0, below=1),
        Made(of="Table", what="a table of one row and one column that holds a secret one"),
    ),
    none=True,
)
"""What a threshold of labels may be."""
KIND = Choice(choices=("decision value", "probability", "label"))


@short_tracebacks
@attrs.frozen(eq=False)
class SecretModel(SecretParameters, Faced[F]):
    """A fitted logistic regression whose parameters only the nodes hold.

    `like` is a table with the columns as they were when the model was fitted; its rows are not needed.
    `objective` has the options of the fit that say what it minimised, and the name of its weights; `steps` is
    how many it made, 0 where that was not kept; `converged_` whether they were enough, None where nobody
    looked or that was not kept. On an `AsyncLake`, what computes gives an awaitable of what is told here.
    """

    like: Table = attrs.field(repr=False)
    target_: str
    names: tuple[str, ...]
    weights: tuple[str, Type] = attrs.field(repr=False)
    intercept: tuple[str, Type] = attrs.field(repr=False)
    offset: str | None = None
    objective: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    steps: int = 0
    converged_: bool | None = attrs.field(default=None, repr=False)
    recipes: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """How the columns that it goes by were made, if it was kept; none where that was not kept."""
    origin: Data = attrs.field(default=None, repr=False)

    def to_data(self, *, fresh: bool = False) -> Data:  # noqa: ARG002 - a model is what it is
        """How requests refer to it."""
        return referred(self.origin, what=f"the model of {self.target_!r}")

    def from_computation(self, origin: Data) -> Self:
        """The same, which a computation has given."""
        return attrs.evolve(self, origin=origin)

    def fitted_model(self) -> Self:
        """Itself."""
        return self

    def fitted_on(self) -> Mapping[str, str]:
        """How the features, the target and the offset that it was fitted on were made, by name."""
        names = (*self.names, self.target_, *([self.offset] if self.offset else []))
        kept = self.recipes
        return {name: self.like.column(name).recipe for name in names} if kept is None else kept

    def is_fitted_like(self, table: Table) -> bool:
        """Whether the columns of a table that it goes by are made as those that it was fitted on."""
        made, fitted = {column.name: column.recipe for column in table.columns}, self.fitted_on()
        return fitted != {} and all(made.get(name) == recipe for name, recipe in fitted.items())

    def _facts(self) -> tuple[tuple[str, ...], int]:
        return self.names, self.steps

    __repr__ = views.model_text

    def parameters(self, builder: Builder, table: Table) -> tuple[Value, Value]:
        """In a plan, coefficients `(d,)` of a table's columns in its units, and the intercept `(1,)`."""
        table.require_like(self.like, self.names, "the model was fitted on")
        weights, intercept = builder.input(*self.weights), builder.input(*self.intercept)
        moves = [
            table.column(name).unit_exponent - self.like.column(name).unit_exponent for name in self.names
        ]
        if any(moves):
            factors = builder.constant(np.exp2(moves), scale=max(0, -min(moves)))
            weights = weights * factors
        return weights.bounded(WIDEST_COEFFICIENT, "checked at the end"), intercept

    def decision_values(self, builder: Builder, table: Table) -> Value:
        """`X w + b` for the rows of a table, as a product at full scale, inside a plan.

        A model that was fitted with an offset adds that column of the table.
        """
        table.require_like(self.like, self.names, "the model was fitted on")
        weights, intercept = builder.input(*self.weights), builder.input(*self.intercept)
        return linear_predictor(table, self.names, weights, intercept, like=self.like, offset=self.offset)

    @makes_on_table
    @takes(table=TABLE)
    def decision_function(self, table: Table) -> SecretColumn:
        """Secret log-odds of each row; `reveal` them to whom you choose. Discloses nothing."""
        return self._predict(table, "decision value", None)

    @makes_on_table
    @takes(table=TABLE)
    def predict_proba(self, table: Table) -> SecretColumn:
        """Secret probabilities of the outcome 1 for each row. Discloses nothing.

        The nodes hold their log-odds, to 24 bits after the point. These are what `reveal` discloses to you,
        and your client computes the probabilities, so equal rows have equal ones. Another receiver is sent
        probabilities within 2e-5, in which equal rows may differ by as much.
        """
        return self._predict(table, "probability", None)

    @makes_on_table
    @takes(table=TABLE, threshold=THRESHOLD)
    def predict(self, table: Table, *, threshold: float | Table | None = None) -> SecretColumn:
        """Secret labels of each row: 1 where the probability exceeds a threshold, by default 1/2.

        `threshold` is a public number between 0 and 1, or a secret one: a table of one row and one column, as
        its owner uploaded it. Probabilities nearer to a secret threshold than 1e-5 can get either label, and
        equal ones get the same. Discloses nothing. Raises PlanError for another threshold.
        """
        return self._predict(table, "label", threshold)

    def _predict(self, table: Table, what: str, threshold: float | Table | None) -> SecretColumn:
        column: SecretColumn = table.lake.perform(self._prediction(table, what, threshold), "predict")
        return column

    @computation("predict", group="predictions", table=TABLE, what=KIND, threshold=THRESHOLD)
    def _prediction(self, table: Table, what: str, threshold: float | Table | None) -> Steps[SecretColumn]:
        table.require_rows("a prediction")
        builder = table.lake.builder(f"{what} of {self.target_} on {table.name}")
        z = self.decision_values(builder, table)
        value = _labels(z, threshold) if what == "label" else z.nearest(DECISION_SCALE)
        handle = table.lake.handle(what)
        value.store(handle)
        result = yield builder.plan()
        title = f"{what} of {self.target_!r} on {table.name!r}"
        column = SecretColumn(table.lake, title, handle, result.stored[handle], like=table)
        return attrs.evolve(column, read=expit, told=_probabilities) if what == "probability" else column

    @makes_on_table
    @takes(table=TABLE, metrics=NAMES)
    def evaluate(self, table: Table, *, metrics: str | Sequence[str] | None = None) -> Evaluation:
        """Quality metrics on a table with the target; see `LogisticRegression.evaluate`."""
        found: Evaluation = table.lake.perform(evaluate(self, table, metrics), "evaluate")
        return found

    @computes_on_table
    @takes(table=TABLE, to=RECEIVER)
    def score(self, table: Table, *, to: str = ANALYST) -> float:
        """The accuracy on a table with the target, to one receiver. Discloses it; see `Evaluation.reveal`."""
        score: float = table.lake.perform(self._score(table, to), "evaluate")
        return score

    @computation("score", group="statistics", table=TABLE, to=RECEIVER)
    def _score(self, table: Table, to: str) -> Steps[float]:
        evaluation = yield from evaluate(self, table, "accuracy")
        return float((yield from evaluation.revealed(("accuracy",), to)).accuracy)

    @computes_on_table
    @takes(table=TABLE, reveal=NAMES, to=RECEIVER, alpha=LEVEL)
    def summary(
        self,
        table: Table,
        reveal: str | Sequence[str] | None = None,
        *,
        to: str = ANALYST,
        alpha: float = 0.05,
    ) -> Summary:
        """Standard errors, tests and likelihoods on the table that the model was fitted on.

        Figures are those of `LogisticRegression.summary`, and so are their disclosures. Before, one step of
        Newton's method is planned, and not made, to see whether the model is the best one for these rows:
        that discloses to the analyst the check bits of a fit, whether a decision value or a coefficient left
        its range (for each range that is tried), whether only one outcome occurs, whether the step would
        move the fit by more than a hundredth of a standard error, and where `fit` does whether a weight was
        out of range and whether too few rows count. If the model is not the best, there are no figures.
        Raises SchemaError then, and PlanError for a model that was saved without what it minimised.
        """
        if not self.objective:
            raise PlanError(
                f"the model of {self.target_!r} was saved by a version that did not keep its penalty and "
                "weights, which a summary needs; fit and save it again"
            )
        summary: Summary = table.lake.perform(
            called("summary_of_model")(self, table, reveal, to, alpha), "summary"
        )
        return summary

    @computes
    @takes(to=RECEIVER)
    def reveal(self, *, to: str = ANALYST) -> RevealedModel:
        """The parameters in the columns' own units, to one receiver. Discloses them.

        To another member they go as they lie at the nodes, under a name that tells the units of the columns.
        """
        revealed: RevealedModel = self.like.lake.perform(self._reveal(to), "reveal")
        return revealed

    @computation("reveal_model", group="models", to=RECEIVER)
    def _reveal(self, to: str) -> Steps[RevealedModel]:
        builder = self.like.lake.builder(f"reveal model of {self.target_}")
        exponents = [self.like.column(name).unit_exponent for name in self.names]
        units = "" if to == ANALYST else f" by {', '.join(map(_in_units, self.names, exponents))}"
        names = f"coefficients of {self.target_!r}{units}", f"intercept of {self.target_!r}"
        builder.input(*self.weights).reveal(names[0], to=to, kind="model")
        builder.input(*self.intercept).reveal(names[1], to=to, kind="model")
        result = yield builder.plan()
        coefficients = np.ldexp(result.revealed[names[0]], np.negative(exponents))
        options = {name: option for name, option in self.objective.items() if name != "sample_weight"}
        return RevealedModel(
            self.target_,
            self.names,
            coefficients.reshape(1, -1),
            result.revealed[names[1]].reshape(1),
            self.offset,
            options,
            self.steps,
            self.converged_,
        )

    # -- its public facts ------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All that is public of the model, as plain values: what nodes keep beside the parameters."""
        names = [*self.names, *([self.offset] if self.offset else [])]
        columns = [self.like.column(name).schema for name in names]
        return {
            "format": FORMAT,
            "target": self.target_,
            "features": list(self.names),
            "offset": self.offset,
            "objective": dict(sorted(self.objective.items())),  # all nodes have to write the same
            "steps": self.steps,
            "columns": [[schema.name, schema.kind, schema.scale] for schema in columns],
            "recipes": dict(self.fitted_on()),
            "parameters": [
                [kind.scale, kind.limit, list(kind.shape)] for _, kind in (self.weights, self.intercept)
            ],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], name: str, handles: Sequence[str], lake: Workspace) -> Self:
        """The model with these public facts and parameters. Raises SchemaError for what is no model."""
        try:
            if facts["format"] != FORMAT:
                raise SchemaError(f"model {name!r} has format {facts['format']!r}, not {FORMAT!r}; update")
            schemas = [ColumnSchema(column, kind, scale) for column, kind, scale in facts["columns"]]
            columns = tuple(Column(schema, "", 0, place) for place, schema in enumerate(schemas))
            parameters = [
                (handle, Type(Form.RING, tuple(shape), int(scale), float(limit)))
                for handle, (scale, limit, shape) in zip(handles, facts["parameters"], strict=True)
            ]
            none = Part("", Type(Form.WORDS, (2, 0)))
            like = Table(lake, f"model {name}", columns, 0, (), none, (), (), 0)
            features = tuple(map(str, facts["features"]))
            weights, intercept = parameters
            objective = dict(facts.get("objective", {}))
            if objective and (set(objective) != OBJECTIVE or not isinstance(objective["C"], float | int)):
                raise ValueError("what it minimised is not known")
            offset, steps = facts["offset"], int(facts.get("steps", 0))
            recipes = {str(column): str(recipe) for column, recipe in dict(facts.get("recipes", {})).items()}
            made = cls(like, str(facts["target"]), features, weights, intercept, offset, objective, steps)
            return attrs.evolve(made, recipes=recipes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SchemaError(f"the description of model {name!r} is malformed ({error})") from error

    @computes
    @takes(name=NAME, readers=READERS)
    def save(self, name: str, *, readers: Sequence[str] = ()) -> Any:
        """Keep the model, secret, in the lake under a name, for `lake.model(name)`.

        Where nodes know members, `readers` names those who may use it besides you. Discloses what `to_dict`
        has: names, kinds and scales of columns, and which loss was minimised.
        """
        return self.like.lake.keep_model(self, name, readers)


def _in_units(name: str, exponent: int) -> str:
    """A column as plans compute with it: divided by a power of two, its unit."""
    return name if exponent == 0 else f"{name} / {2.0**exponent:g}"


def _probabilities(z: Value) -> Value:
    """Probabilities of log-odds, in MPC, between 0 and 1 to the last place."""
    return probabilities(z).rescale(PROBABILITY_SCALE)


def _log_odds(share: Value) -> Value:
    """Log-odds of a secret number `(1,)` from 2^-20 to 1 - 2^-20, within 1e-5; of others, those of an end."""
    for _ in range(2):  # what is below 0 becomes 0; then seen from 1, and back
        share = settled((share * -1).is_negative().to_ring() * share)
        share = share * -1 + 1
    share = share.bounded(1.0, "cut off").rescale(LOG_ODDS_BITS)
    chances = (logarithm(one, low=-LOWEST_SHARE, scale=DECISION_SCALE) for one in (share, share * -1 + 1))
    return next(chances) - next(chances)


def _labels(z: Value, threshold: float | Table | None) -> Value:
    """1 where the sigmoid of z exceeds a threshold."""
    if isinstance(threshold, Table):
        if threshold.rows != 1 or len(threshold.columns) != 1:
            raise PlanError(
                f"table {threshold.name!r} is no threshold: it has {threshold.rows} rows and "
                f"{len(threshold.columns)} columns, and needs one of each"
            )
        (column,) = threshold.columns
        (raw,) = threshold.raw(z.builder, [column.name])
        secret = raw.squeeze().shifted(column.schema.scale)
        return (_log_odds(secret) - z.nearest(DECISION_SCALE)).is_negative().to_ring()
    cut = 0.5 if threshold is None else float(threshold)
    return (-z + math.log(cut / (1 - cut))).is_negative().to_ring()


@attrs.frozen(eq=False)
class RevealedModel(Learned):
    """A model in the clear, with the learned names of scikit-learn's.

    `coef_` `(1, n_features)` are the coefficients in the columns' own units, in the order of
    `feature_names_in_`, `intercept_` is `(1,)`. `offset_` names a column that is added to the log-odds.
    `options` are those of the fit that say what it minimised, `steps` how many it made, and `converged_`
    whether they were enough, None where nobody looked. scikit-learn's `clone` makes a LogisticRegression with
    these options, not fitted.
    """

    target_: str
    names: tuple[str, ...]
    coef_: Reals
    intercept_: Reals
    offset_: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    steps: int = 0
    converged_: bool | None = None

    def _facts(self) -> tuple[tuple[str, ...], int]:
        return self.names, self.steps

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - nothing is within
        """Options of the fit that say what it minimised."""
        return dict(self.options)

    def set_params(self, **_: Any) -> NoReturn:
        """Raise PlanError: a revealed model is a result, with the options that it was fitted with."""
        raise PlanError(
            "a revealed model is a result, whose options cannot change; set them on a LogisticRegression "
            "and fit that"
        )

    def __sklearn_clone__(self) -> LogisticRegression:
        """An estimator with the options of the fit; PlanError if an earlier version did not keep them."""
        if not self.options:
            raise PlanError(
                f"the model of {self.target_!r} was written by a version that did not keep its options, "
                "so it cannot be cloned; make a LogisticRegression with those it had"
            )
        found: LogisticRegression = estimator_named("LogisticRegression")(**self.options)
        return found

    def decision_function(self, X: Any) -> Reals:
        """Log-odds `(n,)` of rows in the clear: a frame, a dict of columns, or an array `(n, n_features)`.

        Frames may have other columns besides. Raises SchemaError if some feature is missing or not a finite
        number, or there is no row; so do all others that take rows.
        """
        names = [*self.names, *([self.offset_] if self.offset_ else [])]
        rows = clear.features(X, names)
        count = len(self.names)
        with np.errstate(over="ignore", invalid="ignore"):
            z: Reals = rows[:, :count] @ self.coef_[0] + self.intercept_[0] + rows[:, count:].sum(axis=1)
        if not np.isfinite(z).all():
            row = int(np.argmin(np.isfinite(z)))
            raise SchemaError(f"X has features in row {row} that are too large for log-odds; leave it out")
        return z

    def predict_proba(self, X: Any) -> Reals:
        """Probabilities `(n, 2)` of both outcomes for rows in the clear."""
        p = expit(self.decision_function(X))
        return np.column_stack([1 - p, p])

    def predict(self, X: Any) -> npt.NDArray[np.int64]:
        """Outcomes `(n,)` for rows in the clear: 1 where it is the more probable one."""
        labels: npt.NDArray[np.int64] = (self.decision_function(X) > 0).astype(np.int64)
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy on rows in the clear with outcomes `y` `(n,)` of zeros and ones.

        `sample_weight` `(n,)` is finite and not negative, and not all of it zero. Raises SchemaError for what
        cannot be.
        """
        labels = self.predict(X)
        right = labels == clear.outcomes(y, len(labels), self.classes_)
        return float(np.average(right, weights=clear.weights(sample_weight, len(labels))))

    __repr__ = views.as_printed

    def to_sklearn(self) -> Any:
        """The same model as a fitted `sklearn.linear_model.LogisticRegression`.

        Raises PlanError for a model with an offset, which scikit-learn does not have.
        """
        from sklearn.linear_model import LogisticRegression

        if self.offset_ is not None:
            raise PlanError(
                f"the model adds the offset {self.offset_!r}, which scikit-learn's cannot; keep it"
            )
        model = LogisticRegression()
        model.classes_ = self.classes_
        model.coef_, model.intercept_ = self.coef_.copy(), self.intercept_.copy()
        model.n_features_in_ = self.n_features_in_
        model.feature_names_in_ = self.feature_names_in_
        model.n_iter_ = self.n_iter_
        return model

    def to_json(self) -> str:
        """The model as JSON, every digit of its numbers included; `from_json` reads it."""
        return json.dumps(
            {
                "format": FORMAT,
                "target": self.target_,
                "intercept": float(self.intercept_[0]),
                "coefficients": dict(zip(self.names, self.coef_[0].tolist(), strict=True)),
                "offset": self.offset_,
                "options": dict(self.options),
                "steps": self.steps,
                "converged": self.converged_,
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> RevealedModel:
        """A model from `to_json`, of an earlier version too. Raises SchemaError for other texts."""
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise SchemaError(f"the text has format {facts['format']!r}, not {FORMAT!r}")
            found = {str(name): float(number) for name, number in facts["coefficients"].items()}
            coefficients = np.array([list(found.values())], dtype=np.float64)
            intercept = np.array([float(facts["intercept"])])
            options, steps = dict(facts.get("options", {})), int(facts.get("steps", 0))
            target, offset, converged = str(facts["target"]), facts["offset"], facts.get("converged")
            if not set(options) <= OBJECTIVE - {"sample_weight"} or converged not in (None, True, False):
                raise ValueError("how it was fitted is not known")
            return cls(target, tuple(found), coefficients, intercept, offset, options, steps, converged)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SchemaError(
                f"the text is no model ({error}); give what RevealedModel.to_json wrote"
            ) from error

    def __str__(self) -> str:
        numbers = list(zip(self.names, self.coef_[0], strict=True))
        if self.options.get("fit_intercept", True):
            numbers.insert(0, ("(intercept)", self.intercept_[0]))
        width = max(len(name) for name, _ in numbers)
        return "\n".join(
            [
                f"log-odds of {self.target_}",
                *(f"{name:<{width}} {number:>12.6g}" for name, number in numbers),
            ]
        )
