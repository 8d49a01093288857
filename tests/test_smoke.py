"""Whether Tercet works at all with the packages that are installed: a little of each, in a minute or two.

`make lowest` runs it, and whatever else is marked `smoke`, with the lowest versions that pyproject.toml
allows.
"""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import tercet
from tercet.cli import app
from tercet.ml import LogisticRegression, MinMaxScaler, StandardScaler

pytestmark = pytest.mark.smoke

ROWS = 240
RNG = np.random.default_rng(5)
X = RNG.normal(size=ROWS)
COLUMNS = {
    "id": [f"p{number}" for number in range(ROWS)],
    "x": X,
    "n": RNG.integers(0, 9, ROWS),
    "y": RNG.random(ROWS) < 1 / (1 + np.exp(-X)),
}
OTHER = {"id": COLUMNS["id"][::-1], "z": RNG.normal(size=ROWS)}


@pytest.fixture(scope="module")
def lake():
    with tercet.local() as opened:
        yield opened


@pytest.fixture(scope="module")
def patients(lake):
    clinic = lake.upload(COLUMNS, name="clinic", key="id", owner="clinic")
    insurer = lake.upload(pd.DataFrame(OTHER), name="insurer", key="id", owner="insurer")
    return clinic.join(insurer, on="id")


@pytest.fixture(scope="module")
def model(patients):
    return LogisticRegression(C=1.0).fit(patients, target="y")


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_frames(lake, make):
    table = lake.upload(make(COLUMNS), name="frame", key="id", owner="clinic")
    assert {column.name: column.schema.kind for column in table.columns} == {
        "x": "real",
        "n": "integer",
        "y": "boolean",
    }
    np.testing.assert_allclose(table.reveal("x")["x"], X, atol=1e-4)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files(lake, tmp_path, kind):
    path = tmp_path / f"table.{kind}"
    frame = pd.DataFrame(COLUMNS)
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, index=False)
    table = lake.upload(path, name="file", key="id", owner="clinic")
    np.testing.assert_allclose(table.reveal("x")["x"], X, atol=1e-4)


def test_a_fit_is_that_of_scikit_learn(patients, model):
    from sklearn.linear_model import LogisticRegression as InTheClear

    frame = pd.DataFrame(COLUMNS).merge(pd.DataFrame(OTHER), on="id")
    peer = InTheClear(C=1.0, tol=1e-8).fit(frame[["x", "n", "z"]], frame["y"])
    names = list(model.reveal().feature_names_in_)
    coefficients = dict(zip(names, np.ravel(model.reveal().coef_), strict=True))
    found = [coefficients[name] for name in ("x", "n", "z")]
    np.testing.assert_allclose(found, np.ravel(peer.coef_), atol=2e-3)


def test_a_summary_is_that_of_statsmodels(patients):
    import statsmodels.api as sm

    frame = pd.DataFrame(COLUMNS).merge(pd.DataFrame(OTHER), on="id")
    names = ["x", "n", "z"]
    peer = sm.Logit(frame["y"].astype(float), sm.add_constant(frame[names].astype(float))).fit(disp=False)
    found = LogisticRegression(penalty=None).fit(patients, target="y").summary().to_frame()
    np.testing.assert_allclose(found.loc[names, "se"], peer.bse[names], rtol=2e-3)


def test_metrics_and_curves(patients, model):
    evaluation = model.evaluate(patients)
    assert 0.5 < evaluation.reveal().roc_auc < 1
    assert evaluation.roc_curve().plot() is not None


def test_a_summary_as_text_frame_and_html(patients, model):
    summary = model.summary()
    assert "std err" in str(summary)
    assert "x" in summary.to_frame().index
    assert "<table" in summary._repr_html_()


def test_preparation(patients):
    prepared = patients.assign(twice=patients["x"] * 2)
    scaled = MinMaxScaler().fit_transform(StandardScaler().fit_transform(prepared[["x", "twice"]]))
    assert scaled.describe().to_frame().shape[1] == 2
    assert patients.corr(["x", "z"]).to_frame().shape == (2, 2)
    assert patients.filter(patients["x"] > 0).rows == ROWS


def test_nodes_as_processes_over_tls():
    with tercet.local(processes=True) as lake:
        table = lake.upload(COLUMNS, name="t", key="id", owner="clinic")
        np.testing.assert_allclose(table.reveal("x")["x"], X, atol=1e-4)


def test_the_command():
    command = [sys.executable, "-m", "tercet", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "transcript" in done.stdout


COMMANDS = [
    "--version",
    "protocols",
    *(f"{name} --help" for name in ("demo", "init", "node", "upload", "plans")),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command):
    assert CliRunner().invoke(app, command.split()).exit_code == 0


def test_bars(monkeypatch):
    from tercet.actors import progress

    monkeypatch.setattr(progress, "WATCHED_AFTER_S", 0.0)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    with tercet.local(latency_ms=5, progress=True) as lake:
        table = lake.upload(COLUMNS, name="t", key="id", owner="clinic")
        LogisticRegression().fit(table, target="y")
    assert "rounds" in said.getvalue()
