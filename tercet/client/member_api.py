"""The desk of a member: what members ask nodes beyond running plans, and what comes back, compared.

Every question goes to all nodes. What they answer is put together only if they agree: a node that shows
another table, another plan or other rules than the rest is named, and nothing is done on its word.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import trio

from tercet.actors.values import read_type
from tercet.client.answers import alike, binary, require_agreement, time_of
from tercet.client.client import Client
from tercet.client.study_api import StudyDesk
from tercet.errors import ConsentError, ProtocolError, StorageError
from tercet.members.approvals import DAYS, LONGEST_S, Approval
from tercet.members.audit_lines import Follower, lines_after, require
from tercet.members.config import ClusterFile, NodeEntry
from tercet.members.keys import MemberKeys, context
from tercet.members.rules import MODEL, NUMBER, Rules
from tercet.members.seals import Head
from tercet.plans.parsing import read_plan
from tercet.plans.plan import Plan
from tercet.plans.types import Form, word_shape
from tercet.protocols.domains import Words, decode
from tercet.transports.names import party_name


@attrs.frozen
class Kept:
    """A table, model or number of the lake, as all nodes show it."""

    kind: str
    name: str
    owner: str
    body: bytes = attrs.field(repr=False)
    rules: Rules
    handles: tuple[str, ...]
    sources: tuple[str, ...]
    fingerprint: bytes
    expires: float | None


@attrs.frozen
class WaitingPlan:
    """A plan that waits for owners, as all nodes show it. `number` is what people call it.

    `missing` are the owners whose approval some node lacks.
    """

    session: bytes
    caller: str
    name: str
    digest: bytes
    asked: float
    missing: tuple[str, ...]

    @property
    def number(self) -> str:
        """The first digits of the session's name."""
        return self.session.hex()[:8]


@attrs.frozen(eq=False)
class Received:
    """Numbers that another member's plan revealed to this one."""

    session: bytes
    sender: str
    plan: str
    name: str
    values: npt.NDArray[Any]


MOST_CHARACTERS = 1 << 27
"""Where only the latest lines of a log are kept, so many characters of each node's."""


