"""A computation under way at a member: its generator, its name, and the check bits that it went by so far."""

from __future__ import annotations

import secrets
from typing import Any

import attrs

from tercet.client.collecting import collecting_seldom
from tercet.errors import TercetError
from tercet.ml import computations
from tercet.ml.computations import NAME_BYTES, Calls, Computed, Naming, Request
from tercet.ml.table import Steps
from tercet.plans import Plan
from tercet.plans.results import RunResult


@attrs.frozen(eq=False)
class Ended:
    """What a computation returned."""

    value: Any


@attrs.define(eq=False)
class Run:
    """A computation under way: its generator, the name of this call of it, and its check bits so far."""

    steps: Steps[Any] | Calls[Any]
    names: Naming
    answers: list[computations.Answers] = attrs.field(factory=list)

    @classmethod
    def of(cls, steps: Steps[Any] | Calls[Any], names: Naming | None = None) -> Run:
        """One that begins now, by default under a random name."""
        return cls(steps, names or Naming(secrets.token_bytes(NAME_BYTES)))

    def advance(self, result: Any) -> Plan | Computed[Any] | Ended:
        """The next plan of a computation, or computation of several, or what it returned."""
        with computations.within(self.names), collecting_seldom():
            try:
                made: Plan | Computed[Any]
                failed = isinstance(result, TercetError)
                made = self.steps.throw(result) if failed else self.steps.send(result)
            except StopIteration as stop:
                return Ended(stop.value)
        return made

    @property
    def apart(self) -> bool:
        """Whether it reads what is for its caller also where other members are told something."""
        return isinstance(self.steps, computations.Wrapped) and self.steps.apart

    def request(self, every: int | None) -> Request | None:
        """How nodes are asked for the next plan; None for a computation that they know no name of."""
        if not isinstance(self.steps, Computed):
            return None
        known = self.steps.known
        arguments = computations.encoded(known, self.steps.arguments)
        answers, name = tuple(self.answers), self.names.computation
        return Request(known.name, arguments, name, answers, every)

    def note(self, plan: Plan, result: RunResult) -> None:
        """Remember the check bits that a plan has revealed."""
        self.answers.append(computations.checks_of(plan, result.revealed))

    def given(self, value: Any) -> Any:
        """What it gave; told where it comes from, if nodes were asked for it."""
        if not isinstance(self.steps, Computed) or not self.answers:
            return value
        return computations.placed(value, self.names.computation)
