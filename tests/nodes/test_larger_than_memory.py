"""Tables larger than a node's memory, each node in a memory control group that the kernel holds it to.

A table is uploaded from an iterator of chunks, kept, and read tile by tile by a fit whose coefficients are
compared with those of the same steps in the clear; so is a fit on the join of two tables, of which half the
rows match. `TERCET_LARGE_MB` is the size of a table's shares at each node, of both tables together for the
join; `TERCET_LIMIT_MB` is what a node may use, and each of its `TERCET_WORKERS` (2), where nodes have some.
That takes root and control groups (version 1); elsewhere these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest

import tercet
from tercet import Allow
from tercet.errors import ConvergenceWarning
from tercet.ml import LogisticRegression
from tests.nodes import on_disk
from tests.nodes.network import Loopback

GROUPS = Path("/sys/fs/cgroup/memory")
ROOT = Path(__file__).parents[2]
LARGE_MB = int(os.environ.get("TERCET_LARGE_MB", "600"))
LIMIT_MB = int(os.environ.get("TERCET_LIMIT_MB", "450"))
WORKERS = int(os.environ.get("TERCET_WORKERS", "2"))
FEATURES, CHUNK_ROWS, STEPS = 10, 1 << 18, 3
WEIGHTS = np.linspace(-1.0, 1.0, FEATURES)
SHARE_BYTES = 16
"""What a node holds of each number."""
KEY_WORDS = 2

pytestmark = [
    pytest.mark.scale,
    pytest.mark.skipif(
        not os.access(GROUPS / "memory.limit_in_bytes", os.W_OK), reason="no memory control groups to be made"
    ),
]


@attrs.frozen
class Group:
    """A control group, which holds processes to LIMIT_MB."""

    path: Path

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        self.path.mkdir()
        (self.path / "memory.limit_in_bytes").write_text(str(LIMIT_MB << 20))
        try:
            yield
        finally:
            self.path.rmdir()

    @property
    def within(self) -> Sequence[str]:
        """What runs a command in the group."""
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh")

    @property
    def peak_mb(self) -> int:
        """What was used at most, copies of files that the kernel keeps while there is room included."""
        return int((self.path / "memory.max_usage_in_bytes").read_text()) >> 20

    @property
    def anonymous_mb(self) -> int:
        """What is used now, without such copies."""
        stat = (self.path / "memory.stat").read_text().split()
        return int(stat[stat.index("total_rss") + 1]) >> 20


@attrs.frozen
class Limited(Loopback):
    """Nodes on loopback, and perhaps their workers, each in a control group of its own."""

    groups: dict[str, Group] = attrs.field(factory=dict)

    @contextlib.contextmanager
    def limited(self, workers: int) -> Iterator[None]:
        names = [f"n{index}" for index in range(3)]
        names += [f"w{index}-{number}" for index in range(3) for number in range(workers)]
        with contextlib.ExitStack() as stack:
            for name in names:
                self.groups[name] = Group(GROUPS / f"tercet-{os.getpid()}-{name}")
                stack.enter_context(self.groups[name].made())
            yield

    def within(self, index: int) -> Sequence[str]:
        return self.groups[f"n{index}"].within


@contextlib.contextmanager
def dask(nodes, index: int) -> Iterator[None]:
    """A scheduler of Dask for a node, and its workers."""
    home = nodes.root / f"n{index}"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    place = home / "workers"
    place.mkdir()
    nodes.configure(
        index,
        engine="dask",
        workers=WORKERS,
        worker_scratch=str(place),
        storage=(nodes.root / f"stored{index}").as_uri(),
    )
    with (home / "node.toml").open("a") as file:
        file.write(f'\n[dask]\nscheduler = "{address}"\n')
    port = address.rpartition(":")[2]
    commands = [["dask_scheduler", "--port", port, "--host", "127.0.0.1", "--no-dashboard"]]
    options = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    commands += WORKERS * [["dask_worker", address, "--local-directory", str(home), *options]]
    processes = []
    try:
        with (home / "dask.log").open("ab") as log:
            for number, (what, *args) in enumerate(commands):
                within = nodes.network.groups[f"w{index}-{number - 1}"].within if number else ()
                command = [*within, sys.executable, "-m", f"distributed.cli.{what}", *args]
                processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(params=[0, WORKERS], ids=["nodes", "workers"])
def limited(tmp_path, request):
    network = Limited.make(3)
    with network.limited(request.param), contextlib.ExitStack() as clusters:
        nodes = on_disk.set_up(tmp_path, network)
        for index in range(3):
            (nodes.root / f"n{index}" / "scratch").mkdir()
            nodes.configure(index, scratch="scratch", memory_mb=LIMIT_MB // 8, timeout_s=30.0)
            if request.param:
                clusters.enter_context(dask(nodes, index))
        nodes.start(0, 1, 2)
        try:
            nodes.wait_until_ready()
            yield nodes
            assert all(process.poll() is None for process in nodes.processes.values()), nodes.logs()
        finally:
            nodes.close()
            clusters.close()
            shutil.rmtree(tmp_path)  # pytest would keep it


def chunks(rows: int, seed: int, first: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Rows in order of their keys, from `first`, a multiple of CHUNK_ROWS."""
    for start in range(first, rows, CHUNK_ROWS):
        rng = np.random.default_rng([seed, start])
        count = min(CHUNK_ROWS, rows - start)
        X = rng.standard_normal((FEATURES, count))
        y = WEIGHTS @ X + rng.logistic(size=count) > 0
        columns = {f"x{place}": X[place] for place in range(FEATURES)}
        yield {"id": np.arange(start, start + count), **columns, "y": y}


