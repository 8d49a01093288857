"""The command line: `python -m perf NAME`."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from perf.lakes import Conditions
from perf.report import show
from tercet.ml.join_options import How, Sizes

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Repeat = Annotated[int, typer.Option(min=1, help="Runs of which the median counts.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows of each table.")]
Features = Annotated[int, typer.Option(min=1, help="Columns besides keys and outcome.")]

OPTIONS: dict[str, Any] = {
    "protocol": Annotated[str, typer.Option(help="The protocol to run on.")],
    "parties": Annotated[
        int | None, typer.Option(help="How many parties; the protocol's default otherwise.")
    ],
    "latency_ms": Annotated[
        float, typer.Option(min=0, help="One-way latency added to every link, in milliseconds.")
    ],
    "bandwidth_mbit": Annotated[
        float | None, typer.Option(min=0.1, help="Bandwidth of every link, in Mbit/s; free by default.")
    ],
    "threads": Annotated[int, typer.Option(min=1, help="Cores that each party may use.")],
    "tls": Annotated[bool, typer.Option("--tls/--tcp", help="TLS 1.3 between all nodes, or plain TCP.")],
    "repeat": Repeat,
    "trace": Annotated[Path | None, typer.Option(help="Write a Chrome trace of one more run to this file.")],
}
"""The options that make up `Conditions`, by the names of its fields."""


def with_conditions(*names: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes `conditions`, from options of these names; `defaults` where they differ."""
    usual = Conditions(**defaults)

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def from_options(**given: Any) -> None:
            command(conditions=Conditions(**{name: given.pop(name) for name in names}), **given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        options = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=getattr(usual, name), annotation=OPTIONS[name]
            )
            for name in names
        ]
        rest = [option for option in own if option.name != "conditions"]
        rest[-1:-1] = options  # the last one is --json
        from_options.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]
        from_options.__annotations__ = {option.name: option.annotation for option in rest}
        return from_options

    return wrap


