"""The `tercet` command.

Every command ends with exit code 0, or with a sentence on standard error and exit code 1: what went wrong,
where, and what to do. A traceback is a defect.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import tercet
from tercet.commands import Commands
from tercet.commands.console import sentences
from tercet.errors import TercetError

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tercet: a private data lake. Link tables, train and evaluate models between parties that show each "
    "other nothing.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tercet {tercet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options that stand before a command."""
    _ = version


@app.command()
def protocols() -> None:
    """List the protocols that plans can run on."""
    from tercet.protocols import registry

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for name in registry.names():
        try:
            cls = registry.get(name)
        except TercetError as error:
            table.add_row(name, "", "", f"does not load: {error}")
            continue
        sizes = ", ".join(map(str, cls.sizes))
        count = "1 party" if sizes == "1" else f"{sizes} parties"
        corrupt = ", ".join(str(cls.corruptions(size)) for size in cls.sizes)
        kind = "malicious" if cls.malicious else "semi-honest"
        table.add_row(
            name,
            count,
            f"{corrupt} {kind}" if corrupt != "0" else "no secrecy",
            (cls.__doc__ or "").strip().partition("\n")[0],
        )
    Console().print(table, highlight=False)


@app.command()
def demo(
    protocol: Annotated[
        str, typer.Option(help="The protocol to run on; `tercet protocols` lists them.")
    ] = "replicated",
    parties: Annotated[
        int | None, typer.Option(help="How many nodes; the protocol's default otherwise.")
    ] = None,
    latency_ms: Annotated[float, typer.Option(help="Latency added to every link, one way.")] = 3.0,
    threads: Annotated[int, typer.Option(help="Cores that each node may use.")] = 1,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the coefficients and the ROC curves to this PNG file.", metavar="FILE.png"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Let a hospital and an insurer join their tables and train a model, on this machine.

    Real data (Wisconsin breast cancer), nodes in processes of their own that talk TLS, and the result beside
    scikit-learn's on the same rows in the clear. Needs the extra `ml`.
    """
    from tercet.demo import Settings, run
    from tercet.demo.data import require
    from tercet.demo.plot import draw, require_writable
    from tercet.demo.show import LiveWatcher, LogWatcher, show

    with sentences():
        require(plot=plot is not None)
        if plot is not None:
            require_writable(plot)
        settings = Settings(protocol=protocol, parties=parties, latency_ms=latency_ms, threads=threads)
        console = Console(stderr=as_json)
        with contextlib.ExitStack() as stack:
            watcher = (
                stack.enter_context(LiveWatcher(console))
                if console.is_terminal
                else LogWatcher(Console(stderr=True, quiet=True) if as_json else console)
            )
            report = run(settings, watcher)
        if plot is not None:
            draw(report, plot)
        if as_json:
            print(json.dumps(report.to_json()))
            return
        show(report, console)
        if plot is not None:
            console.print(f"\nThe picture is in {plot}.", markup=False, highlight=False, soft_wrap=True)
