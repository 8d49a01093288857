"""Type checkers know who waits: a call gives its result on a lake for scripts, and is awaited in trio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.early
ROOT = Path(__file__).parents[1]

IMPORTS = """
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import tercet
from tercet.ml import (
    Async, CrossValidation, Evaluation, GridSearch, LogisticRegression, MeanImputer, MinMaxScaler,
    RevealedMetrics, RevealedModel, SecretColumn, SecretModel, StandardScaler, Summary, Sync, Table,
    cross_validate,
)
from tercet.ml.association import Correlations, Crosstab
from tercet.ml.describe import Description
from tercet.ml.groups import Groups
from tercet.ml.numbers import SavedNumber
from tercet.ml.metrics.curves import Calibration, RocCurve
from tercet.ml.transformers import RevealedScaler
from tercet.plans.results import RunResult

Rows = dict[str, npt.NDArray[Any]]
Reals = npt.NDArray[np.float64]
"""

PROGRAM = """
{define} program() -> None:
    {open} as lake:
        table = {wait}lake.upload({{}}, name="t", key="id", owner="o")
        assert_type(table, Table[{face}])
        assert_type({wait}lake.table("t"), Table[{face}])
        assert_type({wait}table.join(table, on="id"), Table[{face}])
        assert_type({wait}tercet.concat([table, table], site="secret"), Table[{face}])
        assert_type({wait}table.split(test_size=0.2), tuple[Table[{face}], Table[{face}]])
        assert_type({wait}table.assign(y=table["x"] * 2), Table[{face}])
        assert_type({wait}table[["x"]].filter(table["x"] > 1), Table[{face}])
        assert_type({wait}table.dropna(), Table[{face}])
        assert_type({wait}table.describe(["x"], to="o"), Description)
        assert_type({wait}table.crosstab("x", "y"), Crosstab)
        assert_type({wait}table.groupby("x").agg({{"y": "mean"}}), Groups)
        assert_type({wait}table.value_counts("x"), Groups)
        assert_type({wait}table.groupby("id").to_table({{"y": "sum"}}), Table[{face}])
        assert_type({wait}table.corr(), Correlations)
        assert_type({wait}table.reveal("x"), Rows)
        scaler = {wait}StandardScaler(columns=["x"]).fit(table)
        assert_type(scaler, StandardScaler[{face}])
        assert_type({wait}scaler.transform(table), Table[{face}])
        assert_type({wait}scaler.fit_transform(table=table), Table[{face}])
        assert_type({wait}scaler.reveal(), RevealedScaler)
        assert_type({wait}MinMaxScaler().fit(table), MinMaxScaler[{face}])
        assert_type({wait}MeanImputer().fit(table), MeanImputer[{face}])
        fresh = LogisticRegression(C=0.1)
        model = {wait}fresh.fit(table, target="y", features=["x"])
        assert_type(model, LogisticRegression[{face}])
        assert_type({wait}fresh.score(table), float)
        assert_type({wait}model.predict_proba(table), SecretColumn[{face}])
        assert_type({wait}({wait}model.predict(table, threshold=0.2)).reveal(to="o"), Reals)
        scores = {wait}model.evaluate(table, metrics="accuracy")
        assert_type(scores, Evaluation[{face}])
        assert_type({wait}scores.reveal(), RevealedMetrics)
        assert_type({wait}scores.roc_curve(points=9), RocCurve)
        assert_type({wait}scores.calibration(), Calibration)
        assert_type({wait}model.summary("coef"), Summary)
        assert_type({wait}model.reveal(), RevealedModel)
        {wait}model.save("m", readers=["o"])
        job = {wait}fresh.submit(table, "y")
        assert_type({wait}fresh.collect(job, table, "y"), LogisticRegression[{face}])
        assert_type({wait}lake.number("n"), SavedNumber[{face}])
        kept = {wait}lake.model("m")
        assert_type(kept, SecretModel[{face}])
        assert_type({wait}kept.decision_function(table), SecretColumn[{face}])
        assert_type({wait}kept.summary(table), Summary)
        assert_type({wait}kept.reveal(), RevealedModel)
        found = {wait}GridSearch(fresh, C=[1.0]).fit(table, "y")
        assert_type(found, GridSearch[{face}])
        assert_type(found.best_model_, LogisticRegression[{face}] | None)
        assert_type({wait}cross_validate(fresh, table, "y", cv=3), CrossValidation)
        assert_type({wait}({wait}lake.jobs())[0].result(), RunResult)
"""

WRONG = {
    "def": [
        ('table.describe(column="x")', "call-arg"),
        ('table.join("x", on="id")', "arg-type"),
        ("fresh.fit(table)", "call-overload"),
        ('fresh.fit("x", "y")', "call-overload"),
        ("model.reveal().coefs_", "attr-defined"),
        ("tercet.ml.StandardScaler().transform(3)", "call-overload"),
    ],
    "async def": [
        ("table.describe().table", "attr-defined"),
        ('(await table.describe(column="x"))', "call-arg"),
        ('table.join(table, on="id").rows', "attr-defined"),
        ('fresh.fit(table, "y").reveal()', "attr-defined"),
        ("await fresh.fit(table)", "call-overload"),
        ("(await model.reveal()).coefs_", "attr-defined"),
    ],
}
"""What is wrong on either kind of lake, with mypy's code for it: unnoticed, the comment is an error."""


@pytest.mark.parametrize("define", ["def", "async def"])
def test_a_program_of_either_kind_passes_strict_mypy(define, tmp_path):
    waits = define == "async def"
    opened = "async with tercet.open_local()" if waits else "with tercet.local()"
    program = PROGRAM.format(
        define=define, open=opened, wait="await " if waits else "", face="Async" if waits else "Sync"
    )
    wrong = [f"        {line}  # type: ignore[{code}]" for line, code in WRONG[define]]
    file = tmp_path / "program.py"
    file.write_text(IMPORTS + program + "\n".join(wrong) + "\n")
    command = ["-m", "mypy", "--strict", "--config-file", "pyproject.toml", "--no-error-summary", str(file)]
    checked = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)
