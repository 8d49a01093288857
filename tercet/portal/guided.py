"""A study that is put together by choosing: rows, outcome, features, fit, metrics; and the same as Python.

What a form has chosen is plain data. `Guided.compute` is what the portal does with it at a lake,
`Guided.python` the same for a script or notebook, request by request, so that whoever has begun in the portal
can go on there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import attrs

from tercet.client.lake import AsyncLake
from tercet.errors import PlanError, TercetError
from tercet.ml import LogisticRegression
from tercet.ml.metrics.evaluation import METRICS
from tercet.ml.schema import TableSchema
from tercet.portal.outcomes import Outcome

ROC_POINTS, BINS = 20, 5
USUAL_METRICS = ("roc_auc", "accuracy", "recall", "precision", "log_loss")
ROWS, ROWS_FOR_LEAST = 500, 15
"""Made-up rows of a rehearsal: so many, or that so many times an owner's least count are tested on."""
LEAST_SHARE = 1e-6
"""To test on fewer rows than that share, a rehearsal would take more rows than it can."""


@attrs.frozen(kw_only=True)
class Guided:
    """What was chosen. Raises PlanError for what makes no study."""

    tables: tuple[str, ...]
    keys: tuple[str, ...]
    target: str
    features: tuple[str, ...]
    test_size: float = 0.25
    C: float | None = 1.0
    """The inverse of the penalty's strength; None for no penalty."""
    metrics: tuple[str, ...] = USUAL_METRICS
    roc: bool = True
    calibration: bool = True

    def __attrs_post_init__(self) -> None:
        if not self.tables:
            raise PlanError("choose a table, or several to be joined")
        if not self.target:
            raise PlanError("choose the outcome: a column of zeros and ones")
        if not self.features:
            raise PlanError("choose features: columns by which the outcome is explained")
        if self.target in self.features:
            raise PlanError(f"{self.target!r} is the outcome, and so it is no feature")
        if len(set(self.features)) < len(self.features):
            twice = next(one for one in self.features if self.features.count(one) > 1)
            raise PlanError(
                f"two of the tables have a column {twice!r}, so that it cannot be told which is meant"
            )
        if not 0 < self.test_size < 1:
            raise PlanError(
                f"a share of {self.test_size:g} of the rows cannot be tested on; take one such as 0.25"
            )
        if unknown := [one for one in self.metrics if one not in METRICS]:
            raise PlanError(f"there is no metric {unknown[0]!r}; known are {', '.join(METRICS)}")

    @classmethod
    def of(cls, schemas: Mapping[str, TableSchema], tables: Sequence[str], **chosen: Any) -> Self:
        """Of tables that are there, with the key that links them. Raises PlanError for what does not fit."""
        if gone := [name for name in tables if name not in schemas]:
            raise PlanError(f"there is no table {gone[0]!r} any more")
        keys = {schemas[name].key_names for name in tables}
        if len(keys) > 1:
            told = "; ".join(f"{name} by {', '.join(schemas[name].key_names)}" for name in tables)
            raise PlanError(
                f"these tables have keys of different names, so they cannot be joined here: {told}"
            )
        return cls(tables=tuple(tables), keys=next(iter(keys), ()), **chosen)

    async def compute(self, lake: AsyncLake) -> Outcome:
        """Join, split, fit, summarise and evaluate. Raises what any of these does."""
        first, *others = [await lake.table(name) for name in self.tables]
        rows = await first.join(*others, on=list(self.keys)) if others else first
        train, test = await rows.split(test_size=self.test_size, stratify=self.target)
        model = await self._model().fit(train, target=self.target, features=list(self.features))
        summary = await model.summary()
        scores = await model.evaluate(test)
        metrics = await scores.reveal(list(self.metrics)) if self.metrics else None
        roc = await scores.roc_curve(points=ROC_POINTS) if self.roc else None
        calibration = await scores.calibration(bins=BINS) if self.calibration else None
        return Outcome.of(summary, metrics, roc, calibration)

    def _model(self) -> LogisticRegression:
        return LogisticRegression(penalty=None) if self.C is None else LogisticRegression(C=self.C)

    # -- the same for scripts --------------------------------------------------------------------------------

    def function(self) -> str:
        """The computation as a function of a lake."""
        first, *others = [f"lake.table({name!r})" for name in self.tables]
        rows = f"{first}.join({', '.join(others)}, on={list(self.keys)!r})" if others else first
        lines = [
            f"rows = {rows}",
            f"train, test = rows.split(test_size={self.test_size!r}, stratify={self.target!r})",
            f"model = {self._model()!r}.fit(train, target={self.target!r}, features={list(self.features)!r})",
            "summary = model.summary()",
            "scores = model.evaluate(test)",
        ]
        given = ["summary"]
        if self.metrics:
            lines.append(f"metrics = scores.reveal({list(self.metrics)!r})")
            given.append("metrics")
        if self.roc:
            lines.append(f"roc = scores.roc_curve(points={ROC_POINTS})")
            given.append("roc")
        if self.calibration:
            lines.append(f"calibration = scores.calibration(bins={BINS})")
            given.append("calibration")
        return "\n".join(
            ["def study(lake):", *(f"    {line}" for line in lines), f"    return {', '.join(given)}"]
        )

    def cells(self, plan: Terms, cluster: str, identity: str) -> list[tuple[str, str]]:
        """Cells of a notebook, each with the kind "markdown" or "code"."""
        connect = f"tercet.connect({cluster!r}, identity={identity!r})"
        record = (
            f"made_up.record('study.json', purpose={plan.purpose!r}, uses={plan.uses}, days={plan.days:g})"
        )
        record_it = (
            f"with {connect} as lake, lake.rehearse(rows={plan.rows}) as made_up:\n"
            f"    with {record}:\n        study(made_up)\n    print(lake.propose('study.json'))"
        )
        run_it = (
            f"with {connect} as lake, lake.study('study.json'):\n    for found in as_tuple(study(lake)):\n"
        )
        run_it += "        print(found)"
        as_tuple = "def as_tuple(found):\n    return found if isinstance(found, tuple) else (found,)"
        return [
            ("code", "import tercet\nfrom tercet.ml import LogisticRegression"),
            ("markdown", "## What is computed"),
            ("code", self.function()),
            ("markdown", "## Design on made-up rows, and ask owners"),
            ("code", record_it),
            ("markdown", "## Run, once all owners have signed"),
            ("code", f"{as_tuple}\n\n\n{run_it}"),
        ]

    def python(self, plan: Terms, cluster: str, identity: str) -> str:
        """The whole as a script, which asks."""
        cells = self.cells(plan, cluster, identity)
        parts = [text if kind == "code" else f"# {text.removeprefix('## ')}" for kind, text in cells[:-2]]
        return "\n\n\n".join(parts).replace("\n\n\nwith", "\nwith") + "\n"

    def notebook(self, plan: Terms, cluster: str, identity: str) -> str:
        """The whole as a Jupyter notebook (nbformat 4.5)."""
        cells: list[dict[str, Any]] = []
        for place, (kind, text) in enumerate(self.cells(plan, cluster, identity)):
            cell = {"cell_type": kind, "id": f"cell-{place}", "metadata": {}, "source": text}
            cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        book = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        return json.dumps(book, indent=1)

    # -- kept beside the study -------------------------------------------------------------------------------

    def to_text(self) -> str:
        """For a file."""
        return json.dumps(attrs.asdict(self), indent=1)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `to_text` gave. Raises PlanError for anything else."""
        try:
            found = json.loads(text)
            lists = {name: tuple(one) for name, one in found.items() if isinstance(one, list)}
            return cls(**{**found, **lists})
        except (ValueError, TypeError, AttributeError, TercetError) as error:
            raise PlanError(f"the choices of a study cannot be read ({error})") from error


@attrs.frozen(kw_only=True)
class Terms:
    """On which terms a study is asked for: what for, how often, for how long; and how many made-up rows."""

    purpose: str
    uses: int = 3
    days: float = 90.0
    rows: int = ROWS


def rows_for(schemas: Sequence[TableSchema], test_size: float) -> int:
    """How many made-up rows a rehearsal takes, so that no owner's least count stops it."""
    least = max((one.min_count for one in schemas), default=1)
    share = max(min(test_size, 1 - test_size), LEAST_SHARE)
    return max(ROWS, math.ceil(ROWS_FOR_LEAST * least / share))
