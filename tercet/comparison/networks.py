"""Networks of a study: what links between nodes of one machine are slowed down to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

from tercet.errors import PlanError
from tercet.options import Number, Text

UNITS = {"mbit": 1.0, "gbit": 1e3}
"""Bandwidths in Mbit/s."""


LONGEST_TEXT = 512


def line(what: str) -> Callable[[Any, Any, str], None]:
    """A validator of text that can be printed: one line, with nothing in it that moves a cursor."""
    text = Text(what=what)

    def validate(instance: Any, attribute: Any, value: str) -> None:
        text(instance, attribute, value)
        if len(value) > LONGEST_TEXT or not value.isprintable():
            raise PlanError(
                f"{type(instance).__name__}: {attribute.name} is no line of at most {LONGEST_TEXT} characters"
            )

    return validate


@attrs.frozen
class Network:
    """What every link is slowed down to.

    Latency one way, a bandwidth (None for no cap), and by how much the latency of a frame may be off, either
    way.
    """

    name: str = attrs.field(validator=line("the name of a network"))
    latency_ms: float = attrs.field(default=0.0, validator=Number(least=0, most=60_000))
    bandwidth_mbit: float | None = attrs.field(default=None, validator=Number(least=1e-3, none=True))
    jitter_ms: float = attrs.field(default=0.0, validator=Number(least=0, most=60_000))

    def __attrs_post_init__(self) -> None:
        """Refuse frames that arrive before they are sent."""
        if self.jitter_ms > self.latency_ms:
            raise PlanError(
                f"network {self.name!r} has a jitter of {self.jitter_ms:g} ms and a latency of "
                f"{self.latency_ms:g} ms; a jitter is at most the latency"
            )


NETWORKS = {
    one.name: one for one in (Network("none"), Network("lan", 0.25, 1000.0), Network("wan", 20.0, 100.0))
}


def network(name: str) -> Network:
    """A network by name, or from latency, bandwidth and jitter: `3ms`, `10ms/50mbit`, `10ms/1gbit/2ms`.

    Bandwidth and jitter can be left out, as in `10ms/2ms`. Raises PlanError.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    found = re.fullmatch(
        r"([0-9]+(?:\.[0-9]+)?)ms(?:/([0-9]+(?:\.[0-9]+)?)(mbit|gbit))?(?:/([0-9]+(?:\.[0-9]+)?)ms)?", name
    )
    if found is None:
        raise PlanError(
            f"there is no network {name!r}; choose one of {', '.join(NETWORKS)}, or write its latency, "
            "bandwidth and jitter as in 3ms, 10ms/50mbit or 10ms/50mbit/2ms"
        )
    bandwidth = None if found[2] is None else float(found[2]) * UNITS[found[3]]
    return Network(name, float(found[1]), bandwidth, float(found[4] or 0))


__all__ = ["NETWORKS", "Network", "line", "network"]
