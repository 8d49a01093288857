"""What survives the restart of nodes: stored values, waiting plans, approvals, jobs and sealed results."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading

import attrs
import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import PeerLost, PlanError
from tercet.ml import LogisticRegression

pytestmark = pytest.mark.early
ROWS = 400
RNG = np.random.default_rng(3)
AGE, COST = RNG.normal(50, 10, ROWS), RNG.gamma(2.0, 100.0, ROWS)
SICK = (0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0).astype(int)
AGES = {"id": np.arange(ROWS), "age": AGE, "sick": SICK}
COSTS = {"id": np.arange(50, ROWS + 50), "cost": COST}


def connect(nodes, member="ann"):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


@pytest.fixture(scope="module")
def tables(nodes):
    with connect(nodes, "hospital") as lake:
        lake.upload(AGES, name="ages", key="id", owner="hospital", allow=Allow(plans="any"))
        lake.upload(AGES, name="asking", key="id", owner="hospital")
    with connect(nodes, "insurer") as lake:
        lake.upload(COSTS, name="costs", key="id", owner="insurer", allow=Allow(plans="any"))
    return nodes


def files(nodes, index):
    return sorted((nodes.root / f"n{index}" / "data").iterdir())


def restart_roughly(nodes):
    """As after a loss of power."""
    for index in list(nodes.processes):
        nodes.stop(index, signal.SIGKILL)
    nodes.start(0, 1, 2)
    nodes.wait_until_ready()


def test_what_plans_have_stored(tables):
    before = [files(tables, index) for index in range(3)]
    with connect(tables, "hospital") as lake, lake.plan("save") as plan:
        age = plan.column(lake.table("ages"), "age")
        age.mean().save("mean age")
        (age > 50).save("over 50")
    with connect(tables) as lake:
        joined = lake.table("ages").join(lake.table("costs"), on="id")
        model = LogisticRegression().fit(joined, target="sick")
        coefficients = model.reveal()
    restart_roughly(tables)
    with connect(tables, "hospital") as lake, lake.plan("load") as plan:
        mean, old = plan.load(lake.number("mean age")), plan.load(lake.number("over 50"))
        mean.reveal("mean")
        (plan.column(lake.table("ages"), "age") @ old).reveal("total", kind="figure")
    assert plan.revealed["mean"] == pytest.approx(AGE.mean(), rel=1e-4)
    assert plan.revealed["total"] == pytest.approx(AGE[AGE > 50].sum(), rel=1e-4)
    with connect(tables, "insurer") as lake, pytest.raises(PlanError, match="insurer has no computation"):
        LogisticRegression().fit(attrs.evolve(joined, lake=lake), target="sick")
    with connect(tables) as lake:
        again = LogisticRegression().fit(attrs.evolve(joined, lake=lake), target="sick").reveal()
        np.testing.assert_allclose(again.coef_[0], coefficients.coef_[0], atol=1e-4)
        kept = attrs.evolve(model._found.model, like=attrs.evolve(joined, lake=lake))
        kept.save("risk")
    restart_roughly(tables)
    with connect(tables) as lake:
        np.testing.assert_allclose(lake.model("risk").reveal().coef_[0], coefficients.coef_[0], atol=1e-6)
        handles = [part.handle for part in (*joined.parts, joined.keys)]
        lake.call(lake.cluster.client.drop, handles)
        with pytest.raises(PlanError, match="nothing of ann is stored"):
            LogisticRegression().fit(attrs.evolve(joined, lake=lake), target="sick")
    assert all(set(before[index]) <= set(files(tables, index)) for index in range(3))


# -- fits go on ----------------------------------------------------------------------------------------------


def query(nodes, index, text):
    """Ask the catalog of a node."""
    with contextlib.closing(sqlite3.connect(nodes.root / f"n{index}" / "catalog.sqlite")) as catalog:
        found = catalog.execute(text).fetchall()
        catalog.commit()
    return found


def checkpoints(nodes, index):
    return query(nodes, index, "SELECT count(*) FROM checkpoints")[0][0]


class Fit(threading.Thread):
    """A fit on the side, and its coefficients; `results` are those of its plans, as they end."""

    def __init__(self, nodes, table="ages", **options):
        super().__init__()
        self.nodes, self.table, self.options = nodes, table, options
        self.results, self.coefficients, self.error = [], None, None

    def run(self):
        with connect(self.nodes) as lake:
            lake.checkpoint_every = 10
            lake.on_result = lambda _, result: self.results.append(result)
            try:
                model = LogisticRegression(**self.options).fit(lake.table(self.table), target="sick")
                self.coefficients = model.reveal().coef_[0]
            except tercet.errors.TercetError as error:
                self.error = error

    def finished(self):
        self.join(timeout=120)
        assert self.error is None, self.error
        return self.coefficients


LONG = {"solver": "gd", "max_iter": 120, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def undisturbed(tables):
    fit = Fit(tables, **LONG)
    fit.start()
    fit.finished()
    assert fit.results[0].interrupted == 0
    return fit


@pytest.mark.parametrize("lost", ["nothing", "checkpoints"])
def test_a_fit_goes_on_after_a_node_was_killed(tables, undisturbed, lost):
    files_before = [files(tables, index) for index in range(3)]
    fit = Fit(tables, **LONG)
    fit.start()
    tables.wait_for(lambda: min(checkpoints(tables, index) for index in range(3)) > 3, "checkpoints written")
    tables.stop(1, signal.SIGKILL)
    assert checkpoints(tables, 1) < 20
    if lost == "checkpoints":  # so that only two nodes have them
        query(tables, 1, "DELETE FROM checkpoints")
    tables.start(1)
    np.testing.assert_allclose(fit.finished(), undisturbed.coefficients, atol=1e-5)
    assert fit.results[0].interrupted >= 1
    if lost == "nothing":
        assert fit.results[0].rounds < undisturbed.results[0].rounds - 10
    else:
        assert fit.results[0].rounds >= undisturbed.results[0].rounds - 10
    tables.wait_until_ready()
    assert [checkpoints(tables, index) for index in range(3)] == [0, 0, 0]
    for index in range(3):  # a model of two values and a state of three, and nothing of the attempts
        assert len(set(files(tables, index)) - set(files_before[index])) == 5


def approve_the_one_waiting(nodes):
    """Wait until a plan waits at all nodes, and approve it; its number."""
    with connect(nodes, "hospital") as lake:
        nodes.wait_for(lambda: len(lake.plans()) == 1, "asked for approval")
        (waiting,) = lake.plans()
        lake.approve(waiting.number)
        return waiting.number


def test_a_plan_waits_for_approval_through_a_restart_of_all_nodes(tables):
    fit = Fit(tables, "asking")
    fit.start()
    with connect(tables, "hospital") as lake:
        tables.wait_for(lambda: len(lake.plans()) == 1, "asked for approval")
        (before,) = lake.plans()
    restart_roughly(tables)
    assert approve_the_one_waiting(tables) == before.number
    tables.wait_for(lambda: fit.results, "the fit has ended")
    assert fit.results[0].interrupted >= 1
    approve_the_one_waiting(tables)  # revealing is a plan of its own
    assert np.isfinite(fit.finished()).all()


@pytest.mark.parametrize("ended", [False, True])
def test_owners_are_asked_again_only_if_a_node_had_come_to_the_end(tables, undisturbed, ended):
    fit = Fit(tables, "asking", **LONG)
    fit.start()
    number = approve_the_one_waiting(tables)
    tables.wait_for(lambda: min(checkpoints(tables, index) for index in range(3)) > 3, "checkpoints written")
    tables.stop(2, signal.SIGKILL)
    if ended:
        query(tables, 2, "UPDATE runs SET spent = 1")
    tables.start(2)
    tables.wait_until_ready()
    if ended:
        assert approve_the_one_waiting(tables) != number
    tables.wait_for(lambda: fit.results, "the fit has ended")
    assert approve_the_one_waiting(tables) != number
    np.testing.assert_allclose(fit.finished(), undisturbed.coefficients, atol=1e-5)
    with connect(tables, "ann") as lake:
        for again, why in ((False, "known already"), (True, "lets it through no more")):
            with pytest.raises(PlanError, match=why):
                lake.call(run_again, lake, number, tables, again)


async def run_again(lake, number, nodes, again):
    """Ask for a run that has ended."""
    runs = [run for (run,) in query(nodes, 0, "SELECT run FROM runs") if run.hex().startswith(number)]
    table, builder = await lake._find_table("asking", lake), lake.builder("again")
    table.features(builder, ["age"]).sum().reveal("sum", to="analyst")
    await lake.cluster.client.ask("submit", [runs[0], builder.plan().to_bytes(), 60.0, again])


def test_patience_runs_out(tables):
    with tercet.connect(tables.cluster, identity=tables.key("ann"), patience_s=1.0) as lake:
        table = lake.table("ages")
        tables.stop(0, signal.SIGKILL)
        with pytest.raises(PeerLost, match=r"waited for 1 s, and party 0 cannot be") as told:
            table.describe()
        assert told.value.peer == "party 0"
        tables.start(0)
        tables.wait_until_ready()
        assert "age" in str(table.describe())  # the same lake goes on, with a new link
