"""`peers`: the same work on Tercet, SPU and MPyC, one after the other in one run, ratios first.

Peers are programs in `perf/peer_systems`, run by an interpreter that has them: this one, or another given
with `--python`, since SPU pins old versions of its dependencies. One that is not installed is left out, and
the report says so. Every system runs three parties as processes on loopback without encryption, and starts
the clock when values are shared, programs compiled and links open.

The training differs in what a peer is spared: Tercet gets the table as it was uploaded and centres its
columns in MPC; the peers get centred columns and the column of ones. SPU's sigmoid is its exact one, whose
error is measured in the same run; MPyC's is a clipped line. MPyC is so slow that it gets less of each work,
and its seconds are scaled up in proportion, which the report states.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import trio

from perf import tables
from perf.gates import Gate, all_gates, clear, integers, measure
from perf.lakes import Conditions
from perf.report import Measured
from perf.train import Fit, descend
from perf.train import run as run_training

PROGRAMS = Path(__file__).parent / "peer_systems"
STEPS, FEATURES = 10, 10
SIGMOID_ERROR = 1e-3
"""SPU's exact sigmoid errs by as much."""
TIMEOUT_S = 1800.0
MATRIX_BITS, MATRIX_SCALE = 10, 16
"""Entries of the matrices are below 2^-6 in size, with 16 fractional bits, of which 10 are in use."""

Data = dict[str, npt.NDArray[Any]]


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of each work a system gets."""

    comparisons: int
    side: int
    train_rows: tuple[int, ...]
    steps: int = STEPS

    def scaled(self, full: Sizes, work: str) -> float:
        """What the seconds of a work have to be multiplied with to stand for those of the full sizes."""
        if work == "lt":
            return full.comparisons / self.comparisons
        return (full.side / self.side) ** 3 if work == "matmul" else full.steps / self.steps


def request(sizes: Sizes, repeat: int) -> Data:
    """The data of all work, for a peer's program."""
    random = np.random.default_rng(5)
    found: Data = {
        "repeat": np.array(repeat),
        "steps": np.array(sizes.steps),
        "train_rows": np.array(sizes.train_rows, dtype=np.int64),
        "less_x": random.integers(-(1 << 61), 1 << 61, sizes.comparisons),
        "less_y": random.integers(-(1 << 61), 1 << 61, sizes.comparisons),
    }
    for name in ("matrix_a", "matrix_b"):
        _, words = integers(random, (sizes.side, sizes.side), MATRIX_BITS)
        found[name] = clear(words, MATRIX_SCALE)
    for rows in sizes.train_rows:
        columns = tables.learnable(rows, FEATURES)
        X = tables.design(columns)
        found[f"X_{rows}"] = np.column_stack([np.ones(rows), X - X.mean(axis=0)])
        found[f"y_{rows}"] = columns[tables.TARGET].astype(np.float64)
    return found


def errors(data: Data, answer: Mapping[str, npt.NDArray[Any]], steps: int) -> dict[str, float]:
    """The largest error of each result of a peer, against numpy."""
    found = {}
    for work, result in answer.items():
        if work == "lt":
            found[work] = float(np.count_nonzero((result != 0) != (data["less_x"] < data["less_y"])))
        elif work == "matmul":
            found[work] = float(np.abs(result - data["matrix_a"] @ data["matrix_b"]).max())
        else:
            rows = work.split()[1]
            X, y = data[f"X_{rows}"], data[f"y_{rows}"]
            found[work] = float(np.abs(result - descend(X[:, 1:], y, steps=steps).parameters).max())
    return found


# -- the systems -----------------------------------------------------------------------------------------


def is_installed(python: str, module: str) -> bool:
    """Whether an interpreter can import a module."""
    return (
        subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
    )


def on_peer(name: str, python: str, sizes: Sizes, repeat: int, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Have a peer's program do its work; seconds and errors by work."""
    data = request(sizes, repeat)
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "request.npz", Path(folder) / "answer.npz"
        np.savez(asked, **data)  # type: ignore[arg-type]
        command = [python, str(PROGRAMS / f"on_{name}.py"), str(asked), str(answer), *extra]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        told: dict[str, Any] = json.loads(lines[-1])
        with np.load(answer) as loaded:
            told["errors"] = errors(data, dict(loaded), sizes.steps)
    return told


def _matrix_product(side: int) -> Gate:
    """The fixed-point product of two square matrices, truncated, as SPU's is."""
    random = np.random.default_rng(5)
    (kind, a), (_, b) = (integers(random, (side, side), MATRIX_BITS, scale=MATRIX_SCALE) for _ in range(2))
    left, right = clear(a, MATRIX_SCALE), clear(b, MATRIX_SCALE)
    return Gate(
        "matmul",
        [(kind, a), (kind, b)],
        lambda x, y: (x @ y).rescale(MATRIX_SCALE),
        lambda i: left @ right[:, i],
    )


async def on_tercet(sizes: Sizes, conditions: Conditions, *, check: bool) -> dict[str, Any]:
    """The same work on Tercet."""
    (comparison,) = [gate for gate in all_gates(sizes.comparisons) if gate.name == "lt"]
    found = {one.name: one for one in await measure([comparison, _matrix_product(sizes.side)], conditions)}
    for rows in sizes.train_rows:
        fit = Fit(solver="gd", iterations=sizes.steps, check=check, sigmoid_error=SIGMOID_ERROR)
        found[f"train {rows}"] = await run_training(rows, FEATURES, fit, conditions)
    return {
        "seconds": {name: one.seconds for name, one in found.items()},
        "errors": {name: one.error for name, one in found.items()},
        "bytes_per_party": {name: one.bytes_per_party for name, one in found.items()},
    }


# -- side by side ----------------------------------------------------------------------------------------


def run(
    full: Sizes, small: Sizes, conditions: Conditions, *, python: str = sys.executable, check: bool = True
) -> Measured:
    """All systems; `speedup` is the least ratio over a peer's training."""
    began = time.perf_counter()
    ours = trio.run(lambda: on_tercet(full, conditions, check=check))
    more: dict[str, Any] = {"ratios": {}, "tercet": ours}
    ratios = more["ratios"]
    peers: dict[str, tuple[Sizes, int, Sequence[str]]] = {
        "spu": (full, conditions.repeat, ()),
        "mpyc": (small, 1, ("-M3", "--no-log")),
    }
    for name, (sizes, repeats, extra) in peers.items():
        if not is_installed(python, name):
            more[name] = f"not installed for {python}; see docs/benchmarks/README.md"
            continue
        told = more[name] = on_peer(name, python, sizes, repeats, extra)
        scales = {work: sizes.scaled(full, work) for work in told["seconds"]}
        told["seconds_measured"] = told["seconds"]
        told["seconds"] = {work: seconds * scales[work] for work, seconds in told["seconds_measured"].items()}
        told["scaled_by"] = {work: factor for work, factor in scales.items() if factor != 1}
        for work, seconds in told["seconds"].items():
            ratios[f"{name} {work}"] = seconds / ours["seconds"][work]
    return Measured(
        name="peers",
        speedup=min((ratio for work, ratio in ratios.items() if "train" in work), default=None),
        more={
            **more,
            "steps": full.steps,
            "features": FEATURES,
            "check": check,
            **conditions.describe(),
            "benchmark_seconds": time.perf_counter() - began,
        },
    )
