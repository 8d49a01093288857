"""What survives the restart of nodes: stored values, waiting plans, approvals, jobs and sealed results."""

from __future__ import annotations

import signal

import attrs
import numpy as np
import pytest

import tercet
from tercet.errors import PlanError
from tercet.lake import Allow
from tercet.ml import LogisticRegression

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
    with connect(tables) as lake:
        joined = lake.table("ages").join(lake.table("costs"), on="id")
        model = LogisticRegression().fit(joined, target="sick")
        coefficients = model.reveal()
    restart_roughly(tables)
    with connect(tables, "insurer") as lake, pytest.raises(PlanError, match="nothing of insurer is stored"):
        LogisticRegression().fit(attrs.evolve(joined, lake=lake), target="sick")
    with connect(tables) as lake:
        again = LogisticRegression().fit(attrs.evolve(joined, lake=lake), target="sick").reveal()
        np.testing.assert_allclose(again.coef_, coefficients.coef_, atol=1e-4)
        kept = attrs.evolve(model._found.model, like=attrs.evolve(joined, lake=lake))
        kept.save("risk")
    restart_roughly(tables)
    with connect(tables) as lake:
        np.testing.assert_allclose(lake.model("risk").reveal().coef_, coefficients.coef_, atol=1e-6)
        handles = [part.handle for part in (*joined.parts, joined.keys)]
        lake.call(lake.cluster.client.drop, handles)
        with pytest.raises(PlanError, match="nothing of ann is stored"):
            LogisticRegression().fit(attrs.evolve(joined, lake=lake), target="sick")
    assert all(set(before[index]) <= set(files(tables, index)) for index in range(3))