class Desk:
    """Asks all nodes in a member's name."""

    def __init__(self, client: Client, cluster: ClusterFile, keys: MemberKeys) -> None:
        self.client = client
        self.cluster = cluster
        self.keys = keys
        self.studies = StudyDesk(client, cluster, keys)

    def go_by(self, cluster: ClusterFile, keys: MemberKeys) -> None:
        """Go by another list of the lake's members, and with the key that it lists."""
        self.cluster = self.studies.cluster = cluster
        self.keys = self.studies.keys = keys

    @property
    def name(self) -> str:
        """The member's name."""
        return self.keys.identity.name

    def require_members(self, names: Sequence[str]) -> None:
        """Raise ConsentError if one of them is no member of the lake."""
        for name in names:
            if self.cluster.member(name) is None:
                members = ", ".join(one.name for one in self.cluster.members)
                raise ConsentError(f"there is no member {name!r} to read it; the members are {members}")

    async def keep(
        self,
        kind: str,
        name: str,
        body: bytes,
        handles: Sequence[str],
        rules: Rules,
        *,
        fingerprint: bytes = b"",
        days: float | None = None,
    ) -> None:
        """Have stored values last under a name, at all nodes or at none."""
        self.require_members(rules.readers)
        fields = {
            "kind": kind,
            "name": name,
            "body": body,
            "rules": rules.to_bytes(),
            "handles": list(handles),
            "fingerprint": fingerprint,
            "expires": None if days is None else time.time() + days * 86400,
        }
        async with self._all_or_none(kind, name):
            await self.client.ask("keep", [fields])

    async def keep_model(self, name: str, model: Any, rules: Rules) -> None:
        """Have a model last under a name, at all nodes or at none; `model` is how requests refer to it."""
        self.require_members(rules.readers)
        async with self._all_or_none(MODEL, name):
            await self.client.ask("keep_model", [name, model, rules.to_bytes()])

    async def keep_number(
        self, name: str, handles: Sequence[str], rules: Rules, *, days: float | None = None
    ) -> None:
        """Have a number that a plan has stored last under a name, at all nodes or at none."""
        expires = None if days is None else time.time() + days * 86400
        async with self._all_or_none(NUMBER, name):
            await self.client.ask("keep_number", [name, list(handles), rules.to_bytes(), expires])

    @contextlib.asynccontextmanager
    async def _all_or_none(self, kind: str, name: str) -> AsyncIterator[None]:
        """What is kept inside is let go again if some node does not keep it, unless it was there before."""
        first, *others = await self._entry(kind, name)
        was_there = first is not None and all(one == first for one in others)
        try:
            yield
        except BaseException:
            if not was_there:
                self.client.post("forget", [kind, name])
            raise

    async def entries(self) -> list[Kept]:
        """All tables, models and numbers on which the nodes agree."""
        first, *others = await self._entries()
        return [_kept(one) for key, one in first.items() if all(other.get(key) == one for other in others)]

    async def find(self, kind: str, name: str) -> Kept | None:
        """A table, model or number. Raises StorageError if not all nodes have the same."""
        first, *others = found = await self._entry(kind, name)
        differ = [party_name(index) for index, one in enumerate(others, 1) if one != first]
        if differ:
            lack = [node.name for node, one in zip(self.cluster.nodes, found, strict=True) if one is None]
            told = f"{', '.join(differ)} differ from party 0" + (
                f"; {', '.join(lack)} lacks it" if lack else ""
            )
            raise StorageError(
                f"{kind} {name!r} is not the same at all nodes ({told}); make it again, or restore the "
                "node that has lost it"
            )
        return None if first is None else _kept(first)

    async def _entries(self) -> list[dict[tuple[str, str], dict[str, Any]]]:
        """What each node shows, but for when it was made there."""
        with _sense():
            return [
                {(one["kind"], one["name"]): {**one, "created": 0.0} for one in told}
                for told in await self.client.ask_all_pages("entries")
            ]

    async def _entry(self, kind: str, name: str) -> list[dict[str, Any] | None]:
        """What each node shows of an entry, but for when it was made there; None where it is not."""
        with _sense():
            told = [one["entry"] for one in await self.client.ask("entry", [kind, name])]
            return [None if one is None else {**one, "created": 0.0} for one in told]

    async def forget(self, kind: str, name: str) -> None:
        """Drop a table, model or number of this member's."""
        if not any(await self._entry(kind, name)):
            raise StorageError(
                f"there is no {kind} {name!r} in the lake; `tercet tables` lists what there is"
            )
        await self.client.ask("forget", [kind, name])

    # -- consent ---------------------------------------------------------------------------------------------

    async def plans(self) -> list[WaitingPlan]:
        """Plans that every node has and that some node lacks approvals for."""
        answers = await self.client.ask_all_pages("plans")
        with _sense():
            first, *others = [{one["session"]: one for one in told} for told in answers]
            shown = [
                [one, *(told[session] for told in others)]
                for session, one in first.items()
                if all(session in told for told in others)
            ]
            return [_waiting(each) for each in shown if any(one["missing"] for one in each)]

    async def show(self, number: str) -> tuple[WaitingPlan, Plan]:
        """A waiting plan by its first digits. Raises ConsentError if the nodes show different ones."""
        known = [one for one in await self.plans() if one.session.hex().startswith(number)]
        if len(known) != 1 or not number:
            raise ConsentError(
                f"{len(known) or 'no'} plans that wait begin with {number!r}; `tercet plans` lists them"
            )
        answers = await self.client.ask("plan", [known[0].session])
        with _sense():
            plans = [read_plan(told["packed"]) for told in answers]
        if len({plan.digest() for plan in plans}) != 1 or plans[0].digest() != known[0].digest:
            raise ConsentError(
                f"the nodes show different plans as {number}; approve none, and tell an auditor"
            )
        return known[0], plans[0]

    async def approve(self, shown: str | WaitingPlan, *, days: float = DAYS) -> WaitingPlan:
        """Sign the digest of a waiting plan, and give the signature to all nodes.

        Raises ConsentError if `shown` is a plan that was looked at before, and another one waits now.
        """
        number = shown if isinstance(shown, str) else shown.session.hex()
        waiting, plan = await self.show(number)
        if not isinstance(shown, str) and plan.digest() != shown.digest:
            raise ConsentError(
                f"plan {shown.number} is another one than was shown before; look at it again before you sign"
            )
        if not 0 < days <= LONGEST_S / 86400:
            raise ConsentError(
                f"nothing was signed: a plan is approved for up to {LONGEST_S / 86400:g} days, not {days:g}"
            )
        approval = Approval.make(self.cluster.lake, waiting.session, plan.digest(), self.keys, days=days)
        await self.client.ask("approve", [attrs.asdict(approval)])
        return waiting

    async def refuse(self, number: str, why: str) -> WaitingPlan:
        """End a waiting plan."""
        waiting, _ = await self.show(number)
        await self.client.ask("refuse", [waiting.session, why])
        return waiting

    # -- results of others -----------------------------------------------------------------------------------

    async def received(self) -> list[Received]:
        """What others' plans have revealed to this member; the nodes keep it no longer."""
        found = await self.results()
        for session in {one.session for one in found}:
            await self.take_away(session)
        return found

    async def take_away(self, session: bytes) -> None:
        """Have the nodes keep no longer what a plan has revealed to this member."""
        await self.client.ask("received", [session])

    async def results(self) -> list[Received]:
        """What others' plans have revealed to this member, and the nodes still keep."""
        answers = await self.client.ask_all_pages("results")
        with _sense():
            first, *others = [{(one["session"], one["name"]): one for one in told} for told in answers]
            whole = {key: one for key, one in first.items() if all(key in other for other in others)}
            return [self._open([one, *(told[key] for told in others)]) for key, one in whole.items()]

    def _open(self, parts: Sequence[Mapping[str, Any]]) -> Received:
        first = parts[0]
        said = [[part[field] for field in ("sender", "plan", "name", "type")] for part in parts]
        require_agreement(str(first["plan"]), said, "a result of")
        kind = read_type(first["type"])
        opened = []
        for party, part in enumerate(parts):
            message = self.keys.open(part["sealed"], context(first["session"], first["name"], party))
            opened.append(_cut(np.frombuffer(message, dtype=np.uint64), part["shapes"]))
        protocol = self.cluster.protocol_class
        words = protocol.combine(opened, domain=kind.form.domain, shape=word_shape(kind, {}))
        values = decode(words, kind.scale) if kind.form is Form.RING else words
        return Received(first["session"], first["sender"], first["plan"], first["name"], values)

    # -- audit -----------------------------------------------------------------------------------------------

    async def audit(
        self,
        known: Mapping[str, Head] | None = None,
        *,
        again: bool = False,
        by_hash: bool = False,
        keep: bool = True,
        most: int | None = None,
    ) -> dict[str, tuple[Head, list[str]]]:
        """The audit logs of all nodes by name, verified, from the heads on that are `known` of nodes.

        `again`: from their beginning all the same, or `by_hash` as far as is known: see `Follower`. Without
        `keep`, without their lines; else with the `most` latest, of a node that writes long ones fewer.
        Raises ConsentError that names node and line, also where a log does not have the head that is known.
        """
        room, heads = most if keep else 0, known or {}
        logs = [_Log(node, heads.get(node.name, Head()), again, by_hash, room) for node in self.cluster.nodes]
        while any(log.more for log in logs):
            answers = await self.client.ask_each("audit", [[log.start] for log in logs])
            for log, told in zip(logs, answers, strict=True):
                with _sense():
                    lines, number = [str(line) for line in told["lines"]], int(told["number"])
                if log.more:
                    await trio.to_thread.run_sync(log.take, lines, number)
        return {log.node.name: (log.head, list(log.lines)) for log in logs}


