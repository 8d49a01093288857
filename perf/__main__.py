"""The command line: `python -m perf NAME`."""

from __future__ import annotations

import functools
import sys
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
Protocol = Annotated[str, typer.Option(help="The protocol to run on.")]
Parties = Annotated[int | None, typer.Option(help="How many parties; the protocol's default otherwise.")]
Latency = Annotated[float, typer.Option(min=0, help="One-way latency added to every link, in milliseconds.")]
Bandwidth = Annotated[
    float | None, typer.Option(min=0.1, help="Bandwidth of every link, in Mbit/s; free by default.")
]
Threads = Annotated[int, typer.Option(min=1, help="Cores that each party may use.")]
Tls = Annotated[bool, typer.Option("--tls", help="TLS 1.3 between all nodes in place of plain TCP.")]
Trace = Annotated[Path | None, typer.Option(help="Write a Chrome trace of one more run to this file.")]


@app.command()
def gates(
    *,
    elements: Annotated[int, typer.Option(min=64, help="Elements of each operation.")] = 1_000_000,
    only: Annotated[
        list[str] | None, typer.Option(help="Gates whose name contains this; may be repeated.")
    ] = None,
    protocol: Protocol = "replicated",
    parties: Parties = None,
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
        protocol=protocol,
        parties=parties,
        latency_ms=latency_ms,
        bandwidth_mbit=bandwidth_mbit,
        threads=threads,
        tls=tls,
        repeat=repeat,
        trace=trace,
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
        latency_ms=latency_ms,
        bandwidth_mbit=bandwidth_mbit,
        threads=threads,
        tls=tls,
        repeat=repeat,
        trace=trace,
    )
    show(trio.run(run, rows, features, conditions), as_json=as_json)


@app.command()
def nodes(
    *, rows: Rows = 100_000, features: Features = 10, repeat: Repeat = 3, as_json: Json = False
) -> None:
    """Fit on a local lake and on nodes as programs, with storage and consent."""
    from perf.nodes import run

    show(run(rows, features, repeat), as_json=as_json)


@app.command()
def train(
    *,
    rows: Rows = 100_000,
    features: Features = 10,
    solver: Annotated[str, typer.Option(help="gd or newton.")] = "gd",
    iterations: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps; by default 10 of gradient descent, and of Newton's method until it converges."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Check the sigmoid's range and the outcomes at the end, as fits do.")
    ] = True,
    protocol: Protocol = "replicated",
    parties: Parties = None,
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
        protocol=protocol,
        parties=parties,
        latency_ms=latency_ms,
        bandwidth_mbit=bandwidth_mbit,
        threads=threads,
        tls=tls,
        repeat=repeat,
        trace=trace,
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
        latency_ms=latency_ms,
        bandwidth_mbit=bandwidth_mbit,
        threads=threads,
        tls=tls,
        repeat=repeat,
        trace=trace,
    )
    show(trio.run(run, rows, features, conditions), as_json=as_json)


@app.command()
def kernels(
    *,
    elements: Annotated[int, typer.Option(min=64, help="Elements that each kernel works on.")] = 1 << 16,
    repeat: Repeat = 21,
    as_json: Json = False,
) -> None:
    """Each compiled kernel against numpy and against the speed of memory."""
    from perf.kernels import run

    show(run(elements, repeat), as_json=as_json)


@app.command()
def cores(
    *,
    rows: Rows = 200_000,
    threads: Annotated[int, typer.Option(min=2, help="Threads and cores to compare with one.")] = 2,
    only: Annotated[list[str] | None, typer.Option(help="join or train; both by default.")] = None,
    repeat: Repeat = 5,
    as_json: Json = False,
) -> None:
    """What more cores give one party, by replaying its messages to it alone."""
    from perf.cores import run
    from tercet.nodes.program import keep_memory

    keep_memory()  # as nodes do
    show(run(rows, repeat, threads, only or ()), as_json=as_json)


@app.command()
def transports(
    *,
    megabytes: Annotated[int, typer.Option(min=1, help="Bulk data sent, in 10^6 bytes.")] = 1000,
    small_frames: Annotated[int, typer.Option(min=1, help="Small frames sent one way.")] = 20_000,
    round_trips: Annotated[int, typer.Option(min=1, help="Small frames sent there and back.")] = 2_000,
    repeat: Repeat = 3,
    as_json: Json = False,
) -> None:
    """What a link between two processes carries, over TCP and TLS."""
    from perf.transports import Load, run

    show(trio.run(run, Load(megabytes * 10**6, small_frames, round_trips), repeat), as_json=as_json)


@app.command()
def peers(
    *,
    python: Annotated[str, typer.Option(help="An interpreter that has SPU and MPyC.")] = sys.executable,
    comparisons: Annotated[int, typer.Option(min=64, help="Comparisons.")] = 1_000_000,
    side: Annotated[int, typer.Option(min=2, help="Rows of the square matrices.")] = 1000,
    rows: Annotated[
        list[int] | None, typer.Option(help="Rows to train on; 1,000, 10,000 and 100,000.")
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Check the sigmoid's range in Tercet's fits, which peers do not.")
    ] = False,
    protocol: Protocol = "replicated",
    parties: Parties = None,
    threads: Threads = 1,
    repeat: Repeat = 3,
    as_json: Json = False,
) -> None:
    """The same work on Tercet, SPU and MPyC."""
    from perf.peers import Sizes, run

    train_rows = tuple(rows or (1_000, 10_000, 100_000))
    full = Sizes(comparisons=comparisons, side=side, train_rows=train_rows)
    small = Sizes(
        comparisons=min(comparisons, 2000), side=min(side, 100), train_rows=(min(train_rows),), steps=2
    )
    conditions = Conditions(protocol=protocol, parties=parties, threads=threads, repeat=repeat)
    show(run(full, small, conditions, python=python, check=check), as_json=as_json)


@app.command()
def figures(
    *,
    max_rows: Annotated[int, typer.Option(min=1000, help="Leave larger tables out.")] = 1_000_000,
    only: Annotated[list[str] | None, typer.Option(help="link, train or evaluate; all by default.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where figures go; docs/benchmarks by default.")] = None,
    redraw: Annotated[bool, typer.Option("--redraw", help="Only draw again, from figures.json.")] = False,
    latency_ms: Latency = 3.0,
    bandwidth_mbit: Bandwidth = None,
    threads: Threads = 1,
    tls: Tls = False,
    repeat: Repeat = 3,
    as_json: Json = False,
) -> None:
    """The three figures: linking, training and evaluating over rows, as SVG, PNG and JSON."""
    from perf import figures as drawing

    target = folder or drawing.FOLDER
    if redraw:
        drawing.redraw(target)
        return
    conditions = Conditions(
        latency_ms=latency_ms, bandwidth_mbit=bandwidth_mbit, threads=threads, tls=tls, repeat=repeat
    )
    rows = [count for count in drawing.ROWS if count <= max_rows]
    say = functools.partial(print, file=sys.stderr, flush=True)
    show(drawing.run(rows, conditions, target, only or (), say), as_json=as_json)


if __name__ == "__main__":
    app()
