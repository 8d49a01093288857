"""Commands of who studies protocols: `compare`, `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import trio
import typer
from rich.console import Console
from rich.table import Table

from tercet import studies
from tercet.actors.calibration import calibrate as measure
from tercet.actors.machine import load_profile, save_profile
from tercet.commands.console import sentences
from tercet.studies.show import HEADINGS, cells

app = typer.Typer()


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def compare(
    plan: Annotated[
        str, typer.Argument(help=f"{', '.join(studies.WORKLOADS)}, or a file as in study.py:workload.")
    ],
    protocols: Annotated[
        str, typer.Option(help="Protocols, as in replicated,shamir:5.")
    ] = "replicated,plain",
    networks: Annotated[
        str, typer.Option(help=f"{', '.join(studies.NETWORKS)}, or as in 3ms or 10ms/50mbit.")
    ] = "lan",
    rows: Annotated[str, typer.Option(help="Numbers of rows, as in 1000,10000.")] = "1000",
    out: Annotated[
        list[Path] | None, typer.Option(help="Also write .json, .csv or a plot (.png, .svg).", metavar="FILE")
    ] = None,
) -> None:
    """Run one plan under several protocols, networks and sizes, and compare what it takes.

    Nodes are processes on this machine that talk TLS; links are slowed down as a network says. Prints rounds,
    bytes, seconds measured and predicted, memory, and the largest error against the clear reference.
    """
    with sentences():
        try:
            sizes = [int(one) for one in _list(rows)]
        except ValueError:
            raise typer.BadParameter(f"{rows!r} is no list of numbers of rows") from None
        console = Console()
        measured = studies.compare(
            plan,
            protocols=_list(protocols),
            networks=_list(networks),
            rows=sizes,
            progress=lambda one: console.print(
                f"{one.protocol}, {one.network}, {one.rows:,} rows: {one.seconds:.3g} s", highlight=False
            ),
        )
        table = Table(*HEADINGS, box=None, pad_edge=False)
        for one in measured:
            table.add_row(*cells(one))
        console.print(table)
        for path in out or []:
            studies.write(measured, path)


@app.command()
def calibrate(
    protocols: Annotated[str, typer.Option(help="Protocols, separated by commas.")] = "replicated",
    repeat: Annotated[int, typer.Option(help="Runs of each probe.", min=1)] = 3,
) -> None:
    """Measure what this machine takes for each kind of operation, so that `explain` predicts its seconds."""
    with sentences():
        profile = load_profile()
        for name in _list(protocols):
            profile[name] = trio.run(lambda name=name: measure(name, repeat=repeat))  # type: ignore[misc]
        path = save_profile(profile)
        Console().print(f"The profile is in {path}.", highlight=False, soft_wrap=True)
