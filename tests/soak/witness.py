"""What was let through at the nodes, against what was asked for, signed and told: no undeclared opening.

The witness notes every plan that a member sends or asks for, and what it discloses; every approval that an
owner gives; and every result that comes back. At the end the audit log of each node must be whole, must have
a line for every result with just its disclosures, must have no line for a plan that nobody sent, and no run
over a table whose owner wants to sign without that owner's signature before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from tercet.client.lake import AsyncLake
from tercet.errors import ConsentError
from tercet.members.audit import log_lines
from tercet.members.audit_lines import check_lines, parse
from tercet.ml.computations import Request
from tercet.nodes.waiting import RUN_BYTES
from tercet.plans.parsing import read_plan
from tercet.plans.plan import Plan

MOST_ALONE = 2
"""What a job is submitted with that nobody waits for: its name, and what it is."""
ASKS = "-asks"
"""How names of tables end whose owners sign every plan."""


@attrs.frozen
class Sent:
    """A plan that a member has sent."""

    member: str
    digest: str
    reveals: list[str]


@attrs.define(eq=False)
class Witness:
    """Knows what the members have asked for, signed and been told, by session (hex)."""

    asked: dict[str, Sent] = attrs.field(factory=dict)
    told: set[str] = attrs.field(factory=set)
    """Sessions whose results have come back."""
    signed: set[tuple[str, str]] = attrs.field(factory=set)
    """Owners, and the sessions for which they have sent a signature."""

    def watch(self, lake: AsyncLake, member: str) -> None:
        """Note what a member sends and is told over a lake."""
        client = lake.cluster.client
        ask, optimised, plans = client._ask_all, client._optimised, dict[bytes, Plan]()

        async def making(plan: Plan) -> Plan:
            made = await optimised(plan)
            plans[made.digest()] = made
            return made

        async def noting(requests: Sequence[Any]) -> Any:
            verb, args = requests[0].verb, requests[0].args
            if verb == "submit":
                plan = plans[_digest(args[1])]
                reveals = [str(one) for one in plan.disclosures()]
                self.asked[args[0].hex()] = Sent(member, plan.digest().hex(), reveals)
            answers = await ask(requests)
            if verb == "fetch" or (verb == "submit" and len(args) > MOST_ALONE):
                self.told.add(args[0].hex())
            return answers

        client._ask_all, client._optimised = noting, making

    def complaints(self, node: str, log: Path, certificate: str, owners: dict[str, str]) -> Iterator[str]:
        """What is wrong with the log of a node; `owners` are those of tables."""
        lines = list(log_lines(log))
        try:
            check_lines(lines, certificate, where=node)
        except ConsentError as error:
            yield str(error)
            return
        ran: set[str] = set()
        approved: set[tuple[str, str]] = set()
        for line in map(parse, lines):
            if line["event"] == "approved":
                approved.add((line["caller"], line["session"]))
                if (line["caller"], line["session"]) not in self.signed:
                    yield f"{node}: line {line['number']}: {line['caller']} has signed no such approval"
            elif line["event"] == "runs":
                ran.add(_asked_as(line["session"]))
                yield from self._judge(node, line, approved, owners)
        for session in sorted(self.told - ran):
            yield f"{node}: {self.asked[session].member} was told a result of {session}, which it never ran"

    def _judge(
        self, node: str, line: dict[str, Any], approved: set[tuple[str, str]], owners: dict[str, str]
    ) -> Iterator[str]:
        where = f"{node}: line {line['number']}: plan {line['plan']!r} of {line['caller']}"
        sent = self.asked.get(_asked_as(line["session"]))
        if sent != Sent(line["caller"], line["digest"], line["reveals"]):
            yield f"{where} reveals {line['reveals']}; what was sent is {sent}"
        for owner in _who_sign(line["reads"], line["caller"], owners):
            if (owner, line["session"][: 2 * RUN_BYTES]) not in approved:  # of this or an earlier attempt
                yield f"{where} ran without the signature of {owner}"


def _digest(packed: bytes) -> bytes:
    """Of the plan that a member sends, or that its client expects the nodes to make."""
    asks = packed.startswith(Request.MAGIC)
    return Request.from_bytes(packed).digest if asks else read_plan(packed).digest()


def _asked_as(session: str) -> str:
    """Under which name a member has asked for a session: nodes begin it again under longer ones."""
    return session[: 2 * RUN_BYTES]


def _who_sign(reads: Sequence[str], caller: str, owners: dict[str, str]) -> set[str]:
    return {owners[table] for table in reads if table.endswith(ASKS)} - {caller}
