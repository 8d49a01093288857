"""Nodes that last with workers on Dask: they compute, are missed when killed, and jobs go on with others."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import ConfigError
from tercet.members.node_file import NodeFile
from tercet.ml import LogisticRegression
from tests.nodes import on_disk

pytestmark = pytest.mark.filterwarnings("ignore::tercet.errors.ConvergenceWarning")

ROWS = 70_000
"""More than one tile, so that workers take part."""
RNG = np.random.default_rng(4)
AGE = RNG.normal(50, 10, ROWS)
SICK = 0.1 * (AGE - 50) + RNG.logistic(size=ROWS) > 0
COLUMNS = {"id": np.arange(ROWS), "age": AGE, "sick": SICK}
OPTIONS = {"solver": "gd", "tol": 1e-6, "max_iter": 25, "learning_rate": 0.1}


@pytest.fixture
def nodes(tmp_path):
    """Nodes with a worker each, on a Dask cluster of their own."""
    made = on_disk.set_up(tmp_path)
    made.forked = False
    for index in range(made.count):
        made.configure(index, engine="dask", workers=1)
    made.start(*range(made.count))
    try:
        made.wait_until_ready()
        yield made
    finally:
        for index in list(made.processes):
            made.stop(index)
        made.close()


def children(pid: int) -> list[int]:
    """Processes that a process has started, and those that they have."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *children(child)]
    return found


def worker_of(nodes, index) -> int:
    """The process in which the worker of a node is."""
    (found,) = [
        pid
        for pid in children(nodes.processes[index].pid)
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def in_the_clear():
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(COLUMNS, name="ages", key="id", owner="hospital")
        return LogisticRegression(**OPTIONS).fit(table, target="sick").reveal()


@pytest.mark.scale
@pytest.mark.timeout(300)
def test_a_job_goes_on_with_other_workers(nodes):
    """A worker is killed in the middle of a fit; nothing that Dask has started is left at the end."""
    with tercet.connect(nodes.cluster, identity=nodes.key("hospital")) as lake:
        lake.upload(COLUMNS, name="ages", key="id", owner="hospital", allow=Allow(plans="any"))
    with tercet.connect(nodes.cluster, identity=nodes.key("ann")) as lake:
        table = lake.table("ages")
        job = LogisticRegression(**OPTIONS).submit(table, target="sick")
        time.sleep(0.5)
        killed = worker_of(nodes, 1)
        os.kill(killed, signal.SIGKILL)
        found = LogisticRegression(**OPTIONS).collect(job, table, target="sick").reveal()
        np.testing.assert_allclose(found.coef_, in_the_clear().coef_, atol=1e-4)
        nodes.wait_until_ready()
        assert [nodes.health(index)["workers"] for index in range(3)] == [1, 1, 1]
        assert worker_of(nodes, 1) != killed
    assert "worker 0 of party 1 is lost" in (nodes.root / "n1" / "log").read_text()
    started = [pid for process in nodes.processes.values() for pid in children(process.pid)]
    for index in list(nodes.processes):
        assert nodes.stop(index) == 0
    deadline = time.monotonic() + 10
    while (left := [pid for pid in started if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('engine = "dask"', "with workers = 0"),
        ("workers = 2", "a node without workers has"),
        ('engine = "dask"\nworkers = -1', "workers = -1 is too small"),
        ('engine = "dask"\nworkers = 1\nworker_scratch = "here"', "is no whole path"),
        ('engine = "dask"\nworkers = 1\n[dask]\nport = 1', None),
    ],
)
def test_what_a_file_says_of_workers_fits_together(tmp_path, line, says):
    file = tmp_path / "node.toml"
    file.write_text(f'listen = "127.0.0.1:7000"\n{line}\n')
    if says is None:
        assert NodeFile.read(file).engine_options == {"port": 1}  # for the engine to refuse
        return
    with pytest.raises(ConfigError, match=says):
        NodeFile.read(file)
