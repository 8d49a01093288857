"""Functions of formulas as computations: at lakes, as jobs, at nodes, under rules; and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

import tercet
from tercet.errors import PlanError, SchemaError
from tercet.ml import computations
from tercet.ml.computations import Request, encoded
from tercet.ml.uses import uses_of
from tests.fuzz import asked

ROWS = 50
pytestmark = pytest.mark.usefixtures("declaring")
RNG = np.random.default_rng(6)
DATA = {"id": np.arange(ROWS), "x": RNG.normal(size=ROWS), "y": RNG.normal(size=ROWS)}


@pytest.fixture(scope="module")
def lake():
    with tercet.local(protocol="plain") as opened:
        yield opened


@pytest.fixture(scope="module")
def table(lake):
    return lake.upload(DATA, name="t", key="id", owner="o")


def declared():
    @tercet.computation(discloses=["figure"])
    def covariance(plan, table: tercet.Table, a: str, b: str):
        x, y = plan.columns(table, a, b)
        ((x - x.mean()) @ (y - y.mean()) / len(x)).reveal("covariance")

    return covariance


def test_it_runs_at_the_lake_of_its_table_and_as_a_job(lake, table):
    covariance = declared()
    wanted = pytest.approx(np.cov(DATA["x"], DATA["y"], bias=True)[0, 1], abs=1e-5)
    assert covariance(table, "x", "y") == {"covariance": wanted}
    assert covariance(table, b="x", a="y") == {"covariance": wanted}
    job = lake.submit(covariance.steps(table, "x", "y"))
    assert lake.collect(covariance.steps(table, "x", "y"), job) == {"covariance": wanted}
    explained = tercet.explain(covariance.plan(table, "x", "y"))
    assert [str(one) for one in explained.disclosures] == ["covariance (1, figure) to analyst"]
    assert "covariance" in str(tercet.draw(covariance.plan(table, "x", "y")))


async def test_it_is_awaited_in_trio():
    covariance = declared()
    async with tercet.open_local(protocol="plain") as lake:
        table = await lake.upload(DATA, name="t", key="id", owner="o")
        found = await covariance(table, "x", "x")
    assert found == {"covariance": pytest.approx(DATA["x"].var(), rel=1e-4)}


def test_nodes_make_the_same_plan_of_a_request():
    """A node finds it as an entry point, checks arguments, and makes the plan that the client has made."""
    covariance = declared()
    patients = asked._table("patients")
    client = tercet.ml.numbers.Formulas(computations_builder())
    covariance.function(client, patients, "age", "sick")
    steps = computations.COMPUTATIONS["covariance"].call(patients, "age", "sick")
    packed = Request("covariance", encoded(steps.known, steps.arguments), bytes(16)).to_bytes()
    built = asked.node().made("ann", Request.from_bytes(packed))
    assert [node.kind for node in built.plan.nodes if node.kind == "reveal"] == ["reveal"]
    assert len(built.plan.nodes) <= len(client.plan().nodes)
    for wrong, says in (({"a": 3}, "a=3 is a number, not text"), ({"c": "x"}, "has no argument 'c'")):
        request = Request("covariance", {**encoded(steps.known, steps.arguments), **wrong}, bytes([1]) * 16)
        with pytest.raises(PlanError, match=says):
            asked.node().made("ann", request)


def computations_builder():
    return tercet.plans.Builder("covariance")


def test_a_package_offers_it(monkeypatch):
    def offered(*, group, name):
        entry = SimpleNamespace(value="package:covariance", load=declared)
        return [entry] if (group, name) == ("tercet.computations", "covariance") else []

    monkeypatch.setattr(computations, "entry_points", offered)
    data = {"table": {"$table": "patients"}, "a": "age", "b": "sick"}
    built = asked.node().made("ann", Request("covariance", data, bytes([2]) * 16))
    assert built.known.group == "statistics"
    assert [str(one) for one in built.plan.disclosures()] == ["covariance (1, figure) to analyst"]


def test_it_counts_as_using_every_column():
    """Also one of whose arguments the name says that it is one column."""

    @tercet.computation(discloses=["figure"])
    def sneaky(plan, table: tercet.Table, target: str):
        plan.column(table, "sick").mean().reveal("rate")

    known = computations.COMPUTATIONS["sneaky"]
    used = uses_of(known, {"table": asked._table("patients"), "target": "age"})
    assert used.columns == {"patients": {"age", "sick", "stage", "born"}}


def test_more_than_is_declared_is_refused(table):
    @tercet.computation(discloses=["count"])
    def more(plan, table: tercet.Table):
        plan.column(table, "x").mean().reveal("mean")

    @tercet.computation(discloses=["figure"])
    def sorts(plan, table: tercet.Table):
        plan.sort(plan.column(table, "x"))[-2].reveal("second", kind="figure")

    @tercet.computation(discloses=["figure"], opens=["sort"])
    def says_so(plan, table: tercet.Table):
        plan.sort(plan.column(table, "x"))[-2].reveal("second", kind="figure")

    with pytest.raises(PlanError, match=r"would disclose mean \(1, figure\)"):
        more(table)
    with pytest.raises(PlanError, match="would disclose comparisons of shuffled rows"):
        sorts(table)
    assert says_so(table)["second"] == pytest.approx(np.sort(DATA["x"])[-2], abs=1e-4)


def test_rows_and_models_are_not_in_the_group_of_statistics():
    for kind, group in (("figure", "statistics"), ("model", "rows"), ("rows", "rows")):

        @tercet.computation(discloses=[kind])
        def tells(plan, table: tercet.Table):
            raise NotImplementedError

        assert computations.COMPUTATIONS["tells"].group == group


def test_arguments_keep_to_their_annotations(table):
    @tercet.computation(discloses=["figure"])
    def picky(
        plan, table: tercet.Table, names: Sequence[str], power: int, factor: float = 1.0, whole: bool = True
    ):
        (plan.columns(table, *names)[0] ** power * factor).sum().reveal("it")

    assert picky(table, ["x"], 1, factor=2) == {"it": pytest.approx(2 * DATA["x"].sum(), abs=1e-3)}
    for given, says in (
        ((table, ["x"], 1.5), "power=1.5 is not a whole number|power=1.5"),
        ((table, ["x"], 1, np.inf), "factor=inf"),
        ((table, 3, 1), "names=3"),
    ):
        with pytest.raises(PlanError, match=says):
            picky(*given)
    with pytest.raises(SchemaError, match="table of a lake"):
        picky("t", ["x"], 1)


def test_what_cannot_be_declared():
    def unsaid(plan, table: tercet.Table, what):
        raise NotImplementedError

    def join(plan, table: tercet.Table):
        raise NotImplementedError

    with pytest.raises(TypeError, match="argument 'what': say what it may be"):
        tercet.computation(discloses=["figure"])(unsaid)
    with pytest.raises(TypeError, match="there is a computation 'join' already"):
        tercet.computation(discloses=["figure"])(join)
    with pytest.raises(TypeError, match="'secret' is no disclosure"):
        tercet.computation(discloses=["secret"])
    with pytest.raises(TypeError, match="'shuffle' is no disclosure"):
        tercet.computation(discloses=["figure"], opens=["shuffle"])
    declared()
    declared()  # a cell of a notebook that runs again
