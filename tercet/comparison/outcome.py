"""The results of a comparison: printed, drawn, written to files, read again, and set against earlier ones.

A JSON file says which version its format has. One of another version, and one in which anything is missing,
too much or out of range, is refused with a sentence, since it may come from anybody.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs

from tercet.comparison import printing, report
from tercet.comparison.measurements import Measurement, Origin, Run
from tercet.comparison.networks import Network
from tercet.errors import PlanError, TercetError

FORMAT, VERSION = "tercet comparison", 1
MOST_FILE_BYTES = 1 << 26
ENDINGS = {".txt": "table", ".md": "markdown", ".tex": "latex", ".json": "json", ".csv": "csv"}
FORMATS = tuple(ENDINGS.values())
DRAWN = (".png", ".svg", ".pdf")
"""Endings of plots."""

T = TypeVar("T")


@attrs.frozen(eq=False)
class Comparison:
    """Measurements of some protocols in some settings, each once, and where they come from.

    It prints as a table; the first protocol of each setting is what the others are set against.
    """

    origin: Origin
    measurements: tuple[Measurement, ...]

    def __attrs_post_init__(self) -> None:
        """Refuse a setting that is there twice."""
        seen = set()
        for one in self.measurements:
            if one.key in seen:
                raise PlanError(
                    f"{one.plan!r} on {one.label} is there twice for {one.network.name}, {one.rows:,} rows"
                )
            seen.add(one.key)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __len__(self) -> int:
        return len(self.measurements)

    def __getitem__(self, index: int) -> Measurement:
        return self.measurements[index]

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int | None = None, against: Comparison | None = None) -> str:
        """The table for a terminal so many columns wide; without a width, every row in one line.

        Beside rounds, bytes and seconds stands how many times those of the first protocol of the setting they
        are. `against` earlier results, it has both, and how many times the earlier figures these are.
        """
        return printing.text(self._table(against), width)

    def markdown(self, against: Comparison | None = None) -> str:
        """The table in Markdown; see `table`."""
        return printing.markdown(self._table(against))

    def latex(self, against: Comparison | None = None) -> str:
        """The table as a `tabular` in LaTeX, which needs the package booktabs; see `table`."""
        return printing.latex(self._table(against))

    def _table(self, against: Comparison | None) -> printing.Table:
        if against is None:
            return report.table(self.measurements, self.origin)
        return report.difference(self.measurements, self.origin, against.measurements, against.origin)

    def csv(self) -> str:
        """All numbers, a line for each run."""
        lines = [report.plain(one, number) for one in self for number in range(len(one.runs))]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()

    def json(self) -> str:
        """All numbers and where they come from; `load` reads it."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    def plot(self, path: str | Path) -> None:
        """Draw rounds, bytes, seconds, memory and accuracy side by side, a bar for each protocol.

        Raises OSError, and what `require_writable` does.
        """
        require_writable(Path(path))
        report.plot(self.measurements, path)

    def written(self, form: str, width: int | None = None, against: Comparison | None = None) -> str:
        """In one of `FORMATS`; JSON and CSV hold these results alone. PlanError for another."""
        if form == "table":
            return self.table(width, against)
        if form in ("markdown", "latex"):
            return self.markdown(against) if form == "markdown" else self.latex(against)
        if form in ("json", "csv"):
            return self.json() if form == "json" else self.csv()
        raise PlanError(f"there is no format {form!r}; choose one of {', '.join(FORMATS)}")

    def write(self, path: str | Path, against: Comparison | None = None) -> None:
        """Write to a file: what, its ending says: `.json`, `.csv`, `.md`, `.tex`, `.txt`, or a plot.

        Raises OSError, and what `require_writable` does.
        """
        path = Path(path)
        require_writable(path)
        if path.suffix in DRAWN:
            self.plot(path)
        else:
            text = self.written(ENDINGS[path.suffix], against=against)
            path.write_text(text, encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values; `from_json` reads it."""
        made = attrs.asdict(self.origin)
        return {"format": FORMAT, "version": VERSION, "origin": made} | {
            "measurements": [attrs.asdict(one) for one in self]
        }

    @classmethod
    def from_json(cls, told: Any) -> Comparison:
        """What `to_json` made. Raises PlanError for anything else."""
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise PlanError("it holds no results; tercet compare --out NAME.json writes one")
        version = told.get("version")
        if version is True or version != VERSION:
            raise PlanError(f"its format has version {version!r:.20}, and this release reads {VERSION} only")
        _fields(told, {"format", "version", "origin", "measurements"}, "the file")
        origin = _made(Origin, told["origin"], "origin")
        if not isinstance(told["measurements"], list):
            raise PlanError("measurements is no list")
        measured = [_measurement(one, f"measurement {i}") for i, one in enumerate(told["measurements"], 1)]
        return cls(origin, tuple(measured))


def require_writable(path: Path) -> None:
    """Refuse, before anything is measured, a file that could not be written afterwards.

    Raises PlanError for an ending that says nothing or a folder that is not there, TercetError for a plot
    without matplotlib.
    """
    if path.suffix not in (*ENDINGS, *DRAWN):
        raise PlanError(f"{path} ends in none of {', '.join([*ENDINGS, *DRAWN])}, which say what to write")
    if not path.parent.is_dir():
        raise PlanError(f"{path} would be in a folder that is not there; make it first")
    if path.suffix in DRAWN and importlib.util.find_spec("matplotlib") is None:
        raise TercetError("a plot needs matplotlib; pip install 'tercet[ml]'")


def _fields(told: Any, wanted: set[str], where: str) -> None:
    if not isinstance(told, dict) or set(told) != wanted:
        raise PlanError(f"{where} has to have {', '.join(sorted(wanted))}, and nothing else")


def _made(cls: type[T], told: Any, where: str) -> T:
    _fields(told, {one.name for one in attrs.fields(cls)}, where)  # type: ignore[arg-type]
    try:
        return cls(**told)
    except (TypeError, OverflowError) as error:
        raise PlanError(f"{where} is malformed: {error}") from error


def _measurement(told: Any, where: str) -> Measurement:
    _fields(told, {one.name for one in attrs.fields(Measurement)}, where)
    if not isinstance(told["runs"], list):
        raise PlanError(f"runs of {where} is no list")
    link = _made(Network, told["network"], f"network of {where}")
    runs = [_run(run, f"run {number} of {where}") for number, run in enumerate(told["runs"], 1)]
    return _made(Measurement, told | {"network": link, "runs": tuple(runs)}, where)


def _run(told: Any, where: str) -> Run:
    sent = told.get("bytes_sent") if isinstance(told, dict) else None
    return _made(Run, told | {"bytes_sent": tuple(sent)} if isinstance(sent, list) else told, where)


def load(path: str | Path) -> Comparison:
    """Read results from a file that `tercet compare --out NAME.json` wrote.

    Raises PlanError if it is none, or one of another version; OSError if it cannot be read.
    """
    with Path(path).open("rb") as file:
        data = file.read(MOST_FILE_BYTES + 1)
    if len(data) > MOST_FILE_BYTES:
        raise PlanError(f"{path} is larger than {MOST_FILE_BYTES >> 20} MiB, which no comparison is")
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is no JSON ({error}); --out NAME.json writes one") from error
    try:
        return Comparison.from_json(told)
    except PlanError as error:
        raise PlanError(f"{path} cannot be compared: {error}") from error


__all__ = ["DRAWN", "ENDINGS", "FORMATS", "Comparison", "load", "require_writable"]
