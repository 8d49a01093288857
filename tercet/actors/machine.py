"""What a machine and its network take for the work of a plan: the profile behind predicted seconds.

A run takes a fixed time to start, a time for every round, and for each kind of node processor time for every
step of an instance and for each unit of work. How much a party has to do depends on the protocol and on the
number of parties, so there is a profile for each; that parties share a machine's cores is reckoned here.
`calibration` measures a profile, `tercet calibrate` keeps it in a file, where `explain` finds it;
`rehearsal` puts it to use.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from tercet.errors import PlanError
from tercet.plans.tiles import Layout
from tercet.protocols.base import Cost
from tercet.protocols.domains import WORD_BYTES
from tercet.protocols.fourier import Series, union

MESSAGES_AROUND = 3
"""Messages in sequence around a run: the client's request, the parties' start, and the answer. Keys of groups
are confirmed by one more, and so is the end of a run where parties may be malicious."""
LOCAL, TALKING = "local", "reduce"
"""Whose pace goes for kinds without one, if they take no round, and if they do."""
VARIABLE = "TERCET_MACHINE"
"""Environment variable that names another file for the profile."""


@attrs.frozen
class Pace:
    """Seconds of a core that a step of an instance takes, whatever its size, and a unit of work (`units`)."""

    step_s: float = 2e-4
    unit_s: float = 3e-8


PACES: Mapping[str, Pace] = {
    "store": Pace(3e-5, 0.0),
    LOCAL: Pace(1e-5, 2e-9),
    TALKING: Pace(1.3e-4, 2e-8),
    "truncate": Pace(1.6e-4, 3e-8),
    "nearest": Pace(2.7e-4, 9e-8),
    "fourier": Pace(2.2e-4, 2e-8),
    "is_negative": Pace(1.9e-4, 4e-7),
    "is_zero": Pace(1.8e-4, 3e-7),
    "to_ring": Pace(1.7e-4, 1.2e-7),
    "matmul": Pace(1e-5, 1.3e-9),
    "dot": Pace(1e-5, 1.5e-9),
    "shuffle": Pace(1.6e-4, 3e-8),
    "sort": Pace(2.5e-4, 1.5e-6),
    "prf": Pace(2.1e-4, 9e-8),
}
"""What was measured on two slow cores, under replicated sharing, by kind of node."""


@attrs.frozen(kw_only=True)
class Machine:
    """What things take under one protocol among some parties, on a machine or a network of them, in seconds.

    `plan_s` for a run, `round_s` for a round from the last step before it to the first after it, `wake_s`
    more with latency, since processes go to sleep meanwhile. `paces` are by kind of node, `inline_s` is for a
    node that is computed where it is read: these are of a core, and all parties share `cores` of them. The
    defaults are about those of three node processes that talk TLS on two slow cores.
    """

    plan_s: float = 6e-3
    round_s: float = 6e-4
    wake_s: float = 3e-4
    inline_s: float = 3e-5
    cores: int = 2
    paces: Mapping[str, Pace] = attrs.field(factory=lambda: PACES)

    def pace(self, kind: str, *, talks: bool) -> Pace:
        """The pace of a kind, or of its group."""
        return self.paces.get(kind) or self.paces.get(TALKING if talks else LOCAL) or Pace()

    def crowd(self, parties: int, threads: int = 1) -> int:
        """How many threads take turns on the busiest core when all parties compute.

        A round waits for the last party, so three of them on two cores take two turns.
        """
        return math.ceil(parties * threads / self.cores)


def profile_path() -> Path:
    """Where this machine's profile is kept."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tercet" / "machine.json"


def load_profile(path: Path | None = None) -> dict[tuple[str, int], Machine]:
    """What was saved, by protocol and number of parties; nothing if nothing was.

    Raises PlanError for a file that is no profile.
    """
    path = profile_path() if path is None else path
    if not path.exists():
        return {}
    try:
        return dict(_read(one) for one in json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PlanError(
            f"{path} is no profile of a machine ({error!r}); delete it, or run `tercet calibrate` again"
        ) from error


def _read(fields: dict[str, Any]) -> tuple[tuple[str, int], Machine]:
    key = str(fields.pop("protocol")), int(fields.pop("parties"))
    paces = {kind: Pace(**pace) for kind, pace in fields.pop("paces").items()}
    return key, Machine(**fields, paces=paces)


def save_profile(profile: Mapping[tuple[str, int], Machine], path: Path | None = None) -> Path:
    """Write a profile to a file, by default to where `load_profile` looks. Raises OSError."""
    path = profile_path() if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [
        {"protocol": protocol, "parties": parties, **attrs.asdict(machine)}
        for (protocol, parties), machine in profile.items()
    ]
    path.write_text(json.dumps(told, indent=1) + "\n")
    return path


def machine_for(protocol: str, parties: int) -> Machine:
    """What was calibrated: for so many parties, or else for the next number of them; or the default."""
    known = {count: machine for (name, count), machine in load_profile().items() if name == protocol}
    return known[min(known, key=lambda count: abs(count - parties))] if known else Machine()


def units(layout: Layout, index: int, tile: int, cost: Cost) -> int:
    """About how much work an instance is.

    Words that a party reads and sends, multiplications in a matrix product, or terms of Fourier series.
    """
    node = layout.plan.nodes[index]
    shapes = layout.word_shapes(index, tile)
    if node.kind in ("matmul", "dot"):
        outer = shapes[1][-1] if node.kind == "matmul" else shapes[1][0]
        return math.prod(shapes[0]) * outer
    if node.kind == "fourier":
        return union(*(Series(*fields) for fields in node.get("series"))).dealt * math.prod(shapes[0])
    return layout.needed_words(index, tile) + cost.total // (WORD_BYTES * len(cost.sent))


__all__ = [
    "LOCAL",
    "MESSAGES_AROUND",
    "TALKING",
    "Machine",
    "Pace",
    "load_profile",
    "machine_for",
    "profile_path",
    "save_profile",
    "units",
]