@attrs.define
class _Log:
    """The log of a node, as far as it was read: to `head`, after what is `known` of it."""

    node: NodeEntry
    known: Head
    again: bool
    by_hash: bool
    room: int | None
    """How many of the latest lines are kept, None for all."""
    head: Head = attrs.field(factory=Head)
    lines: deque[str] = attrs.field(factory=deque)
    size: int = 0
    """Characters of these."""
    end: int | None = None
    """How many lines it had when it was first asked for; more may come meanwhile."""
    key: int | None = None
    """Which of its node's keys it has come to."""

    @property
    def start(self) -> int:
        """The next line to ask for: the last one that is known first, to see that it is there."""
        return max(0, self.known.lines - 1) if self.end is None and not self.again else self.head.lines

    @property
    def more(self) -> bool:
        """Whether there are lines to be read."""
        return self.end is None or self.head.lines < self.end

    def take(self, lines: list[str], number: int) -> None:
        """Verify the next lines. Raises ConsentError."""
        where = f"the audit log of {self.node.name}"
        if self.end is None:
            self.end = number
            if number < self.known.lines:
                require(Head(number), self.known, where=where)
            if not self.again:
                lines, self.head = list(lines_after(self.known, lines, where=where)), self.known
        elif not lines:
            raise ConsentError(f"{where} ends after {self.head.lines} lines, where {self.end} were announced")
        reading = Follower(
            self.node.certificates, where, self.head, self.known, self.key, by_hash=self.by_hash
        )
        for _ in reading.follow(lines):
            pass
        self.head, self.key = reading.head, reading.key
        if not self.more:
            reading.require_present_key()
        self.lines += lines
        self.size += sum(map(len, lines))
        while self.room is not None and (len(self.lines) > self.room or self.size > MOST_CHARACTERS):
            self.size -= len(self.lines.popleft())


@contextlib.contextmanager
def _sense() -> Iterator[None]:
    """Raise ProtocolError for an answer that no node of this release gives."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ProtocolError(f"what a node answered makes no sense: {error!r}; see its release") from error


def _cut(words: Words, shapes: Sequence[Sequence[int]]) -> list[Words]:
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(words, cuts), shapes, strict=True)]


def _kept(fields: Mapping[str, Any]) -> Kept:
    return Kept(
        kind=fields["kind"],
        name=fields["name"],
        owner=fields["owner"],
        body=fields["body"],
        rules=Rules.from_bytes(fields["rules"]),
        handles=tuple(fields["handles"]),
        sources=tuple(fields["sources"]),
        fingerprint=fields["fingerprint"],
        expires=fields["expires"],
    )


def _waiting(each: Sequence[Mapping[str, Any]]) -> WaitingPlan:
    """A plan, from what each node says of it."""
    fields = each[0]
    return WaitingPlan(
        binary(fields["session"]),
        alike(each, "caller"),
        alike(each, "plan"),
        binary(fields["digest"]),
        time_of(fields["asked"]),
        tuple(sorted({str(owner) for one in each for owner in one["missing"]})),
    )
