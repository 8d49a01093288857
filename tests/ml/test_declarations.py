"""Every computation runs, and what its plans disclose is what is declared: no less and no more."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import tercet
import tercet.ml
from tercet.errors import PlanError
from tercet.members.rules import GROUPS
from tercet.ml import (
    GridSearch,
    LogisticRegression,
    MeanImputer,
    MinMaxScaler,
    StandardScaler,
    cross_validate,
)
from tercet.ml.computations import COMPUTATIONS, Computed
from tercet.ml.declarations import DECLARED, Declared, require_declared, undeclared
from tercet.ml.inference import LOOSE
from tercet.plans import CLASSES, Builder, Form, Type
from tercet.plans.types import NODES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "disclosures.md"
ROWS = 80
MOST = {
    "tables": {"check", "count"},
    "statistics": {"check", "count", "figure", "rows"},
    "models": {"check", "count", "figure", "model"},
    "predictions": {"rows"},
    "rows": {"rows"},
}
"""The worst that a group may disclose, which its name promises to owners."""


def columns(rows=ROWS):
    rng = np.random.default_rng(7)
    x, w = rng.normal(size=(2, rows))
    y = (x + rng.normal(size=rows) > 0).astype(int)
    holes = [None if place % 9 == 0 else float(one) for place, one in enumerate(w)]
    return {
        "id": np.arange(rows),
        "x": x,
        "w": np.abs(w) + 0.5,
        "h": holes,
        "y": y,
        "c": rng.integers(0, 3, rows),
        "same": x,
    }


@pytest.fixture(scope="module")
def plans():
    """Plans of each computation, as every kind of call made them."""
    made = defaultdict(list)
    send = Computed.send

    def noting(self, value):
        plan = send(self, value)
        plans_of[id(plan)] = self.known.name, plan  # one that drives another is the last to note
        return plan

    plans_of = {}
    with pytest.MonkeyPatch.context() as patch, tercet.local(protocol="plain") as lake:
        patch.setattr(Computed, "send", noting)
        run_all(lake)
    for name, plan in plans_of.values():
        made[name].append(plan)
    assert any(one.what == LOOSE for plan in made["summary"] for one in plan.disclosures())
    return made


def run_all(lake):
    def put(name, **options):
        given = {"missing": "indicator", "ranges": {"c": (0, 2)}, "key": "id", "owner": "o", **options}
        return lake.upload(columns(), name=name, **given)

    other = lake.upload({"id": np.arange(ROWS), "other": np.ones(ROWS)}, name="other", key="id", owner="p")
    free, strict = put("free"), put("strict", min_count=5)
    tercet.concat([free, strict], duplicates="count")
    rows = tercet.concat([free, strict], duplicates="keep", site="public")
    rows.groupby("id").to_table({"x": ["sum", "max"]})
    rows.groupby("id").to_table({"x": "mean"}, sizes="noisy")
    rows.groupby("id").to_table({"x": "mean"}, sizes="hidden")
    of_tables(free, other)
    of_tables(strict, other)
    free.groupby("c").agg({"x": ["min", "max"]})
    of_statistics(strict)  # where rules have a say, there is more to tell
    of_models(strict)
    of_rows(lake, free)


def of_tables(table, other):
    table.join(other, on="id")
    table.join(other, on="id", sizes="noisy")
    table.join(other, on="id", sizes="hidden")
    table.split(test_size=0.25)
    table.split(test_size=0.25, stratify="y")
    table.split(test_size=0.25, random_state=1)
    table.assign(z=table["x"] * table["w"] * table["w"])
    table.filter(table["x"] * table["w"] * table["w"] > 0)
    table.filter(table["x"] > 0, compact=True)
    table.dropna("h", compact=True)
    kept = table.filter(table["x"] > 0)
    for transformer in (StandardScaler("x"), MinMaxScaler("x"), MeanImputer("h")):
        transformer.fit(table).transform(table)
        transformer.fit(kept).transform(table)
    StandardScaler("x").fit(table).reveal()


def of_statistics(table):
    kept = table.filter(table["x"] > -1)
    for one in (table, kept):
        one.describe(["x", "h", "y"])
        one.crosstab("c", "y")
        one.crosstab("c", "y", statistics=["chi2"])
        one.corr(["x", "w"])
        one.groupby("y").agg({"x": ["mean", "std"], "h": ["count"]})
    model = LogisticRegression().fit(table, target="y", features=["x", "w"])
    for one in (table, kept):
        evaluation = model.evaluate(one)
        evaluation.reveal()
        evaluation.roc_curve(points=5)
        evaluation.calibration(bins=3)
        model.score(one)


def of_models(table):
    kept = table.filter(table["x"] > -1)
    options = {"target": "y", "features": ["x", "w"]}
    for one in (table, kept):
        model = LogisticRegression(penalty=None).fit(one, **options)
        model.summary()
    model.save("kept")
    table.lake.model("kept").summary(kept)
    model.reveal()
    model.predict(table)
    model.predict_proba(table)
    LogisticRegression(tol=1e-3).fit(table, **options)
    LogisticRegression(max_iter=5).fit(table, target="y", features="x", sample_weight="w")
    LogisticRegression(max_iter=5).fit(table, target="y", features="x", offset="w")
    LogisticRegression(solver="gd", max_iter=5).fit(table, **options)
    LogisticRegression(penalty=None).fit(table, target="y", features=["x", "same"]).summary()
    for one, more in (
        (LogisticRegression(penalty=None), {}),
        (LogisticRegression(tol=1e-3), {}),
        (LogisticRegression(max_iter=5), {"features": "x", "sample_weight": "w"}),
        (LogisticRegression(max_iter=5), {"features": "x", "offset": "w"}),
    ):
        one.collect(one.submit(table, **(options | more)), table, **(options | more))
    job = LogisticRegression().submit(table, "y ~ x + I(x * w * w)")
    LogisticRegression().collect(job, table, "y ~ x + I(x * w * w)")
    cross_validate(LogisticRegression(), table, cv=2, **options)
    GridSearch(LogisticRegression(), C=[1.0, 2.0], cv=2).fit(table, **options)


def of_rows(lake, table):
    table.reveal("x")
    model = LogisticRegression().fit(table, target="y", features="x")
    model.predict_proba(table).reveal()
    model.predict(table).reveal()
    model.predict_proba(table).reveal_keyed(to="o")
    evaluation = model.evaluate(table)
    evaluation.roc_curve(points=ROWS)
    evaluation.calibration(bins=ROWS)
    few = lake.upload({"id": [1, 2, 3], "x": [0.5, 1.5, 2.5]}, name="few", key="id", owner="o")
    few.describe("x")


def test_what_is_declared_are_the_computations():
    assert set(DECLARED) == set(COMPUTATIONS)
    declared = [
        call
        for source in Path(tercet.ml.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(source.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "computation"
    ]
    assert len(declared) == len(DECLARED)
    assert {one.group for one in COMPUTATIONS.values()} == set(GROUPS)


def test_nodes_know_them_all():
    """Also in a process that has imported nothing else of Tercet than a node does."""
    code = "import tercet.nodes.program; from tercet.ml.computations import COMPUTATIONS as c; print(*c)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(told.stdout.split()) == set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_nothing_is_disclosed_undeclared(plans, name):
    assert plans[name], f"no call above has {name} run"
    assert [one for plan in plans[name] for one in undeclared(name, plan)] == []


@pytest.mark.parametrize("name", DECLARED)
def test_nothing_is_declared_that_never_occurs(plans, name):
    told = [one for plan in plans[name] for one in plan.disclosures()]
    assert {one.kind for one in told if one.to != NODES} == DECLARED[name].discloses
    assert {one.what for one in told if one.to == NODES} == DECLARED[name].opens


@pytest.mark.parametrize("name", DECLARED)
def test_groups_keep_what_they_promise(name):
    assert DECLARED[name].discloses <= MOST[COMPUTATIONS[name].group]


def test_the_page_has_what_is_declared():
    """`docs/reference/disclosures.md` has one line for each computation, in the order of the table."""
    lines = []
    for name, one in DECLARED.items():
        told = ", ".join(f"`{kind}`" for kind in CLASSES if kind in one.discloses) or "nothing"
        opened = "; ".join(sorted(one.opens)) or "nothing"
        lines.append(f"| `{name}` | {COMPUTATIONS[name].group} | {told} | {opened} |")
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == lines


def test_what_is_not_declared_is_found():
    b = Builder("p")
    x = b.input("x", Type(Form.RING, (10,), 8, 2.0**20))
    x.sum().reveal("sum", to="ann", kind="figure")
    x.reveal("all", to="ann")
    x.sum().open("a sum")
    plan = b.plan()
    assert [one.what for one in undeclared("corr", plan)] == ["all", "a sum"]
    assert [one.what for one in undeclared("reveal_rows", plan)] == ["sum", "all", "a sum"]
    assert len(undeclared("unknown", plan)) == 3
    with pytest.raises(PlanError, match=r"'corr' would disclose all \(10\) to ann, which it does not"):
        require_declared("corr", plan)
    assert Declared() == Declared((), opens=frozenset())
