"""Tables larger than a node's memory, each node in a memory control group that the kernel holds it to.

A table is uploaded from an iterator of chunks, kept, and read tile by tile by a fit whose coefficients are
compared with those of the same steps in the clear; so is a fit on the join of two tables, of which half the
rows match. `TERCET_LARGE_MB` is the size of a table's shares at each node, of both tables together for the
join; `TERCET_LIMIT_MB` is what a node may use. That takes root and control groups (version 1); elsewhere
these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
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
LARGE_MB = int(os.environ.get("TERCET_LARGE_MB", "600"))
LIMIT_MB = int(os.environ.get("TERCET_LIMIT_MB", "450"))
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
class Limited(Loopback):
    """Nodes on loopback, each in a control group of its own."""

    def group(self, index: int) -> Path:
        return GROUPS / f"tercet-{os.getpid()}-n{index}"

    def within(self, index: int) -> Sequence[str]:
        return ("sh", "-c", f'echo $$ > {self.group(index)}/cgroup.procs && exec "$@"', "sh")

    @contextlib.contextmanager
    def groups(self) -> Iterator[None]:
        for index in range(3):
            self.group(index).mkdir()
            (self.group(index) / "memory.limit_in_bytes").write_text(str(LIMIT_MB << 20))
        try:
            yield
        finally:
            for index in range(3):
                self.group(index).rmdir()

    def peak_mb(self, index: int) -> int:
        """What was used at most, copies of files that the kernel keeps while there is room included."""
        return int((self.group(index) / "memory.max_usage_in_bytes").read_text()) >> 20

    def anonymous_mb(self, index: int) -> int:
        """What is used now, without such copies."""
        stat = (self.group(index) / "memory.stat").read_text().split()
        return int(stat[stat.index("total_rss") + 1]) >> 20


@pytest.fixture
def limited(tmp_path):
    network = Limited.make(3)
    with network.groups():
        nodes = on_disk.set_up(tmp_path, network)
        for index in range(3):
            (nodes.root / f"n{index}" / "scratch").mkdir()
            nodes.configure(index, scratch="scratch", memory_mb=LIMIT_MB // 8, timeout_s=30.0)
        nodes.start(0, 1, 2)
        try:
            nodes.wait_until_ready()
            yield nodes
            assert all(process.poll() is None for process in nodes.processes.values()), nodes.logs()
        finally:
            nodes.close()
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
    peaks = [nodes.network.peak_mb(index) for index in range(3)]
    anonymous = [nodes.network.anonymous_mb(index) for index in range(3)]
    seconds = round(time.monotonic() - began, 1)
    told = {"what": what, **facts, "seconds": seconds, "limit_mb": LIMIT_MB, "peak_mb": peaks}
    print(json.dumps({**told, "anonymous_mb": anonymous}), flush=True)  # noqa: T201


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
