"""Whose columns a computation uses, and how large a fit is: what owners' rules ask of it beside its results.

Columns that were made of others use these. Rows that are only moved, joined or dealt to parts are not used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from tercet.errors import MissingAttribute
from tercet.ml.computations import Computation
from tercet.ml.expressions import Expression
from tercet.ml.linear_model import LogisticRegression
from tercet.ml.metrics.evaluation import Evaluation
from tercet.ml.models import SecretModel
from tercet.ml.stored_columns import Column
from tercet.ml.table import Table, as_names
from tercet.ml.transformers import Transformer

MOVING = {"join", "concat", "split"}
"""Computations that use no value of a column, but for that by which rows are stratified."""
NAMING = ("columns", "names", "by", "aggregates", "features", "target", "sample_weight", "offset", "stratify")
"""Arguments that name columns, unless they are flags: folds may be stratified by the target."""
CHOOSING = {"columns", "names", "by", "features"}
"""Those of them that mean all other columns if they are left out."""


@attrs.frozen
class Uses:
    """Columns by table; parameters of a fit, and the rows that its smallest part has, if it is one."""

    columns: Mapping[str, frozenset[str]]
    parameters: int | None = None
    rows: int | None = None


def uses_of(known: Computation, arguments: Mapping[str, Any]) -> Uses:
    """What a computation uses of tables that owners have uploaded."""
    columns: dict[str, set[str]] = {}
    for column in _columns(known, arguments):
        for table, name in column.sources:
            columns.setdefault(table, set()).add(name)
    frozen = {table: frozenset(names) for table, names in columns.items()}
    if known.group != "models" or "target" not in arguments:
        return Uses(frozen)
    table, model = arguments["table"], arguments.get("self", arguments.get("model"))
    others = [arguments.get(role) for role in ("target", "sample_weight", "offset")]
    given = arguments.get("features")
    features = [one for one in table.column_names if one not in others] if given is None else as_names(given)
    folds = arguments.get("cv")
    rows = table.rows if folds is None else table.rows - -(-table.rows // folds)
    return Uses(frozen, len(features) + bool(model.fit_intercept), rows)


def tables_over(arguments: Mapping[str, Any]) -> Iterator[Table]:
    """The tables over whose rows what a computation reveals was summed, by it or by one before it.

    Those that it is given, or that what it is given was evaluated on or learned from. A model that comes
    along makes none: what is evaluated on other rows tells of it, and not of the rows that it was fitted on.
    """
    for one in _flat(arguments):
        match one:
            case Table():
                yield one
            case Evaluation():
                yield one.table
            case Transformer() if one.learned_from is not None:
                yield one.learned_from


def models_elsewhere(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Handles of models that are evaluated, or were, on columns made otherwise than those of their fit.

    There metrics tell of a model, as on rows of others: what it says at values that somebody chose.
    """
    given = list(_flat(arguments))
    tables = [one for one in given if isinstance(one, Table)]
    for one in given:
        if isinstance(one, Evaluation) and one.tells_of:
            yield one.tells_of
        elif isinstance(one, LogisticRegression | SecretModel) and "target" not in arguments:
            with contextlib.suppress(MissingAttribute):
                model = one.fitted_model()
                if not all(map(model.is_fitted_like, tables)):
                    yield model.weights[0]


def _columns(known: Computation, arguments: Mapping[str, Any]) -> Iterator[Column]:
    given = [
        arguments[role] for role in NAMING if isinstance(arguments.get(role), str | list | tuple | Mapping)
    ]
    named = [name for names in given for name in as_names(names)]
    chosen = CHOOSING & arguments.keys()
    every = known.whole or (
        known.name not in MOVING
        and (any(arguments[role] is None for role in chosen) or not (chosen or "target" in arguments))
    )
    models = (
        []
        if known.whole
        else [one for one in arguments.values() if isinstance(one, LogisticRegression | SecretModel)]
    )
    for one in models:
        with contextlib.suppress(MissingAttribute):
            model = one if isinstance(one, SecretModel) else one.fitted_model()
            named += [*model.names, model.target_, *([model.offset] if model.offset else [])]
            every = every and bool(chosen)  # who leaves out which columns to choose means all, as ever
    expressions = [one for one in _flat(arguments) if isinstance(one, Expression)]
    for expression in expressions:
        for name in expression.sources | expression.missing:
            yield expression.table.column(name)
    for table in (one for one in _flat(arguments) if isinstance(one, Table)):
        yield from table.selection if known.name not in MOVING else ()
        for column in table.columns:
            if column.name in named or known.whole or (every and (chosen or not expressions)):
                yield column


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    else:
        yield value
