"""What a benchmark found, and how it is printed: JSON for machines, tables for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

DIGITS = 4


@attrs.frozen(kw_only=True)
class Measured:
    """One measurement; what does not apply is None and is not printed.

    `seconds` is a median over runs. `bytes_per_party` is what the busiest party sent. `limit_ratio` is
    `seconds` over the time in which one core streams the least bytes that the operation has to touch.
    `peak_rss_mb` is the largest resident memory of any party during the measured phase. `error` is in the
    unit that `error_of` names. `speedup` is over whatever the benchmark compares with.
    `more` holds what only some benchmarks have.
    """

    name: str
    seconds: float | None = None
    rounds: int | None = None
    bytes_per_party: int | None = None
    limit_ratio: float | None = None
    peak_rss_mb: float | None = None
    error: float | None = None
    error_of: str | None = None
    speedup: float | None = None
    more: Mapping[str, Any] = attrs.field(factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        own = attrs.asdict(self, recurse=False)
        more = own.pop("more")
        return {key: tidy(value) for key, value in {**own, **more}.items() if value is not None}


def tidy(value: Any) -> Any:
    """Numbers as JSON has them, with no more digits than a measurement deserves."""
    if isinstance(value, Mapping):
        return {str(key): tidy(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [tidy(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def show(measured: Measured | Sequence[Measured], *, as_json: bool) -> None:
    """Print one measurement as an object, several as a list, or a table of them."""
    if as_json:
        found = measured.as_dict() if isinstance(measured, Measured) else [one.as_dict() for one in measured]
        print(json.dumps(found, indent=2))
        return
    console = Console()
    if isinstance(measured, Measured):
        console.print(_sheet(measured))
    else:
        console.print(_list(measured))


def _sheet(measured: Measured) -> Table:
    """One measurement, a line for each figure."""
    table = Table(title=measured.name, show_header=False)
    for key, value in measured.as_dict().items():
        if key == "name":
            continue
        if isinstance(value, dict):
            for inner, one in value.items():
                table.add_row(f"{key} · {inner}", _text(one))
        else:
            table.add_row(key, _text(value))
    return table


def _list(measured: Sequence[Measured]) -> Table:
    """Several measurements, a line for each."""
    rows = [one.as_dict() for one in measured]
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "error_of"]
    table = Table()
    for key in keys:
        table.add_column(key.replace("_", " "), justify="left" if key == "name" else "right")
    for row in rows:
        table.add_row(*(_text(row.get(key, "")) for key in keys))
    return table


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return str(value)
