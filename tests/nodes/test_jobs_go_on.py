"""Jobs outlive their nodes: they go on when all are back, or say why not, though no client is there."""

from __future__ import annotations

import contextlib
import signal
import sqlite3

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import ConsentError, PlanError
from tercet.ml import LogisticRegression
from tercet.ml.describe import describe

pytestmark = pytest.mark.early
ROWS = 400
RNG = np.random.default_rng(3)
AGE = RNG.normal(50, 10, ROWS)
SICK = (0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0).astype(int)
AGES = {"id": np.arange(ROWS), "age": AGE, "sick": SICK}


def connect(nodes, member="ann"):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


@pytest.fixture(scope="module")
def tables(nodes):
    with connect(nodes, "hospital") as lake:
        lake.upload(AGES, name="free", key="id", owner="hospital", allow=Allow(plans="any"))
        lake.upload(AGES, name="asking", key="id", owner="hospital")
    return nodes


def kill(nodes, *indices, by=signal.SIGKILL):
    """As after a loss of power, unless they are stopped by another signal."""
    for index in indices:
        nodes.stop(index, by)


def start(nodes, *indices):
    nodes.start(*indices)
    nodes.wait_until_ready()


def query(nodes, index, text):
    """Ask the catalog of a node."""
    with contextlib.closing(sqlite3.connect(nodes.root / f"n{index}" / "catalog.sqlite")) as catalog:
        found = catalog.execute(text).fetchall()
        catalog.commit()
    return found


def sum_of_ages(lake, table):
    builder = lake.builder("sum of ages")
    lake.table(table).features(builder, ["age"]).sum().reveal("sum", to="analyst")
    return builder.plan()


def long_fit(lake, table):
    lake.checkpoint_every = 10
    model = LogisticRegression(solver="gd", max_iter=100, learning_rate=0.01)
    return model.fit_steps(lake.table(table), "sick")


def mean_age(lake, table):
    return describe(lake.table(table), ["age"], ["mean"], "analyst")


def submit(nodes, plan, table):
    """Submit a plan and leave; the job's name."""
    with connect(nodes) as lake:
        return lake.submit(plan(lake, table)).session


def the_job(lake, session):
    return next(one for one in lake.jobs() if one.session == session)


def result(nodes, session):
    with connect(nodes) as lake:
        return the_job(lake, session).result()


def approve(nodes, session):
    with connect(nodes, "hospital") as lake:
        nodes.wait_for(lambda: [one.session for one in lake.plans()] == [session], "asked for approval")
        lake.approve(session.hex()[:8])


def wait_for_checkpoints(nodes):
    text = "SELECT count(*) FROM checkpoints"
    nodes.wait_for(lambda: min(query(nodes, i, text)[0][0] for i in range(3)) > 3, "checkpoints written")


@pytest.mark.parametrize(
    ("lost", "by"), [((0,), signal.SIGKILL), ((2,), signal.SIGTERM), ((0, 1, 2), signal.SIGKILL)]
)
def test_a_job_waits_for_approval_through_a_restart(tables, lost, by):
    session = submit(tables, sum_of_ages, "asking")
    kill(tables, *lost, by=by)
    start(tables, *lost)
    with connect(tables) as lake:
        assert the_job(lake, session).state == "under way"
    approve(tables, session)
    found = result(tables, session)
    assert found.revealed["sum"].shape == (1,)
    assert found.interrupted >= 1
    with connect(tables) as lake:
        the_job(lake, session).cancel()


@pytest.fixture(scope="module")
def whole(tables):
    """A fit that nothing interrupts."""
    found = result(tables, submit(tables, long_fit, "free"))
    assert found.interrupted == 0
    return found


@pytest.mark.parametrize("lost", [0, 1])
def test_a_job_goes_on_from_a_checkpoint(tables, whole, lost):
    session = submit(tables, long_fit, "free")
    wait_for_checkpoints(tables)
    kill(tables, lost)
    start(tables, lost)
    with connect(tables) as lake:
        tables.wait_for(lambda: the_job(lake, session).state == "done", "done without being asked")
        found = the_job(lake, session).result()
    assert found.interrupted == 1
    assert found.rounds < whole.rounds - 10
    assert found.revealed.keys() == whole.revealed.keys()
    assert query(tables, 2, "SELECT count(*) FROM checkpoints") == [(0,)]


def test_results_and_failures_are_remembered(tables):
    done, refused = submit(tables, mean_age, "free"), submit(tables, sum_of_ages, "asking")
    before = result(tables, done)
    with connect(tables, "hospital") as lake:
        tables.wait_for(lambda: lake.plans(), "asked for approval")
        lake.refuse(refused.hex()[:8], "not today")
    kill(tables, 0, 1, 2)
    start(tables, 0, 1, 2)
    after = result(tables, done)
    mean = next(value for name, value in before.revealed.items() if name.startswith("mean"))
    assert {name: list(value) for name, value in after.revealed.items()} == {
        name: list(value) for name, value in before.revealed.items()
    }
    assert (after.rounds, after.disclosed) == (before.rounds, before.disclosed)
    with connect(tables) as lake:
        assert (the_job(lake, refused).state, the_job(lake, done).state) == ("failed", "done")
        with pytest.raises(ConsentError, match="not today"):
            the_job(lake, refused).result()
        the_job(lake, done).cancel()
    kill(tables, 0)
    start(tables, 0)
    with connect(tables) as lake:
        assert done not in [one.session for one in lake.jobs()]
    (answers,) = zip(*query(tables, 0, "SELECT answer FROM submitted"), strict=True)
    assert all(mean.tobytes() not in sealed for sealed in answers)


def test_a_job_that_had_come_to_its_end_somewhere_says_so(tables):
    session = submit(tables, long_fit, "asking")
    approve(tables, session)
    wait_for_checkpoints(tables)
    kill(tables, 2)
    query(tables, 2, "UPDATE runs SET spent = 1")
    start(tables, 2)
    with connect(tables) as lake:
        tables.wait_for(lambda: the_job(lake, session).state == "failed", "known to have failed")
        assert "party 2 lets it through no more" in the_job(lake, session).why
        with pytest.raises(PlanError, match="submit the plan again"):
            the_job(lake, session).result()
    assert [query(tables, index, "SELECT count(*) FROM checkpoints") for index in range(3)] == [[(0,)]] * 3


def test_a_job_that_a_node_has_lost(tables):
    session = submit(tables, sum_of_ages, "asking")
    kill(tables, 1)
    query(tables, 1, "DELETE FROM submitted")
    start(tables, 1)
    with connect(tables) as lake:
        tables.wait_for(lambda: the_job(lake, session).state == "failed", "known to have failed")
        assert "a node has lost it" in the_job(lake, session).why
