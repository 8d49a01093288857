"""The command line: `python -m perf NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import trio
import typer

from perf.lakes import Conditions
from perf.report import show

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Repeat = Annotated[int, typer.Option(min=1, help="Runs of which the median counts.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows of each table.")]
Features = Annotated[int, typer.Option(min=1, help="Columns besides keys and outcome.")]
Latency = Annotated[float, typer.Option(min=0, help="One-way latency added to every link, in milliseconds.")]
Bandwidth = Annotated[float | None, typer.Option(min=0.1, help="Bandwidth of every link, in Mbit/s; free by default.")]
Threads = Annotated[int, typer.Option(min=1, help="Cores that each party may use.")]
Tls = Annotated[bool, typer.Option("--tls", help="TLS 1.3 between all nodes in place of plain TCP.")]
Trace = Annotated[Path | None, typer.Option(help="Write a Chrome trace of one more run to this file.")]


@app.command()
def gates(
    *,
    elements: Annotated[int, typer.Option(min=64, help="Elements of each operation.")] = 1_000_000,
    only: Annotated[list[str] | None, typer.Option(help="Gates whose name contains this; may be repeated.")] = None,
    latency_ms: Latency = 0.0,
    bandwidth_mbit: Bandwidth = None,
    threads: Threads = 1,
    tls: Tls = False,
    repeat: Repeat = 5,
    trace: Trace = None,
    as_json: Json = False,
) -> None:
    """Single operations on a million elements."""
    from perf.gates import run

    conditions = Conditions(
        latency_ms=latency_ms, bandwidth_mbit=bandwidth_mbit, threads=threads, tls=tls, repeat=repeat, trace=trace
    )
    show(trio.run(run, elements, conditions, only or ()), as_json=as_json)


@app.command()
def join(
    *,
    rows: Rows = 100_000,
    features: Features = 5,
    latency_ms: Latency = 0.0,
    bandwidth_mbit: Bandwidth = None,
    threads: Threads = 1,
    tls: Tls = False,
    repeat: Repeat = 3,
    trace: Trace = None,
    as_json: Json = False,
) -> None:
    """Link two tables by a secret key."""
    from perf.join import run

    conditions = Conditions(
        latency_ms=latency_ms, bandwidth_mbit=bandwidth_mbit, threads=threads, tls=tls, repeat=repeat, trace=trace
    )
    show(trio.run(run, rows, features, conditions), as_json=as_json)


@app.command()
def train(
    *,
    rows: Rows = 100_000,
    features: Features = 10,
    solver: Annotated[str, typer.Option(help="gd or newton.")] = "gd",
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Steps; by default 10 of gradient descent, Tercet's own default of Newton's.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Check the sigmoid's range and the outcomes at the end, as fits do.")] = True,
    latency_ms: Latency = 0.0,
    bandwidth_mbit: Bandwidth = None,
    threads: Threads = 1,
    tls: Tls = False,
    repeat: Repeat = 3,
    trace: Trace = None,
    as_json: Json = False,
) -> None:
    """Fit a logistic regression."""
    from perf.train import Fit, run

    if solver not in ("gd", "newton"):
        raise typer.BadParameter("a solver is gd or newton", param_hint="--solver")
    conditions = Conditions(
        latency_ms=latency_ms, bandwidth_mbit=bandwidth_mbit, threads=threads, tls=tls, repeat=repeat, trace=trace
    )
    steps = iterations if iterations is not None or solver == "newton" else 10
    fit = Fit(solver="gd" if solver == "gd" else "newton", iterations=steps, check=check)
    show(trio.run(run, rows, features, fit, conditions), as_json=as_json)


@app.command()
def evaluate(
    *,
    rows: Rows = 100_000,
    features: Features = 10,
    latency_ms: Latency = 0.0,
    bandwidth_mbit: Bandwidth = None,
    threads: Threads = 1,
    tls: Tls = False,
    repeat: Repeat = 3,
    trace: Trace = None,
    as_json: Json = False,
) -> None:
    """Compute all metrics of a model, the AUC included."""
    from perf.evaluate import run

    conditions = Conditions(
        latency_ms=latency_ms, bandwidth_mbit=bandwidth_mbit, threads=threads, tls=tls, repeat=repeat, trace=trace
    )
    show(trio.run(run, rows, features, conditions), as_json=as_json)


if __name__ == "__main__":
    app()
