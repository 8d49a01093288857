"""A whole lake: three nodes, owners with CSV, Parquet and PostgreSQL, consent, restarts, crashes.

Each node has a directory of its own and, where the machine allows it, a network namespace.
`make cluster-test` runs this, and with it all tests of nodes; it takes a few minutes on a busy machine.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

import tercet
from tercet import Allow
from tercet.errors import ConsentError
from tercet.ml import LogisticRegression
from tests.nodes import on_disk
from tests.nodes.network import network

pytestmark = pytest.mark.scale

ROWS = 2000


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    age, cost, visits = rng.normal(50, 15, ROWS), rng.gamma(2.0, 100.0, ROWS), rng.poisson(3, ROWS)
    logits = 0.05 * (age - 50) + 0.004 * (cost - 200) - 0.2 * visits
    sick = (logits + rng.logistic(size=ROWS) > 0).astype(int)
    return pd.DataFrame({"policy": np.arange(ROWS), "age": age, "cost": cost, "visits": visits, "sick": sick})


@contextlib.contextmanager
def owners_sign(nodes, *owners):
    """Owners who look at what waits, and approve it with the command's own means."""
    done = threading.Event()

    def sign(owner):
        with tercet.connect(nodes.cluster, identity=nodes.key(owner)) as lake:
            while not done.wait(0.1):
                for waiting in lake.plans():
                    if owner in waiting.missing:
                        with contextlib.suppress(ConsentError):
                            lake.approve(waiting.number)

    threads = [threading.Thread(target=sign, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def init(root, where):
    """Everybody runs `tercet init`, and passes the public part on."""
    for index in range(3):
        address, metrics = where.addresses[index], where.metrics[index]
        listen = ("--address", address, "--listen", address, "--metrics", metrics)
        on_disk.tercet("init", "--name", f"n{index}", *listen, cwd=root)
    for name, role in on_disk.MEMBERS.items():
        on_disk.tercet("init", "--name", name, "--role", role, cwd=root)
    parts = [f"n{index}/public.toml" for index in range(3)]
    parts += [f"{name}.public.toml" for name in on_disk.MEMBERS]
    on_disk.tercet("init", "--cluster", "cluster.toml", *parts, cwd=root)
    for index in range(3):
        shutil.copy(root / "cluster.toml", root / f"n{index}")
    return on_disk.NodesOnDisk(root, where, forked=False)


@contextlib.contextmanager
def apart(root, set_up):
    """Nodes of a lake that `set_up(root, network)` makes, in network namespaces where that is allowed."""
    with network() as where:
        nodes = set_up(root, where)
        try:
            yield nodes
        finally:
            nodes.close()


@pytest.fixture
def nodes_by_command(tmp_path):
    """Nodes that were set up by the command, and not started."""
    with apart(tmp_path, init) as nodes:
        yield nodes


@pytest.fixture
def running_nodes(tmp_path):
    """Running nodes."""
    with apart(tmp_path, on_disk.set_up) as nodes:
        nodes.start(0, 1, 2)
        nodes.wait_until_ready()
        yield nodes


def test_from_setting_up_to_a_model(nodes_by_command, data, postgres, command):
    nodes = nodes_by_command
    nodes.configure(1, catalog=postgres)  # one of the nodes keeps it there
    data[["policy", "age"]].to_csv(nodes.root / "ages.csv", index=False)
    data[["policy", "sick"]].to_parquet(nodes.root / "outcomes.parquet")
    engine = sa.create_engine(postgres)
    data[["policy", "cost", "visits"]].to_sql("claims", engine, index=False, if_exists="replace")
    engine.dispose()
    nodes.start(0, 1, 2)
    nodes.wait_until_ready()
    namespaces = {Path(f"/proc/{one.pid}/ns/net").readlink() for one in nodes.processes.values()}
    assert len(namespaces) == (3 if nodes.network.can_cut else 1)

    def upload(source, name, owner, *more):
        who = ("--identity", f"{owner}.key")
        told = command("upload", source, "--name", name, "--key", "policy", *who, *more, cwd=nodes.root)
        assert f"{name}: {ROWS} secret rows by key policy" in told

    upload("ages.csv", "ages", "hospital", "--min-count", 20)
    upload("outcomes.parquet", "outcomes", "hospital")
    upload(
        postgres, "claims", "insurer", "--query", "SELECT policy, cost, visits FROM claims", "--reader", "ann"
    )
    listed = command("tables", "--identity", "ann.key", cwd=nodes.root)
    assert all(name in listed for name in ("ages", "outcomes", "claims", "hospital", "insurer"))

    def train():
        with tercet.connect(nodes.cluster, identity=nodes.key("ann")) as lake:
            joined = lake.table("ages").join(lake.table("outcomes"), lake.table("claims"), on="policy")
            assert joined.rows == ROWS
            model = LogisticRegression(C=1.0).fit(joined, target="sick")
            with pytest.raises((ConsentError, tercet.SchemaError), match="single rows"):
                joined.reveal("age")
            model.save("risk")
            return model.reveal(), model.evaluate(joined).reveal()

    with owners_sign(nodes, "hospital", "insurer"):
        before, quality = train()
    from sklearn.linear_model import LogisticRegression as Clear

    features = data[list(before.feature_names_in_)]
    scale = features.to_numpy().std(axis=0)
    clear = Clear(C=1e6, max_iter=1000).fit(features.to_numpy() / scale, data["sick"])
    np.testing.assert_allclose(before.coef_[0], clear.coef_[0] / scale, rtol=0.02)
    assert quality

    nodes.restart()
    with owners_sign(nodes, "hospital", "insurer"):
        found = predict(nodes, data[:50].drop(columns="sick"))
        with pytest.raises(ConsentError, match="hospital does not let single rows of table 'ages'"):
            predict(nodes, None)
    z = features[:50].to_numpy() @ before.coef_[0] + before.intercept_[0]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-z)), atol=1e-3)
    told = command("audit", "--verify", "--identity", "aud.key", cwd=nodes.root)
    assert told.count("whole; head") == 3


