"""What is measured in a comparison: runs of a workload in a setting, and where and when that was.

Whatever is made of these classes is within bounds and can be printed, since files of them come from anybody.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import platform
import re
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import attrs

from tercet.comparison.networks import Network, line
from tercet.errors import PlanError
from tercet.options import COUNT, FLAG, Number, Several

CLOSE = 1.3
"""A prediction is close if it is off by this factor at most, either way."""
_AMOUNT = Number(least=0, most=1e18)
_MAYBE = attrs.evolve(_AMOUNT, none=True)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


@attrs.frozen(kw_only=True)
class Run:
    """One run of a workload: its plans, their rounds and seconds, and bytes sent by each party.

    `predicted_seconds` is from `explain`, None for a protocol of one party, where there is nothing to talk
    about; `peak_mb` the most memory of any node (10^6 bytes), None where it was not measured; `error` the
    largest difference of a figure from that of the clear reference, None if one of them only is no number.
    Uploads are not counted.
    """

    plans: int = attrs.field(validator=attrs.evolve(COUNT, least=0, most=1e18))
    rounds: int = attrs.field(validator=Number(whole=True, least=0, most=1e18))
    bytes_sent: tuple[int, ...] = attrs.field(
        validator=Several(each=Number(whole=True, least=0, most=1e18), empty=True, most=64)
    )
    seconds: float = attrs.field(validator=_AMOUNT)
    predicted_seconds: float | None = attrs.field(validator=_MAYBE)
    peak_mb: float | None = attrs.field(validator=_MAYBE)
    error: float | None = attrs.field(validator=_MAYBE)


@attrs.frozen
class Spread:
    """Median and range of a figure over runs; not a number where it is not defined."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Spread:
        """Of some numbers; not a number if one of them is none."""
        if not found or any(map(math.isnan, found)):
            return cls(math.nan, math.nan, math.nan)
        return cls(statistics.median(found), min(found), max(found))


@attrs.frozen(kw_only=True)
class Measurement:
    """What a workload took in one setting: the figures are medians over its runs, spreads in `spread`.

    `corruptions` is how many parties may be corrupt together, and `malicious` whether they may do anything.
    """

    plan: str = attrs.field(validator=line("the name of a plan"))
    protocol: str = attrs.field(validator=line("the name of a protocol"))
    parties: int = attrs.field(validator=attrs.evolve(COUNT, most=64))
    corruptions: int = attrs.field(validator=Number(whole=True, least=0, most=64))
    malicious: bool = attrs.field(validator=FLAG)
    network: Network
    rows: int = attrs.field(validator=attrs.evolve(COUNT, most=1e18))
    runs: tuple[Run, ...]

    def __attrs_post_init__(self) -> None:
        """Refuse a setting without runs."""
        if not self.runs:
            raise PlanError(f"{self.plan!r} on {self.protocol!r} has no runs")

    @property
    def setting(self) -> tuple[str, Network, int]:
        """What protocols are compared in: plan, network and rows."""
        return self.plan, self.network, self.rows

    @property
    def key(self) -> tuple[str, Network, int, str, int]:
        """What tells it from the others of a study: the setting, and the protocol with its parties."""
        return (*self.setting, self.protocol, self.parties)

    @property
    def label(self) -> str:
        """The protocol and its parties, as in `shamir:5`."""
        return f"{self.protocol}:{self.parties}" if self.parties > 1 else self.protocol

    @property
    def security(self) -> str:
        """Of how many parties how many may be corrupt, and whether they are held to follow the protocol."""
        if not self.corruptions:
            return "none"
        return f"{self.corruptions} of {self.parties}, {'malicious' if self.malicious else 'semi-honest'}"

    def spread(self, figure: str) -> Spread:
        """A figure over the runs: one of `Run`, or `bytes_most`."""
        if figure == "bytes_most":
            return Spread.of([max(run.bytes_sent, default=0) for run in self.runs])
        return Spread.of([_nan(getattr(run, figure)) for run in self.runs])

    @property
    def rounds(self) -> float:
        """Rounds of all plans together."""
        return self.spread("rounds").median

    @property
    def bytes_most(self) -> float:
        """What the busiest party sent."""
        return self.spread("bytes_most").median

    @property
    def seconds(self) -> float:
        """Seconds of all plans together."""
        return self.spread("seconds").median

    @property
    def predicted_seconds(self) -> float:
        """What `explain` says of them; not a number for a protocol of one party."""
        return self.spread("predicted_seconds").median

    @property
    def peak_mb(self) -> float:
        """The most memory of a node; not a number where it was not measured."""
        return self.spread("peak_mb").median

    @property
    def error(self) -> float:
        """The largest difference of a figure from that of the clear reference."""
        return self.spread("error").median

    @property
    def predicted_over_measured(self) -> float:
        """1 where the prediction was right; not a number where there is none."""
        return self.predicted_seconds / self.seconds if self.seconds else math.nan

    @property
    def predicted_well(self) -> bool:
        """Whether there is a prediction, and it was close."""
        return 1 / CLOSE <= self.predicted_over_measured <= CLOSE


@attrs.frozen(kw_only=True)
class Origin:
    """Where and when a study was measured: release, Python, machine, its cores, and the date (UTC)."""

    tercet: str = attrs.field(validator=line("a release"))
    python: str = attrs.field(validator=line("a release"))
    system: str = attrs.field(validator=line("a system"))
    processor: str = attrs.field(validator=line("a processor"))
    cores: int = attrs.field(validator=attrs.evolve(COUNT, most=1 << 20))
    date: str = attrs.field(validator=line("a date"))

    def __str__(self) -> str:
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        machine = f"{self.processor}, {cores}, {self.system}"
        return f"Tercet {self.tercet}, Python {self.python}; {machine}; {self.date}"

    @classmethod
    def here(cls) -> Origin:
        """This release on this machine, now."""
        return cls(
            tercet=version("tercet"),
            python=platform.python_version(),
            system=f"{platform.system()} {platform.release()}",
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            date=f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}",
        )


def _processor() -> str:
    """The name of the processor, where Linux tells it; else of its kind."""
    known = Path("/proc/cpuinfo")
    told = re.search(r"^model name\s*: (.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return told[1].strip() if told else platform.machine() or "an unknown processor"


__all__ = ["CLOSE", "Measurement", "Origin", "Run", "Spread"]
