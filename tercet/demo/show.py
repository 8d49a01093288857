"""How the demonstration looks in a terminal, and how it reads in a log: progress by phase, then tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tercet.demo.check import METRICS
from tercet.demo.script import CHECK, PHASES, START, Cost, Report, Watcher
from tercet.plans import Disclosure

TITLES = {
    START: "Start the nodes",
    "upload": "Upload both tables as shares",
    "join": "Join them on the policy number, split",
    "train": "Standardise, train logistic regression",
    "evaluate": "Evaluate on the test rows",
    "predict": "Predict for the hospital",
    CHECK: "Compare with scikit-learn in the clear",
}


class LogWatcher(Watcher):
    """One line for each phase, when it ends: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def end(self, phase: str, cost: Cost) -> None:
        """Print the phase and its cost."""
        self._console.print(
            f"{TITLES[phase]:40} {cost.seconds:7.2f} s  {_told(phase, cost)}".rstrip(), highlight=False
        )


class LiveWatcher(Watcher):
    """A line for each phase that is redrawn while it runs: for terminals. A context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, phase: str) -> None:
        """Add the phase's line."""
        self._task = self._progress.add_task(TITLES[phase], total=1, detail="")

    def step(self, what: str) -> None:
        """Show the plan that runs now."""
        if self._task is not None:
            self._progress.update(self._task, detail=escape(what))

    def end(self, phase: str, cost: Cost) -> None:
        """Tick the phase off."""
        if self._task is not None:
            self._progress.update(self._task, completed=1, detail=_told(phase, cost))


def _told(phase: str, cost: Cost) -> str:
    if phase not in PHASES:
        return ""
    return f"{cost.rounds:4} rounds  {decimal(cost.bytes):>9}"


def show(report: Report, console: Console) -> None:
    """Print all that a report says."""
    rows, settings = report.rows, report.settings
    console.print()
    for line in (
        f"{_counted(report)}, protocol {settings.protocol}, transport {report.transport}, "
        f"{settings.latency_ms:g} ms latency added to every link.",
        f"The hospital has {rows['hospital']} rows, the insurer {rows['insurer']}; {rows['joined']} match, "
        f"{rows['train']} to train on and {rows['test']} to test on.",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    for table in (_metrics(report), _coefficients(report), _costs(report)):
        console.print()
        console.print(table)
    console.print()
    console.print("[bold]Disclosed")
    for line in _disclosed(report.disclosed):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _counted(report: Report) -> str:
    return "1 process" if report.processes == 1 else f"{report.processes} node processes"


def _metrics(report: Report) -> Table:
    table = _table(
        f"Metrics of the {report.rows['test']} test rows", "", "Tercet", "scikit-learn", "difference"
    )
    for name, title in METRICS.items():
        ours, theirs = report.metrics[name], report.reference.metrics[name]
        table.add_row(title, f"{ours:.4f}", f"{theirs:.4f}", f"{abs(ours - theirs):.5f}")
    return table


def _coefficients(report: Report) -> Table:
    columns = ("column", "owner", "Tercet", "scikit-learn", "difference")
    table = _table("Coefficients of the standardised columns", *columns, text=2)
    for name, ours, theirs in zip(report.features, report.coef, report.reference.coef, strict=True):
        table.add_row(name, report.owners[name], *_compared(ours, theirs))
    table.add_section()
    table.add_row("intercept", "", *_compared(report.intercept, report.reference.intercept))
    table.add_section()
    table.add_row("largest difference", "", "", "", f"{report.coef_max_abs_diff:.5f}")
    return table


def _compared(ours: float, theirs: float) -> tuple[str, str, str]:
    return f"{ours:+.4f}", f"{theirs:+.4f}", f"{abs(ours - theirs):.5f}"


def _costs(report: Report) -> Table:
    table = _table("Cost by phase", "phase", "seconds", "rounds", "bytes")
    for phase, cost in report.costs.items():
        table.add_row(phase, f"{cost.seconds:.2f}", str(cost.rounds), f"{cost.bytes:,}")
    table.add_section()
    total = report.total
    table.add_row("total", f"{total.seconds:.2f}", str(total.rounds), f"{total.bytes:,}")
    return table


def _table(title: str, *columns: str, text: int = 1) -> Table:
    """A table whose first `text` columns hold words, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < text else "right", no_wrap=True)
    return table


def _disclosed(items: Iterable[Disclosure]) -> Iterator[str]:
    """Lines of what each receiver learned, in the order in which they first learned something."""
    found: dict[str, list[str]] = {}
    for item in items:
        found.setdefault(item.to, []).append(f"- {item.what} ({item.size})")
    for receiver, lines in found.items():
        yield f"to {receiver}:"
        yield from lines
