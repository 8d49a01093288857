"""What each computation may disclose: classes of what members are told, and what it opens to the nodes.

Owners decide by a computation's name, before its plans are made, so what its plans can disclose is declared
here, in one table. Nodes hold every plan that they make of a computation against it. That nothing is left
out, and nothing is declared that never occurs, is tested by having every computation run.
"""

from __future__ import annotations

import attrs

from tercet.errors import PlanError
from tercet.ml import (
    association,
    describe,
    fitting,
    grouping,
    join,
    key_groups,
    linear_model,
    metrics,
    model_selection,
    models,
    open_join,
    preparation,
    secret_column,
    splitting,
    stacking,
    submitting,
    table,
    transformers,
)
from tercet.plans import Disclosure, DisclosureClass, Plan
from tercet.plans.types import NODES, SIZES, Sizes

DECLARING = (
    association,
    describe,
    grouping,
    join,
    key_groups,
    linear_model,
    metrics,
    model_selection,
    models,
    preparation,
    secret_column,
    splitting,
    stacking,
    submitting,
    table,
    transformers,
)
"""Modules with computations: whoever imports this one knows them all."""

PSEUDONYMS = "pseudonyms of shuffled keys, random words"
MATCHES = "the number of rows that match"
KEYS = "the number of different keys"
COMPARISONS = "comparisons of shuffled rows, a random order"
KEPT = "which of the shuffled rows a filter keeps"
COUNT_KEPT = "the number of rows that a filter keeps"


def _classes(given: tuple[DisclosureClass, ...]) -> frozenset[DisclosureClass]:
    return frozenset(given)


@attrs.frozen
class Declared:
    """What a computation may tell: classes to members, and what to the nodes, in the words of its plans."""

    discloses: frozenset[DisclosureClass] = attrs.field(default=(), converter=_classes)
    opens: frozenset[str] = attrs.field(default=frozenset(), kw_only=True)


_LINKS = frozenset({PSEUDONYMS, MATCHES, open_join.NOISY_MATCHES})
_SORTS = frozenset({COMPARISONS})
_SHUFFLES = frozenset({splitting.RANDOM_ORDER})
_FILTERS = frozenset({KEPT, COUNT_KEPT})
_NOISY_GROUPS = frozenset({key_groups.KEPT_GROUPS, key_groups.NOISY_GROUPS})

DECLARED: dict[str, Declared] = {
    "join": Declared(
        ("check",), opens=frozenset({PSEUDONYMS, MATCHES, open_join.NOISY_MATCHES}) | _SORTS | _SHUFFLES
    ),
    "concat": Declared(("check",), opens=frozenset({PSEUDONYMS, KEYS})),
    "group_rows": Declared(("check",), opens=_SORTS | _FILTERS | _NOISY_GROUPS),
    "split": Declared(opens=_SHUFFLES | _SORTS),
    "assign": Declared(("check",)),
    "filter": Declared(("check",), opens=_FILTERS),
    "dropna": Declared(("check",), opens=_FILTERS),
    "learn": Declared(("check",), opens=_SORTS),
    "transform": Declared(("check",)),
    "reveal_scaler": Declared(("figure",)),
    "describe": Declared(("check", "count", "figure", "rows"), opens=_SORTS),
    "crosstab": Declared(("check", "count", "figure")),
    "groupby": Declared(("check", "count", "figure"), opens=_SORTS),
    "corr": Declared(("check", "figure")),
    "evaluate": Declared(opens=_SORTS),
    "metrics": Declared(("check", "count", "figure")),
    "roc_curve": Declared(("check", "figure", "rows")),
    "calibration": Declared(("check", "count", "figure", "rows")),
    "score": Declared(("check", "figure")),
    "fit": Declared(("check",)),
    "fit_alone": Declared(("check",), opens=fitting.CHECKS | {preparation.NEW_OUT_OF_RANGE}),
    "cross_validate": Declared(("check", "figure"), opens=_SORTS | _SHUFFLES),
    "grid_search": Declared(("check", "figure"), opens=_SORTS | _SHUFFLES),
    "summary": Declared(("check", "count", "figure", "model")),
    "summary_of_model": Declared(("check", "count", "figure", "model")),
    "reveal_model": Declared(("model",)),
    "predict": Declared(),
    "reveal_column": Declared(("rows",)),
    "reveal_keyed": Declared(("rows",)),
    "reveal_rows": Declared(("rows",)),
}
"""By the names of computations."""


COUNTS: dict[str, Sizes] = {
    **dict.fromkeys((MATCHES, KEYS, KEPT, COUNT_KEPT), SIZES[0]),
    **dict.fromkeys((open_join.NOISY_MATCHES, *_NOISY_GROUPS), SIZES[1]),
}
"""Of what is opened to the nodes, what tells how many rows match, have one key or are kept."""


def counted(plan: Plan) -> Sizes | None:
    """What a plan tells the nodes of how many rows match or are kept, None for nothing of that sort."""
    told = {COUNTS.get(one.what) for one in plan.disclosures() if one.to == NODES}
    return next((size for size in SIZES if size in told), None)


def declare(computation: str, declared: Declared) -> None:
    """Say what a computation of another package may tell. Raises TypeError for one that has said so."""
    if computation in DECLARED:
        raise TypeError(f"computation {computation!r} is declared already")
    DECLARED[computation] = declared


def undeclared(computation: str, plan: Plan) -> list[Disclosure]:
    """What a plan of a computation discloses beyond what is declared; all of it, if nothing is."""
    declared = DECLARED.get(computation, Declared())
    return [
        one
        for one in plan.disclosures()
        if (one.what not in declared.opens if one.to == NODES else one.kind not in declared.discloses)
    ]


def require_declared(computation: str, plan: Plan) -> Plan:
    """The plan. Raises PlanError if it discloses what its computation does not declare."""
    more = undeclared(computation, plan)
    if more:
        raise PlanError(
            f"computation {computation!r} would disclose {more[0]}, which it does not declare "
            "(tercet/ml/declarations.py), so no owner has allowed it; declare it there"
        )
    return plan