def predict(nodes, newcomers):
    """Probabilities for an analyst's own rows, or for those of the owners, by the model that is kept."""
    with tercet.connect(nodes.cluster, identity=nodes.key("ann")) as lake:
        if newcomers is None:
            table = lake.table("ages").join(lake.table("claims"), on="policy")
        else:
            table = lake.upload(newcomers, name="newcomers", key="policy", owner="ann")
        return lake.model("risk").predict_proba(table).reveal()


@pytest.mark.parametrize("fault", ["killed", "cut off"])
def test_several_members_at_once_and_a_fault(running_nodes, data, fault):
    """Four clients keep the nodes busy; one node is lost, and comes back; no wrong result, no hang."""
    nodes = running_nodes
    if fault == "cut off" and not nodes.network.can_cut:
        pytest.skip("this machine allows no network namespaces")
    with tercet.connect(nodes.cluster, identity=nodes.key("hospital")) as lake:
        lake.upload(
            data[["policy", "age"]], name="ages", key="policy", owner="hospital", allow=Allow(plans="any")
        )
    outcomes, stop = [], threading.Event()

    def work(member):
        while not stop.is_set():
            try:
                with tercet.connect(nodes.cluster, identity=nodes.key(member)) as lake:
                    for _ in range(5):
                        found = lake.table("ages").describe(["age"], statistics=["mean"])
                        outcomes.append(round(found["age"]["mean"], 2))
            except tercet.TransportError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=work, args=("ann",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        nodes.wait_for(lambda: len(outcomes) > 20, "at work")
        if fault == "killed":
            nodes.stop(1, 9)
        else:
            nodes.network.cut(1)
        nodes.wait_for(lambda: any(isinstance(one, Exception) for one in outcomes), "lost")
        if fault == "killed":
            nodes.start(1)
        else:
            nodes.network.mend(1)
        nodes.wait_until_ready()
        start = len(outcomes)
        nodes.wait_for(lambda: sum(isinstance(one, float) for one in outcomes[start:]) > 20, "back at work")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    means = {one for one in outcomes if isinstance(one, float)}
    assert len(means) == 1, means
    assert all("party" in str(one) for one in outcomes if isinstance(one, Exception))
