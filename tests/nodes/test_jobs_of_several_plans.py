"""Fits of several plans that go on alone: without their client, and across the loss of a node."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import SchemaError
from tercet.ml import LogisticRegression
from tests.nodes.on_disk import NodesOnDisk

pytestmark = pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")
ROWS = 400
RNG = np.random.default_rng(3)
AGE = RNG.normal(50, 10, ROWS)
SICK = (0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0).astype(int)
AGES = {"id": np.arange(ROWS), "age": AGE, "sick": SICK, "well": np.zeros(ROWS, dtype=bool)}
OPTIONS = {"solver": "gd", "tol": 1e-6, "max_iter": 12, "learning_rate": 0.1}
"""A fit of twelve plans, one for each step, which does not converge."""


def connect(nodes, member="ann"):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


@pytest.fixture(scope="module")
def tables(nodes):
    with connect(nodes, "hospital") as lake:
        lake.upload(AGES, name="free", key="id", owner="hospital", allow=Allow(plans="any"))
    return nodes


@pytest.fixture(scope="module")
def undisturbed(tables):
    with connect(tables) as lake:
        model = LogisticRegression(**OPTIONS).fit(lake.table("free"), target="sick")
        return model.reveal()


def bits(disclosed, to):
    """Check bits that were told, in order, whatever was told more than once."""
    return [one.what.partition(", perhaps")[0] for one in disclosed if (one.to, one.kind) == (to, "check")]


def query(nodes, index, text):
    with contextlib.closing(sqlite3.connect(nodes.root / f"n{index}" / "catalog.sqlite")) as catalog:
        return catalog.execute(text).fetchall()


SUBMITTING = """
import json, os, sys, tercet
from tercet.ml import LogisticRegression
cluster, key, options = sys.argv[1:]
lake = tercet.connect(cluster, identity=key)
job = LogisticRegression(**json.loads(options)).submit(lake.table("free"), target="sick")
print(job.session.hex(), flush=True)
os.kill(os.getpid(), 9)
"""


def submit_and_die(nodes: NodesOnDisk) -> bytes:
    """Submit a fit in a process that is killed as soon as the nodes have it; the job's name."""
    command = [sys.executable, "-c", textwrap.dedent(SUBMITTING), str(nodes.cluster), str(nodes.key("ann"))]
    found = subprocess.run(
        [*command, json.dumps(OPTIONS)], capture_output=True, text=True, timeout=240, check=False
    )
    assert found.returncode == -signal.SIGKILL, found.stderr
    return bytes.fromhex(found.stdout.strip())


def collected(nodes, session):
    """What a model is that another client collects."""
    with connect(nodes) as lake:
        (job,) = [one for one in lake.jobs() if one.session == session]
        model = LogisticRegression(**OPTIONS).collect(job, lake.table("free"), target="sick")
        assert lake.table("free").rows == model.predict(lake.table("free")).rows
        return model, model.reveal(), lake.disclosed


@pytest.mark.parametrize("lost", [[], [0], [2], [0, 1, 2]])
def test_a_fit_goes_on_without_its_client_and_a_node(tables, undisturbed, lost):
    session = submit_and_die(tables)
    at = f"SELECT step FROM submitted WHERE run = x'{session.hex()}'"
    if lost:
        tables.wait_for(lambda: (query(tables, lost[0], at)[0][0] or 0) >= 2, "at its third plan")
        for index in lost:
            tables.stop(index, signal.SIGKILL)
        under_way = f"SELECT run FROM submitted WHERE NOT ended AND run = x'{session.hex()}'"
        assert all(query(tables, index, under_way) for index in lost), "it was over too soon"
        tables.start(*lost)
        tables.wait_until_ready()
    model, revealed, disclosed = collected(tables, session)
    np.testing.assert_allclose(revealed.coef_, undisturbed.coef_, atol=5e-5)
    np.testing.assert_allclose(revealed.intercept_, undisturbed.intercept_, atol=5e-4)
    assert model.n_iter_ == [12]
    told = bits(disclosed, "analyst")
    assert bits(disclosed, "the nodes") == told
    assert told.count("whether the fit has converged") == 11
    for index in range(3):  # nothing is left that plans have stored for each other
        assert query(tables, index, "SELECT handle FROM loose WHERE handle LIKE '~%'") == []


def test_a_fit_that_cannot_be_ends_by_itself_and_says_so(tables):
    """Nodes see from the bits that nothing comes after it, and the member gets the sentence."""
    with connect(tables) as lake:
        table = lake.table("free")
        job = LogisticRegression().submit(table, target="well")
        with pytest.raises(SchemaError, match="have the same outcome"):
            LogisticRegression().collect(job, table, target="well")
        assert [one.state for one in lake.jobs() if one.session == job.session] == ["done"]
