"""The course of a session at one party: the parties start, agree on keys, run the plan, and end it."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from tercet.actors.alike import differing
from tercet.actors.gate import Gate
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.actors.session import RollCall, Runner, Session
from tercet.actors.values import Outcome, Stored
from tercet.errors import PeerLost, ProtocolError, StorageError
from tercet.plans.passes import checkpoints
from tercet.plans.shards import spreads
from tercet.protocols.base import Protocol

if TYPE_CHECKING:
    from tercet.actors.party import Party
    from tercet.actors.peer import Peer

logger = logging.getLogger(__name__)

PATIENCE = 4
"""Time-outs that a party waits for peers to start a plan: they live, but may take long to read it."""


async def run_session(
    party: Party, peers: Mapping[int, Peer], session: Session, inputs: Mapping[str, Stored], gate: Gate
) -> Outcome:
    """Run a session to its end. Raises what goes wrong here; is cancelled by what goes wrong elsewhere.

    Where parties may be malicious, the outcome counts once all have said that their run has ended well, and
    there are no checkpoints: nothing of a run is kept in which somebody may still notice a lie.
    """
    for peer in peers.values():
        peer.line.post(session.own_start(peer.index, peer.key))
        if session.name in peer.early:
            session.start(peer.index, peer.early.pop(session.name))
    if gate.queues and party.index:
        await session.started_by(0)
    await _all_say(party, session.starts, "start the plan", PATIENCE * party.timeout_s)
    keys = {index: peer.key for index, peer in peers.items()}
    if damaged := session.damaged(keys):
        raise ProtocolError(
            f"what party {', '.join(map(str, damaged))} said to start the plan did not reach party "
            f"{party.index} as it was said; look at the network between them"
        )
    if unlike := session.unlike(keys):
        raise differing(party.protocol, party.index, unlike, inputs)
    protocol, witness = await _agree(party, peers, session), type(party).witness
    reached, coming = trio.open_memory_channel[tuple[int, str, Stored]](math.inf)
    options: dict[str, Any] = {
        "symbols": session.symbols,
        "trace": party.trace,
        "scratch": party.scratch,
        "reach": None if party.protocol.malicious else lambda *one: reached.send_nowait(one),
    }
    runner: Runner
    task, part = None, session.part
    if not session.in_lockstep and party.shared_out and spreads(session.plan, party.protocol):
        session.in_parts = party.in_parts(session.plan)
        task = party.workers().share_out(session, session.in_parts)
        part = task.part
    if witness is not None:
        options["witness"] = witness(session.plan, protocol, inputs, part)
    if session.in_lockstep:
        send = functools.partial(party.send_frames, session.name)
        runner = Lockstep(session.plan, protocol, inputs, send=send, **options)
    else:
        send_messages = functools.partial(party.send, session.name)
        runner = Scheduler(
            session.plan,
            protocol,
            inputs,
            send=send_messages,
            threads=party.threads,
            part=part,
            **options,
        )
    session.begin(runner)
    if part is not None:
        part.begun()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_checkpoints, party.name, session, gate, coming)
        outcome = await runner.run()
        nursery.cancel_scope.cancel()
    if task is not None:
        # Workers themselves wait so long for those of the other parties.
        patience = 2 * PATIENCE * party.timeout_s + outcome.statistics.seconds
        await task.end(outcome.statistics, patience)
    if party.protocol.malicious:
        for peer in peers.values():
            peer.line.post(["done", session.name])
        # The others had as much to do as this party, and may be slower.
        patience = PATIENCE * party.timeout_s + outcome.statistics.seconds
        await _all_say(party, session.ends, "say that its run has ended well", patience)
    return outcome


async def _agree(party: Party, peers: Mapping[int, Peer], session: Session) -> Protocol:
    """The protocol with the session's keys, once all peers have confirmed those of groups."""
    if party.protocol.group_keys:
        for index, message in session.own_confirmations().items():
            peers[index].line.post(message)
        await _all_say(party, session.confirmations, "confirm its keys", PATIENCE * party.timeout_s)
    keys = {index: session.key_with(index, peer.key) for index, peer in peers.items()}
    if not keys:
        keys = {party.index: session.key_with(party.index, session.own.nonce)}
    protocol = party.protocol(party=party.index, parties=party.parties, keys=keys)
    protocol.groups = session.group_keys()
    return protocol


async def _all_say(party: Party, call: RollCall, what: str, patience: float) -> None:
    """Wait until all peers have said what they are to say. Raises PeerLost if they do not in time."""
    if missing := [party.called(peer) for peer in await call.wait(patience)]:
        raise PeerLost(
            f"{', '.join(missing)} did not {what} within {patience:.3g} s: it, or one that it waits for, "
            "stalled; see the logs of the nodes",
            peer=missing[0],
        )


async def _keep_checkpoints(
    name: str, session: Session, gate: Gate, coming: trio.MemoryReceiveChannel[tuple[int, str, Stored]]
) -> None:
    """Hand checkpoints to the gate when all their values have come; the run does not wait for that."""
    wanted, found = checkpoints(session.plan), dict[int, dict[str, Stored]]()
    async for point, value, stored in coming:
        values = found.setdefault(point, {})
        values[value] = stored
        if values.keys() == wanted[point]:
            try:
                await gate.reached(session.caller, session.name, point, found.pop(point))
            except StorageError as error:
                logger.warning("%s: checkpoint %d was not kept: %s", name, point, error)


__all__ = ["run_session"]
