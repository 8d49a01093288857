"""SPU with ABY3 over 64-bit words: three processes on loopback.

Run as `python on_spu.py REQUEST ANSWER`. The sigmoid is SPU's exact one, 1 / (1 + exp(-x)) with the
exponential at its default; its error is measured here. SPU's other modes are cruder (a clipped line errs by
0.12). Values are dealt, programs compiled and links opened before the clock starts.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

PARTIES = 3

Values = npt.NDArray[Any]


def config() -> Any:
    """ABY3 over 64-bit words, with SPU's default fixed point of 18 bits."""
    from spu import libspu

    found = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64)
    found.sigmoid_mode = libspu.RuntimeConfig.SigmoidMode.SIGMOID_REAL
    return found


def party(rank: int, addresses: list[str], jobs: list[Any], pipe: Any) -> None:
    """One party: runs every job some times, sends back its seconds and its shares of the result."""
    import spu
    from spu import libspu

    description = libspu.link.Desc()
    for number, address in enumerate(addresses):
        description.add_party(f"party {number}", address)
    link = libspu.link.create_brpc(description, rank)
    for executable, shares, repeats in jobs:
        runtime = spu.Runtime(link, config())
        for name, share in zip(executable.input_names, shares, strict=True):
            runtime.set_var(name, share)
        seconds = []
        for _ in range(repeats):
            link.barrier()
            began = time.perf_counter()
            runtime.run(executable)
            seconds.append(time.perf_counter() - began)
        pipe.send((seconds, [runtime.get_var(name) for name in executable.output_names]))
    link.stop_link()


def compiled(function: Callable[..., Any], inputs: list[Values]) -> Any:
    """A function as a program for SPU, all of whose inputs are secret."""
    from spu import libspu
    from spu.utils import frontend

    names = [f"in{number}" for number in range(len(inputs))]
    executable, _ = frontend.compile(
        frontend.Kind.JAX,
        function,
        inputs,
        {},
        names,
        [libspu.Visibility.VIS_SECRET] * len(inputs),
        lambda outputs: [f"out{number}" for number in range(len(outputs))],
    )
    return executable


def works(request: dict[str, Any]) -> Iterator[tuple[str, Callable[..., Any], list[Values], int]]:
    """The work that was asked for: name, function, inputs, repeats."""
    import jax
    import jax.numpy as jnp

    repeat = int(request["repeat"])
    yield "sigmoid", jax.nn.sigmoid, [np.linspace(-12, 12, 10_001).astype(np.float32)], 1
    if "less_x" in request:
        yield "lt", jnp.less, [request["less_x"], request["less_y"]], repeat
    if "matrix_a" in request:
        yield (
            "matmul",
            jnp.matmul,
            [request["matrix_a"].astype(np.float32), request["matrix_b"].astype(np.float32)],
            repeat,
        )
    steps = int(request["steps"])

    def fit(X: Any, y: Any) -> Any:
        weights = jnp.zeros(X.shape[1], dtype=X.dtype)
        for _ in range(steps):
            residuals = jax.nn.sigmoid(X @ weights) - y
            weights = weights - (X.T @ residuals) / X.shape[0]
        return weights

    for rows in request["train_rows"]:
        X, y = request[f"X_{rows}"].astype(np.float32), request[f"y_{rows}"].astype(np.float32)
        yield f"train {rows}", fit, [X, y], repeat


def free_addresses() -> list[str]:
    """Addresses on loopback where nobody listens."""
    sockets = [socket.socket() for _ in range(PARTIES)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return found


def main(request_path: str, answer_path: str) -> None:
    import jax
    import spu
    from spu import libspu

    jax.config.update("jax_enable_x64", True)
    request = dict(np.load(request_path))
    io = spu.Io(PARTIES, config())
    names: list[str] = []
    jobs: list[list[Any]] = [[] for _ in range(PARTIES)]
    for name, function, inputs, repeats in works(request):
        executable = compiled(function, inputs)
        dealt = [io.make_shares(values, libspu.Visibility.VIS_SECRET) for values in inputs]
        names.append(name)
        for rank in range(PARTIES):
            jobs[rank].append((executable, [shares[rank] for shares in dealt], repeats))
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(PARTIES)]
    addresses = free_addresses()
    processes = [
        context.Process(target=party, args=(rank, addresses, jobs[rank], pipes[rank][1]), daemon=True)
        for rank in range(PARTIES)
    ]
    for process in processes:
        process.start()
    results, seconds = {}, {}
    for name in names:
        told = [pipe[0].recv() for pipe in pipes]
        results[name] = io.reconstruct([shares[0] for _, shares in told])
        seconds[name] = statistics.median(
            max(parts) for parts in zip(*(times for times, _ in told), strict=True)
        )
    for process in processes:
        process.join(10)
    grid = np.linspace(-12, 12, 10_001)
    error = float(np.abs(results.pop("sigmoid") - 1 / (1 + np.exp(-grid))).max())
    del seconds["sigmoid"]
    np.savez(answer_path, **results)
    print(
        json.dumps({"seconds": seconds, "sigmoid_error": error, "version": getattr(spu, "__version__", "")})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
