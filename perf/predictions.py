"""`predict`: what `explain` says of a join, a fit and an evaluation on millions to billions of rows.

No rows are made and nothing runs: the plans are those that the computations make for tables of so many rows,
and answers that they wait for are made up. Each is rehearsed (`tercet.actors.rehearsal`) for parties with so
many workers, by the calibrated profile of this machine, as if every node and every worker had one like it.
Where there are very many tiles a worker, neighbours are rehearsed as one, since rehearsing a tile takes the
same time however long it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio

import tercet
from perf import tables
from perf.evaluate import small_model
from perf.report import tidy
from perf.train import Fit
from tercet.actors.estimate import explain
from tercet.actors.machine import Machine, machine_for
from tercet.client.under_way import Ended, Run
from tercet.plans import Plan
from tercet.plans.passes import optimise
from tercet.plans.results import RunResult
from tercet.plans.types import bind_shape

ROWS = (10**6, 10**7, 10**8, 10**9)
WORKERS = (1, 2, 4, 16, 64)
FEATURES, JOINED_FEATURES = 10, 5
STAND_IN_ROWS = 2000
"""Rows of the tables from which the schemas come."""
LATENCY_MS, BANDWIDTH_MBIT = 0.25, 10_000.0
TILES_A_WORKER = 8
"""So many are rehearsed at most, or twice as many."""
BEGIN, END = "<!-- predicted -->\n", "<!-- end -->\n"
PROTOCOL, PARTIES = "replicated", 3


@attrs.define(eq=False)
class _Planner:
    """A lake on which computations are planned, not run; `plans` are those of the last one."""

    lake: tercet.AsyncLake
    plans: list[Plan] = attrs.field(factory=list)

    def perform(self, steps: Any, phase: str) -> None:
        """Make the plans of a computation."""
        _ = phase
        self.plans = list(_planned(steps))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lake, name)


def _planned(steps: Any) -> Iterator[Plan]:
    run, result = Run.of(steps), None
    while not isinstance(made := run.advance(result), Ended):
        if isinstance(made, Plan):
            yield optimise(made)
            result = _answer(made)
        else:
            yield from _planned(made)
            result = None


def _answer(plan: Plan) -> RunResult:
    """As if all rows had matched, and each revealed number were zero."""
    symbols = dict(plan.maxima)
    bound = [
        (node, attrs.evolve(node.types[0], shape=bind_shape(node.types[0].shape, symbols)))
        for node in plan.nodes
        if node.kind in ("reveal", "store")
    ]
    revealed = {node.get("name"): np.zeros(kind.shape) for node, kind in bound if node.kind == "reveal"}
    stored = {node.get("handle"): kind for node, kind in bound if node.kind == "store"}
    return RunResult(revealed, stored, symbols, 0, (0,) * PARTIES, 0, 0.0, ())


def _grown(table: Any, rows: int, lake: _Planner) -> Any:
    """A table of the same schema with other rows, which nobody has."""

    def part(one: Any) -> Any:
        return attrs.evolve(one, type=attrs.evolve(one.type, shape=(*one.type.shape[:-1], rows)))

    return attrs.evolve(
        table,
        lake=lake,
        rows=rows,
        rows_of_sources=rows,
        parts=tuple(map(part, table.parts)),
        keys=part(table.keys),
    )


async def plans(rows: Sequence[int]) -> dict[tuple[str, int], list[Plan]]:
    """The plans of each work on so many rows."""
    found: dict[tuple[str, int], list[Plan]] = {}
    async with tercet.open_local(protocol="plain") as lake:
        planner = _Planner(lake)
        small = (await tables.upload(lake, tables.learnable(STAND_IN_ROWS, FEATURES), "table")).table
        left, right = tables.linkable(STAND_IN_ROWS, JOINED_FEATURES)
        ours = (await tables.upload(lake, left, "left")).table
        theirs = (await tables.upload(lake, right, "right")).table
        fitted = (await small_model(lake, STAND_IN_ROWS, FEATURES)).fitted_model()
        model = attrs.evolve(fitted, like=_grown(fitted.like, STAND_IN_ROWS, planner))
        works: Mapping[str, Callable[[int], Any]] = {
            "join": lambda n: _grown(ours, n, planner).join(_grown(theirs, n, planner), on=tables.KEY),
            "train": lambda n: Fit().model().fit(_grown(small, n, planner), target=tables.TARGET),
            "evaluate": lambda n: model.evaluate(_grown(small, n, planner)),
        }
        for name, work in works.items():
            for count in rows:
                work(count)
                found[name, count] = planner.plans
    return found


def seconds(made: Sequence[Plan], workers: int, machine: Machine) -> float:
    """What plans take in a row."""
    return sum(
        explain(
            _coarse(plan, workers),
            PROTOCOL,
            PARTIES,
            latency_ms=LATENCY_MS,
            bandwidth_mbit=BANDWIDTH_MBIT,
            machine=machine,
            workers=workers,
            apart=True,
        ).seconds
        for plan in made
    )


def _coarse(plan: Plan, workers: int) -> Plan:
    """The same plan in longer tiles, where a worker has very many."""
    longest = max((rows for node in plan.nodes for rows in [_rows(node.types[0])]), default=0)
    tiles, times = longest / plan.tile_rows / max(1, workers), 1
    while tiles / times > 2 * TILES_A_WORKER:
        times *= 2
    return attrs.evolve(plan, tile_rows=times * plan.tile_rows, packed=None, shape=None)


def _rows(kind: Any) -> int:
    return kind.rows if isinstance(kind.rows, int) else 0


def run(rows: Sequence[int] = ROWS, workers: Sequence[int] = WORKERS) -> list[dict[str, Any]]:
    """Predicted seconds of each work, by rows and number of workers a party."""
    machine = machine_for(PROTOCOL, PARTIES)
    return [
        {
            "work": name,
            "rows": count,
            "workers": number,
            "seconds": tidy(seconds(made, number, machine)),
        }
        for (name, count), made in trio.run(plans, rows).items()
        for number in workers
    ]


# -- the page ------------------------------------------------------------------------------------------------


def markdown(predicted: Sequence[Mapping[str, Any]]) -> str:
    """A table with a line for each work and number of rows."""
    numbers = list(dict.fromkeys(one["workers"] for one in predicted))
    lines: dict[tuple[str, int], list[str]] = {}
    for one in predicted:
        cells = lines.setdefault((one["work"], one["rows"]), [])
        cells.append(duration(one["seconds"]))
    heads = [f"{number} worker{'' if number == 1 else 's'}" for number in numbers]
    return "\n".join(
        [
            f"| work | rows | {' | '.join(heads)} |",
            f"| --- | ---: |{' ---: |' * len(heads)}",
            *(f"| {name} | {count:,} | {' | '.join(cells)} |" for (name, count), cells in lines.items()),
        ]
    )


def duration(taken: float) -> str:
    """Seconds, minutes or hours, to two digits."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if taken >= 2 * size:
            return f"{float(f'{taken / size:.2g}'):g} {unit}"
    return f"{float(f'{taken:.2g}'):g} s"


def write(page: Path, predicted: Sequence[Mapping[str, Any]]) -> None:
    """Put the table into a page, in place of what is there. Raises ValueError if there is no place for it."""
    old = page.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN.strip()} and {END.strip()} to put the table between")
    page.write_text(f"{before}{begin}\n{markdown(predicted)}\n\n{end}{after}", encoding="utf-8")