def descend(stop: int, seed: int, first: int = 0) -> np.ndarray:
    """The same steps of gradient descent in the clear: intercept and coefficients."""
    names = [f"x{place}" for place in range(FEATURES)]
    rows = stop - first
    means = sum(np.array([chunk[name].sum() for name in names]) for chunk in chunks(stop, seed, first)) / rows
    weights = np.zeros(FEATURES + 1)
    for _ in range(STEPS):
        gradient = np.zeros(FEATURES + 1)
        for chunk in chunks(stop, seed, first):
            X = np.stack([np.ones(len(chunk["y"])), *(chunk[name] for name in names)])
            X[1:] -= means[:, None]
            gradient += X @ (1 / (1 + np.exp(-(weights @ X))) - chunk["y"])
        weights -= gradient / rows
    weights[0] -= weights[1:] @ means
    return weights


@contextlib.contextmanager
def reported(nodes, what: str, **facts: object) -> Iterator[None]:
    """Print what it took, as JSON."""
    began = time.monotonic()
    yield
    groups = nodes.network.groups
    told = {"what": what, **facts, "seconds": round(time.monotonic() - began, 1), "limit_mb": LIMIT_MB}
    told["peak_mb"] = {name: group.peak_mb for name, group in groups.items()}
    told["anonymous_mb"] = {name: group.anonymous_mb for name, group in groups.items()}
    print(json.dumps(told), flush=True)  # noqa: T201


def a_few_steps() -> LogisticRegression:
    return LogisticRegression(penalty=None, solver="gd", max_iter=STEPS, tol=None, sigmoid_error=2e-4)


def test_a_fit_on_a_table_larger_than_memory(limited):
    rows = (LARGE_MB << 20) // (SHARE_BYTES * (FEATURES + 1))
    with tercet.connect(limited.cluster, identity=limited.key("hospital"), timeout_s=30) as lake:
        with reported(limited, "upload", rows=rows, shares_mb=LARGE_MB):
            table = lake.upload(
                chunks(rows, 1), name="large", key="id", owner="hospital", allow=Allow(plans="any")
            )
        with reported(limited, "fit", steps=STEPS), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = a_few_steps().fit(table, target="y").reveal()
    np.testing.assert_allclose([found.intercept_[0], *found.coef_[0]], descend(rows, 1), atol=2e-3)


def test_a_join_of_tables_larger_than_memory(limited):
    names = [f"x{place}" for place in range(FEATURES)]
    row_bytes = SHARE_BYTES * (2 * KEY_WORDS + FEATURES + 1)
    third = (LARGE_MB << 20) // row_bytes // (2 * CHUNK_ROWS) * CHUNK_ROWS

    def some(start: int, columns: Sequence[str], step: int) -> Iterator[dict[str, np.ndarray]]:
        for chunk in chunks(start + 2 * third, 2, start):
            yield {name: chunk[name][::step] for name in ("id", *columns)}

    tables = {"first": some(0, names[:5], 1), "second": some(third, [*names[5:], "y"], -1)}
    with tercet.connect(limited.cluster, identity=limited.key("hospital"), timeout_s=30) as lake:
        with reported(limited, "uploads", rows=2 * third, shares_mb=2 * third * row_bytes >> 20):
            first, second = (
                lake.upload(rows, name=name, key="id", owner="hospital", allow=Allow(plans="any"))
                for name, rows in tables.items()
            )
        with reported(limited, "join"):
            joined = first.join(second, on="id")
        assert joined.rows == third > 0
        with reported(limited, "fit", steps=STEPS), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = a_few_steps().fit(joined, target="y").reveal()
    np.testing.assert_allclose(
        [found.intercept_[0], *found.coef_[0]], descend(2 * third, 2, third), atol=2e-3
    )
