"""What people read of studies and plans that want their consent, in a terminal and in the portal alike."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from tercet.client.member_api import Kept, WaitingPlan
from tercet.client.study_api import KnownStudy
from tercet.members.rules import moment
from tercet.plans.plan import Plan

LONGEST_LINE = 512
"""Characters of what somebody else has written."""


def one_line(text: str) -> str:
    """What somebody else has written, with nothing in it that hides, moves or ends a line, and cut."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= LONGEST_LINE else f"{shown[: LONGEST_LINE - 3]}..."


def stands(known: KnownStudy) -> str:
    """Where a study stands: refused, waiting for whom, or approved, and how often it has run."""
    if known.refusal:
        return known.refusal
    if known.missing:
        return f"waits for {', '.join(known.missing)}"
    return f"approved by all; run {known.runs} of {known.uses} times, until {moment(known.until)}"


def describe_plan(waiting: WaitingPlan, plan: Plan, entries: Sequence[Kept]) -> list[str]:
    """A waiting plan in lines: whose, which `entries` it reads, what it reveals and stores, its digest."""
    names = {handle: f"{one.kind} {one.name}" for one in entries for handle in one.handles}
    handles = [str(node.get("handle")) for node in plan.nodes if node.kind == "input"]
    reads = [names.get(handle, f"what was computed before: {one_line(handle)}") for handle in handles]
    lines = [f"plan {waiting.number}: {one_line(plan.name)}, for {waiting.caller}", "it reads"]
    lines += [f"  - {one}" for one in dict.fromkeys(reads)]
    lines.append("it reveals" if plan.disclosures() else "it reveals nothing")
    told = (attrs.evolve(one, what=one_line(one.what)) for one in plan.disclosures())
    lines += [f"  - {one}" for one in told]
    stored = [str(node.get("handle")) for node in plan.nodes if node.kind == "store"]
    if stored:
        lines.append(f"it stores at the nodes, secret, for later plans of {waiting.caller}")
        lines += [f"  - {one_line(one)}" for one in dict.fromkeys(stored)]
    return [*lines, f"digest {plan.digest().hex()}"]
