"""What a run of a plan gave, as a client puts it together and computations read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from tercet.plans.types import NODES, Disclosure, Type


@attrs.frozen(eq=False)
class RunResult:
    """What a plan run gave.

    Revealed numbers by name, types of stored values, symbols, cost, and what was disclosed.

    `bytes_sent` is the payload sent by each party; `client_bytes` what passed between client and nodes.
    `interrupted` is how often the run was interrupted before; costs are those of what went on then.
    """

    revealed: Mapping[str, np.ndarray[Any, np.dtype[Any]]]
    stored: Mapping[str, Type]
    symbols: Mapping[str, int]
    rounds: int
    bytes_sent: tuple[int, ...]
    client_bytes: int
    seconds: float
    disclosed: tuple[Disclosure, ...]
    interrupted: int = 0

    def __repr__(self) -> str:
        revealed = ", ".join(f"{name} {values.shape}" for name, values in self.revealed.items()) or "nothing"
        return f"result of a plan: {revealed} revealed, {self.rounds} rounds, {self.seconds:.3g} s"

    def after(self, attempts: int) -> RunResult:
        """The same after so many interrupted attempts, with what nodes may have learnt more than once."""
        if not attempts:
            return self
        again = f", perhaps {attempts} times before, in runs that were interrupted"
        disclosed = [
            attrs.evolve(one, what=one.what + again) if one.to == NODES else one for one in self.disclosed
        ]
        return attrs.evolve(self, interrupted=attempts, disclosed=tuple(disclosed))