@app.command()
@with_conditions(*OPTIONS, repeat=5)
def gates(
    *,
    elements: Annotated[int, typer.Option(min=64, help="Elements of each operation.")] = 1_000_000,
    only: Annotated[
        list[str] | None, typer.Option(help="Gates whose name contains this; may be repeated.")
    ] = None,
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """Single operations on a million elements."""
    from perf.gates import run

    show(trio.run(run, elements, conditions, only or ()), as_json=as_json)


@app.command()
@with_conditions(*OPTIONS)
def join(
    *,
    rows: Rows = 100_000,
    features: Features = 5,
    how: Annotated[How, typer.Option(help="The kind of join.")] = "inner",
    sizes: Annotated[Sizes, typer.Option(help="What is told of how many rows match.")] = "exact",
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """Link two tables by a secret key."""
    from perf.join import run

    show(trio.run(run, rows, features, conditions, how, sizes), as_json=as_json)


@app.command()
@with_conditions(*OPTIONS)
def groupby(
    *,
    rows: Rows = 100_000,
    groups: Annotated[int, typer.Option(min=1, help="Keys that rows are drawn among.")] = 10_000,
    features: Features = 2,
    sizes: Annotated[Sizes, typer.Option(help="What is told of how many groups there are.")] = "exact",
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """Make one row of those with the same secret key."""
    from perf.groupby import run

    show(trio.run(run, rows, groups, features, conditions, sizes), as_json=as_json)


@app.command()
def nodes(
    *, rows: Rows = 100_000, features: Features = 10, repeat: Repeat = 3, as_json: Json = False
) -> None:
    """Fit on a local lake and on nodes as programs, with storage and consent."""
    from perf.nodes import run

    show(run(rows, features, repeat), as_json=as_json)


@app.command()
def study(
    *,
    rows: Rows = 2000,
    features: Annotated[int, typer.Option(min=2, help="Columns besides keys and outcome.")] = 20,
    latency_ms: Annotated[float, typer.Option(min=0, help="One-way latency added to every link.")] = 3.0,
    as_json: Json = False,
) -> None:
    """A study of every day from the interpreter's start to its end, call by call, over TLS."""
    from perf.everyday import run

    show(run(rows, features, latency_ms), as_json=as_json)


@app.command()
def rounds(
    *,
    rows: Rows = 400,
    features: Features = 10,
    repeat: Repeat = 5,
    as_json: Json = False,
) -> None:
    """What a round of a default fit takes of a party's processor, and an empty round over the same links."""
    from perf.rounds import run

    show(trio.run(run, rows, features, repeat), as_json=as_json)


@app.command()
def hostile(
    *,
    times: Annotated[int, typer.Option(min=3, help="Small plans of which the median counts.")] = 40,
    only: Annotated[list[str] | None, typer.Option(help="Kinds of attack; all by default.")] = None,
    as_json: Json = False,
) -> None:
    """What one member at full speed costs the small plans of another."""
    from perf.hostile import run

    show(run(times, only or ()), as_json=as_json)


@app.command()
@with_conditions(*OPTIONS)
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
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """Fit a logistic regression."""
    from perf.train import Fit, run

    if solver not in ("gd", "newton"):
        raise typer.BadParameter("a solver is gd or newton", param_hint="--solver")
    steps = iterations if iterations is not None or solver == "newton" else 10
    fit = Fit(solver="gd" if solver == "gd" else "newton", iterations=steps, check=check)
    show(trio.run(run, rows, features, fit, conditions), as_json=as_json)


@app.command()
@with_conditions(*OPTIONS)
def evaluate(
    *,
    rows: Rows = 100_000,
    features: Features = 10,
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """Compute all metrics of a model, the AUC included."""
    from perf.evaluate import run

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
def workers(
    *,
    rows: Rows = 1_000_000,
    shards: Annotated[str, typer.Option(help="Numbers of workers a party.")] = "1,2,4",
    only: Annotated[list[str] | None, typer.Option(help="join, train or evaluate; all by default.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Replays of which the fastest counts.")] = 3,
    as_json: Json = False,
) -> None:
    """What workers give one party: each of its members runs again alone, on one core."""
    from perf.workers import run
    from tercet.nodes.program import settle_memory

    try:
        numbers = [int(number) for number in shards.split(",")]
    except ValueError:
        raise typer.BadParameter("name numbers, as in 1,2,4", param_hint="--shards") from None
    if min(numbers) < 1:
        raise typer.BadParameter(
            "a party has at least one worker; none is measured anyhow", param_hint="--shards"
        )
    settle_memory()  # as nodes do
    show(run(rows, numbers, repeat, only or ()), as_json=as_json)


@app.command()
def predict(
    page: Annotated[
        Path | None, typer.Argument(help="A page to put the table into; printed otherwise.", exists=True)
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """What `explain` predicts for up to a billion rows and 64 workers a party; nothing runs."""
    from perf import predictions

    found = predictions.run()
    if page is not None:
        predictions.write(page, found)
    elif as_json:
        print(json.dumps(found, indent=2))
    else:
        print(predictions.markdown(found))


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
@with_conditions("protocol", "parties", "threads", "tls", "repeat")
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
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """The same work on Tercet, SPU and MPyC."""
    from perf.peers import Sizes, run

    train_rows = tuple(rows or (1_000, 10_000, 100_000))
    full = Sizes(comparisons=comparisons, side=side, train_rows=train_rows)
    small = Sizes(
        comparisons=min(comparisons, 2000), side=min(side, 100), train_rows=(min(train_rows),), steps=2
    )
    show(run(full, small, conditions, python=python, check=check), as_json=as_json)


@app.command()
@with_conditions(*(name for name in OPTIONS if name != "trace"), latency_ms=3.0)
def figures(
    *,
    max_rows: Annotated[int, typer.Option(min=1000, help="Leave larger tables out.")] = 1_000_000,
    only: Annotated[list[str] | None, typer.Option(help="link, train or evaluate; all by default.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where figures go; docs/benchmarks by default.")] = None,
    redraw: Annotated[bool, typer.Option("--redraw", help="Only draw again, from figures.json.")] = False,
    conditions: Conditions,
    as_json: Json = False,
) -> None:
    """The three figures: linking, training and evaluating over rows, as SVG, PNG and JSON."""
    from perf import figures as drawing

    target = folder or drawing.FOLDER
    if redraw:
        drawing.redraw(target)
        return
    rows = [count for count in drawing.ROWS if count <= max_rows]
    say = functools.partial(print, file=sys.stderr, flush=True)
    show(drawing.run(rows, conditions, target, only or (), say), as_json=as_json)


if __name__ == "__main__":
    app()
