"""Quotas: what a node lets each member have, as its operator says in the table `[quota]` of `node.toml`.

Every refusal says what is used, what the limit is and what to do. What outlives a restart of the node is
counted in its catalog and journal, or found there when it starts; what does not, in memory.
"""

from __future__ import annotations

from collections import Counter

from tercet.actors.gate import ClientLimits
from tercet.errors import QuotaError
from tercet.members.quota import Quota
from tercet.plans.plan import Plan

MB = 1 << 20
MOST_NODES = 1 << 19
"""Nodes of a member's plans that are under way or wait: what they take in memory."""
THREADS = 2
"""What a member asks for occupies so many threads at a time."""
SHARE_IN_MEMORY = 16
"""Of `memory_mb`, a member's dealt values take no more than one part in so many; the rest lies in files."""


def client_limits(quota: Quota) -> ClientLimits:
    """What the node's listener and services ask."""
    return ClientLimits(quota.connections, float(quota.requests), THREADS, quota.core_percent / 100)


class Quotas:
    """Who has what, of what is not in the catalog; and refusals of what would be too much."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self._runs: dict[bytes, tuple[str, int]] = {}
        self._queued: Counter[str] = Counter()
        self._nodes: Counter[str] = Counter()

    def require(self, member: str, name: str, used: int, more: int = 1) -> None:
        """Raise QuotaError if a member would have more of something than the quota of that name allows."""
        most = int(getattr(self.quota, name)) * (MB if name.endswith("_mb") else 1)
        if used + more <= most:
            return
        what, mend = WORDS[name]
        numbers = f"{used:,}", f"{more:,}", f"{most:,}"
        if name.endswith("_mb"):
            numbers = f"{used / MB:,.1f} MB", f"{more / MB:,.1f} MB", f"{most / MB:,.0f} MB"
        raise QuotaError(
            f"{member} has {numbers[0]} {what} at this node, and {numbers[1]} more would be beyond its "
            f"limit of {numbers[2]}; {mend}, or ask the node's operator for more ({name} in node.toml)"
        )

    def begin(self, member: str, session: bytes, plan: Plan) -> None:
        """A member's plan comes. Raises QuotaError if too many are under way, or too much of them."""
        nodes = len(plan.nodes)
        if session not in self._runs:
            self.require(member, "queued", self._queued[member])
            used = self._nodes[member]
            if used and used + nodes > MOST_NODES:
                raise QuotaError(
                    f"plans of {member} that are under way or wait have {used:,} operations, and {nodes:,} "
                    f"more would be beyond the limit of {MOST_NODES:,}; wait for some to end, or cancel them"
                )
            self._runs[session] = member, nodes
            self._queued[member] += 1
            self._nodes[member] += nodes

    def end(self, session: bytes) -> None:
        """A plan has ended, or was not let through."""
        member, nodes = self._runs.pop(session, ("", 0))
        self._queued[member] -= bool(member)
        self._nodes[member] -= nodes


LET_GO = "keep them under a name, or drop some; what you dealt goes when you leave"
WORDS = {
    "dealt_mb": ("of values that are not kept", LET_GO),
    "values": ("values that are not kept", LET_GO),
    "kept_mb": ("of tables, models and numbers", "drop some"),
    "entries": ("tables, models and numbers", "drop some"),
    "waiting": ("plans that wait for approval", "cancel some, or wait until they are approved"),
    "queued": ("plans that are under way or wait for their turn", "wait for some to end, or cancel them"),
    "results_mb": (
        "of results that wait, for others or of jobs",
        "let their receivers fetch them, and forget jobs that are done",
    ),
    "log_lines": ("lines of this hour in the audit log", "go on in the next hour"),
    "connections": ("connections", "close some"),
}
"""Of each quota, what it counts, and what a member can do who needs more of it."""
