"""What notebooks and prompts show of tables and results: what is public, escaped, and asked of no node."""

from __future__ import annotations

import html

import attrs
import numpy as np
import pytest

import tercet
from tercet.actors.estimate import explain
from tercet.client.lake import open_local
from tercet.ml import LogisticRegression, StandardScaler, cross_validate
from tercet.ml.views import MOST_ROWS, html_table

ROWS = 80
RNG = np.random.default_rng(4)
TABLE = {
    "id": np.arange(ROWS),
    "x": np.where(np.arange(ROWS) == 3, np.nan, RNG.normal(size=ROWS)),
    "g": np.arange(ROWS) % 3,
    "y": np.arange(ROWS) % 2,
}
OTHER = {"id": np.arange(ROWS), "z": RNG.normal(size=ROWS)}


@pytest.fixture(scope="module")
def lake():
    with tercet.local(protocol="plain") as opened:
        yield opened


@pytest.fixture(scope="module")
def clinic(lake):
    return lake.upload(TABLE, name="clinic", key="id", owner="hospital", missing="indicator")


@pytest.fixture(scope="module")
def joined(lake, clinic):
    other = lake.upload(OTHER, name="other", key="id", owner="insurer", min_count=5)
    return clinic[["g", "y"]].join(other, on="id")


@pytest.fixture(scope="module")
def model(joined):
    return LogisticRegression().fit(joined, target="y")


def test_a_table(clinic):
    assert repr(clinic).splitlines() == [
        "table 'clinic': 80 secret rows; key id",
        "column     kind     owner     scale  missing",
        f"x          real     hospital  {clinic.column('x').schema.scale:<5}  x_missing",
        "x_missing  boolean  hospital  0",
        f"g          integer  hospital  {clinic.column('g').schema.scale}",
        "y          boolean  hospital  0",
    ]


def test_a_table_in_a_notebook(joined):
    shown = attrs.evolve(joined, name="clinic+<b>other</b>")._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;other&lt;/b&gt;" in shown
    assert shown.count("<tr>") == 4
    for word in ("insurer", "hospital", "integer", "figures rest on at least 5 rows", "80 secret rows"):
        assert word in shown
    assert "missing" not in shown


def test_names_are_escaped():
    shown = html_table("<i>", ["&"], [['"', "<script>"]])
    assert "<i>" not in shown
    assert "<script>" not in shown
    assert "<th>&amp;</th>" in shown


def test_a_wide_table_is_cut(lake):
    names = {f"c{number}": np.arange(4) for number in range(MOST_ROWS + 3)}
    wide = lake.upload({"id": np.arange(4), **names}, name="wide", key="id", owner="o")
    assert len(repr(wide).splitlines()) == MOST_ROWS + 3
    assert "... and 3 more columns" in repr(wide)
    assert "... and 3 more columns" in wide._repr_html_()


def test_a_filtered_table_and_one_of_a_row(lake, clinic):
    assert "a secret filter keeps some of the rows" in repr(clinic.filter(clinic["g"] > 1))
    assert "1 secret row;" in repr(lake.upload({"id": [1], "a": [2]}, name="one", key="id", owner="o"))


def everything(lake, joined, model):
    """All that a user's calls give, by name."""
    evaluation = model.evaluate(joined)
    builder = lake.builder("noise")
    builder.random_words(2).reveal("noise", to="me")
    plan = builder.plan()
    return {
        "lake": lake,
        "table": joined,
        "expression": joined["z"] * 2 > 1,
        "column": model.predict_proba(joined),
        "estimator": model,
        "secret model": model.save("m") or lake.model("m"),
        "model": model.reveal(),
        "evaluation": evaluation,
        "metrics": evaluation.reveal(),
        "curve": evaluation.calibration(bins=3),
        "summary": model.summary(),
        "scaler": StandardScaler().fit(joined[["z"]]),
        "validation": cross_validate(LogisticRegression(), joined, "y", cv=2),
        "description": joined.describe(["z"]),
        "crosstab": joined.crosstab("g", "y", categories={"g": [0, 1, 2]}),
        "correlations": joined.corr(["z", "g"]),
        "plan": plan,
        "explanation": explain(plan),
        "result": lake.run(plan),
        "job": lake.submit(plan),
        "disclosed": lake.disclosed,
    }


def test_everything_that_one_gets_back_is_readable(lake, joined, model, monkeypatch):
    given = everything(lake, joined, model)
    seconds, phases = [], len(lake.phases)
    monkeypatch.setattr(type(lake), "_wait", seconds.append)  # nothing may ask the nodes
    for name, one in given.items():
        shown = repr(one) + html.unescape(getattr(one, "_repr_html_", str)())
        for inside in (" object at 0x", "handle", "Column(", "array(", "#", "BEGIN", "session="):
            assert inside not in shown, f"{name}: {shown}"
    assert not seconds
    assert len(lake.phases) == phases


def test_results_in_notebooks_need_no_pandas(joined):
    described, correlated = joined.describe(["z"]), joined.corr(["z", "g"])
    assert described._repr_html_().count("<tr>") == 9
    assert correlated._repr_html_().count("<tr>") == 3


def test_a_lake_says_how_it_is():
    with tercet.local(protocol="plain") as lake:
        assert repr(lake) == "Lake of 1 node on this machine, protocol plain, open"
    assert repr(lake) == "Lake of 1 node on this machine, protocol plain, closed"


async def test_a_lake_of_a_trio_program_says_how_it_is():
    async with open_local() as lake:
        assert repr(lake) == "AsyncLake of 3 nodes on this machine, protocol replicated, open"
        table = await lake.upload(OTHER, name="t", key="id", owner="o")
        assert repr(table).startswith("table 't': 80 secret rows")


def test_evolved_tables_keep_their_view(clinic):
    assert repr(attrs.evolve(clinic, name="other")).startswith("table 'other'")
