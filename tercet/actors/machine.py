"""What a machine and its network take for the work of a plan: the profile behind predicted seconds.

A run takes a fixed time to start, a time for every instance and for every round on the critical path, and a
time for each unit of work that depends on the protocol and on the kind of node. `calibration` measures all of
these; what was not measured counts at a common rate. `tercet calibrate` keeps the profile in a file, where
`explain` finds it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from tercet.actors.kinds import KINDS
from tercet.actors.layout import Layout
from tercet.errors import PlanError
from tercet.protocols.base import Cost
from tercet.protocols.domains import WORD_BYTES

MESSAGES_AROUND = 3
"""Messages in sequence around a run: the client's request, the parties' start, and the answer."""
LOCAL = "local"
VARIABLE = "TERCET_MACHINE"
"""Environment variable that names another file for the profile."""


@attrs.frozen(kw_only=True)
class Machine:
    """What a machine and its network take for things under one protocol, in seconds.

    `plan_s` for a run, `instance_s` for a (node, tile), `round_s` for a round besides latency, `rates` by
    kind of node for a unit of work (see `units`), where `LOCAL` stands for what needs no network and has no
    rate of its own; `unit_s` is for a unit of all others. The defaults were measured on three node processes
    with TLS on loopback, two slow cores in all.
    """

    plan_s: float = 8e-3
    instance_s: float = 5e-4
    round_s: float = 2.0e-3
    unit_s: float = 8e-8
    rates: Mapping[str, float] = attrs.field(factory=dict)

    def rate(self, kind: str) -> float:
        """Seconds for a unit of work of a kind."""
        group = LOCAL if KINDS[kind].local else ""
        return self.rates.get(kind, self.rates.get(group, self.unit_s))


def profile_path() -> Path:
    """Where this machine's profile is kept."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tercet" / "machine.json"


def load_profile(path: Path | None = None) -> dict[str, Machine]:
    """What was saved, by protocol; nothing if nothing was. Raises PlanError for a file that is no profile."""
    path = profile_path() if path is None else path
    if not path.exists():
        return {}
    try:
        return {name: Machine(**fields) for name, fields in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise PlanError(
            f"{path} is no profile of a machine ({error}); delete it, or run `tercet calibrate` again"
        ) from error


def save_profile(profile: Mapping[str, Machine], path: Path | None = None) -> Path:
    """Write a profile to a file, by default to where `load_profile` looks. Raises OSError."""
    path = profile_path() if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: attrs.asdict(machine) for name, machine in profile.items()}
    path.write_text(json.dumps(fields, indent=1) + "\n")
    return path


def units(layout: Layout, index: int, tile: int, cost: Cost) -> int:
    """About how much work an instance is: words that a party reads and sends, or multiplications."""
    node = layout.plan.nodes[index]
    shapes = layout.word_shapes(index, tile)
    if node.kind in ("matmul", "dot"):
        outer = shapes[1][-1] if node.kind == "matmul" else shapes[1][0]
        return math.prod(shapes[0]) * outer
    return layout.needed_words(index, tile) + cost.total // (WORD_BYTES * len(cost.sent))


__all__ = ["LOCAL", "MESSAGES_AROUND", "Machine", "load_profile", "profile_path", "save_profile", "units"]
