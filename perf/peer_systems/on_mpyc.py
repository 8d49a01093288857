"""MPyC: Shamir sharing over a prime field, three processes on loopback.

Run as `python on_mpyc.py REQUEST ANSWER -M3`. MPyC has no sigmoid, so it gets the cheapest one in use, a
clipped line (1/2 + x/8, cut off at 0 and 1, which errs by 0.12): its times are below those of one comparable
with Tercet's. Work is scaled down by `perf.peers`, which says by how much.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import mpyc
import numpy as np
import numpy.typing as npt
from mpyc.runtime import mpc

Values = npt.NDArray[Any]

LINE = 4.0
"""Where the line reaches 0 and 1, on either side."""


async def shared(kind: Any, values: Values) -> Any:
    """Party 0's values, dealt to all; every party has them from the request, which stands for an owner."""
    dealt = mpc.input(kind.array(values), senders=0)
    await mpc.barrier()
    await mpc.gather(dealt)
    return dealt


def sigmoid(z: Any) -> Any:
    """The clipped line, by two comparisons."""
    below, above = z < -LINE, z > LINE
    return (1 - below - above) * (z * 0.125 + 0.5) + above


async def timed(work: Callable[[], Any], repeat: int) -> tuple[float, Values]:
    """Median seconds and the revealed result."""
    found = []
    for _ in range(repeat):
        await mpc.barrier()
        began = time.perf_counter()
        made = work()
        await mpc.gather(made)
        await mpc.barrier()
        found.append(time.perf_counter() - began)
    return statistics.median(found), np.asarray(await mpc.output(made), dtype=float)


async def main(request_path: str, answer_path: str) -> None:
    request = dict(np.load(request_path))
    real, integer = mpc.SecFxp(), mpc.SecInt(64)
    steps, repeat = int(request["steps"]), int(request["repeat"])
    await mpc.start()
    seconds, results = {}, {}
    if "less_x" in request:
        x, y = [await shared(integer, request[name]) for name in ("less_x", "less_y")]
        await timed(lambda: x[:2] < y[:2], 1)
        seconds["lt"], results["lt"] = await timed(lambda: x < y, repeat)
    if "matrix_a" in request:
        a, b = [await shared(real, request[name]) for name in ("matrix_a", "matrix_b")]
        seconds["matmul"], results["matmul"] = await timed(lambda: a @ b, repeat)
    for rows in request["train_rows"]:
        X, y = await shared(real, request[f"X_{rows}"]), await shared(real, request[f"y_{rows}"])

        def fit(X: Any = X, y: Any = y, rows: int = int(rows)) -> Any:
            weights = real.array(np.zeros(X.shape[1]))
            for _ in range(steps):
                residuals = sigmoid(X @ weights) - y
                weights = weights - (X.T @ residuals) * (1 / rows)
            return weights

        seconds[f"train {rows}"], results[f"train {rows}"] = await timed(fit, repeat)
    if mpc.pid == 0:
        np.savez(answer_path, **results)
        print(json.dumps({"seconds": seconds, "version": mpyc.__version__}))
    await mpc.shutdown()


if __name__ == "__main__":
    paths = [argument for argument in sys.argv[1:] if not argument.startswith("-")][:2]
    mpc.run(main(*paths))
