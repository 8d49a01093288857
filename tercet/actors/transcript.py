"""Transcripts: all that the parties of a run were given, said and heard, to be read, drawn and replayed.

While `recording` is on, nodes that are tasks of this process keep a tape of every session: plan, keys, stored
inputs, each message with its time, and what came out. A party can then run again alone, with the same keys,
while its peers' messages lie ready; since all randomness has names, it must end in the very same shares.

A transcript holds every party's keys and shares, and so every secret. It is for debugging and for teaching,
on data that are not secret; nothing that a client can send to a node turns it on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgpack
import numpy as np
import trio

from tercet.actors.line import first_cause
from tercet.actors.lowering import runs_in_lockstep
from tercet.actors.party import Party
from tercet.actors.rounds import Frames, Lockstep
from tercet.actors.scheduler import Message, Scheduler
from tercet.actors.values import Outcome, Stored, read_type, type_fields
from tercet.errors import PlanError, ProtocolError
from tercet.plans.drawing import to_svg
from tercet.plans.parsing import read_plan
from tercet.plans.plan import Plan
from tercet.plans.tiles import Costs, Layout, schedule
from tercet.protocols import registry
from tercet.protocols.base import WORD_BYTES, Protocol, Share
from tercet.protocols.domains import DOMAINS, Words

FORMAT = "tercet transcript 1"


@attrs.frozen(eq=False)
class Spoken:
    """A message as its receiver heard it: who sent it, for which instance and step, the words, and when.

    `at` is in seconds since the receiver's run began; messages that came before are at zero.
    """

    sender: int
    node: int
    tile: int
    step: int
    arrays: Sequence[Words]
    at: float

    @property
    def words(self) -> int:
        """How many words it has."""
        return sum(array.size for array in self.arrays)


@attrs.define(eq=False)
class Tape:
    """One session of one party: all that its scheduler was given, and what came out."""

    plan: Plan
    protocol: str
    party: int
    parties: int
    keys: Mapping[int, bytes]
    inputs: Mapping[str, Stored]
    groups: Mapping[int, bytes] = attrs.field(factory=dict)
    """Keys of all parties but one, by that party."""
    heard: list[Spoken] = attrs.field(factory=list)
    stored: Mapping[str, Stored] | None = None
    """What the run left; None if it did not end."""
    symbols: Mapping[str, int] = attrs.field(factory=dict)
    seconds: float = 0.0


@attrs.frozen(eq=False)
class Replay:
    """What became of a party that ran again alone; `differing` counts words unlike the recorded ones."""

    seconds: float
    outcome: Outcome
    differing: int


# -- recording -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def recording(parties: Sequence[int] | None = None) -> Iterator[list[Tape]]:
    """While inside, sessions of nodes in this process are recorded, of these parties or of all.

    Yields the list that tapes are added to as sessions begin.
    """
    tapes: list[Tape] = []

    def witness(plan: Plan, protocol: Protocol, inputs: Mapping[str, Stored]) -> Recording | None:
        if parties is not None and protocol.party not in parties:
            return None
        keys, groups = dict(protocol.keys), dict(protocol.groups)
        tape = Tape(plan, protocol.name, protocol.party, protocol.parties, keys, dict(inputs), groups)
        tapes.append(tape)
        return Recording(tape)

    before, Party.witness = Party.witness, staticmethod(witness)
    try:
        yield tapes
    finally:
        Party.witness = before


@attrs.define(eq=False)
class Recording:
    """A witness that keeps a tape."""

    tape: Tape
    began: float | None = None

    def begin(self) -> None:
        """As `Witness.begin`."""
        self.began = time.perf_counter()

    def hear(self, peer: int, node: int, tile: int, step: int, arrays: Sequence[Words]) -> None:
        """As `Witness.hear`."""
        at = 0.0 if self.began is None else time.perf_counter() - self.began
        self.tape.heard.append(Spoken(peer, node, tile, step, arrays, at))

    def end(self, outcome: Outcome) -> None:
        """As `Witness.end`."""
        self.tape.stored, self.tape.symbols = outcome.stored, dict(outcome.symbols)
        self.tape.seconds = outcome.statistics.seconds


# -- replaying -----------------------------------------------------------------------------------------------


class _Retold(Lockstep):
    """A small plan's run, which hears what a tape has."""

    def __init__(self, tape: Tape, protocol: Protocol) -> None:
        super().__init__(tape.plan, protocol, tape.inputs, send=self._discard)
        self._heard = {(one.sender, one.node, one.step): one.arrays for one in tape.heard}

    async def _discard(self, _: int, frames: Frames) -> None:
        await _discard({peer: [(0, 0, 0, arrays)] for peer, arrays in frames.items()})

    async def _frames(self) -> dict[int, Words]:
        await trio.lowlevel.checkpoint()
        found: dict[int, list[Words]] = {}
        for instance in self._active:
            for peer, shapes in instance.awaits.recv.items():
                if any(map(math.prod, shapes)):
                    name = (peer, instance.task.index, instance.step)
                    if name not in self._heard:
                        title = instance.task.node.title(instance.task.index)
                        raise ProtocolError(f"the recording lacks what party {peer} said of {title}")
                    found.setdefault(peer, []).extend(array.reshape(-1) for array in self._heard[name])
        return {peer: np.concatenate(arrays) for peer, arrays in found.items()}


async def _discard(outbox: Mapping[int, Sequence[Message]]) -> None:
    for messages in outbox.values():
        for *_, arrays in messages:
            for array in arrays:
                np.ascontiguousarray(array)
    await trio.lowlevel.checkpoint()


async def replay(tape: Tape, *, threads: int = 1) -> Replay:
    """Run a recorded party alone; what it sends goes nowhere.

    Raises what its operations raise, and ProtocolError if the recorded run did not end.
    """
    made = registry.get(tape.protocol)(party=tape.party, parties=tape.parties, keys=tape.keys)
    made.groups = tape.groups
    runner: Scheduler | _Retold
    if runs_in_lockstep(tape.plan):
        runner = _Retold(tape, made)
    else:
        runner = Scheduler(tape.plan, made, tape.inputs, send=_discard, threads=threads)
        for one in tape.heard:
            runner.deliver(one.sender, one.node, one.tile, one.step, list(one.arrays))
    began = time.perf_counter()
    try:
        outcome = await runner.run()
    except BaseExceptionGroup as group:
        raise first_cause(group) from group
    return Replay(time.perf_counter() - began, outcome, _differing(tape, outcome))


def _differing(tape: Tape, replayed: Outcome) -> int:
    if tape.stored is None or tape.stored.keys() != replayed.stored.keys():
        raise ProtocolError(
            f"the recorded run of plan {tape.plan.name!r} did not end, or stored something else"
        )
    return sum(
        int(np.count_nonzero(one.data != other.data))
        for handle, ours in tape.stored.items()
        for one, other in zip(ours.tiles, replayed.stored[handle].tiles, strict=True)
    )


# -- reading -------------------------------------------------------------------------------------------------


@attrs.frozen
class Line:
    """What one party said to another in one round, of one node of a plan; tiles together."""

    round: int
    sender: int
    receiver: int
    node: str
    tiles: int
    words: int
    at: float

    def __str__(self) -> str:
        tiles = f", {self.tiles} tiles" if self.tiles > 1 else ""
        return (
            f"round {self.round:>4}  party {self.sender} -> party {self.receiver}  "
            f"{self.words * WORD_BYTES:>12,} bytes  {self.at * 1e3:>9.2f} ms  {self.node}{tiles}"
        )


def conversation(tapes: Sequence[Tape]) -> list[Line]:
    """Who said what in which round of one run, from the tapes of its parties.

    A round counts along the longest way through the plan, as `explain` counts; in sorts, whose rounds hang on
    a random permutation, those after are numbered as expected.
    """
    lines: dict[tuple[int, int, int, int], Line] = {}
    for tape in tapes:
        layout = Layout(tape.plan, {**tape.plan.maxima, **tape.symbols})
        starts, _ = schedule(Costs(layout, registry.get(tape.protocol), tape.parties))
        for one in tape.heard:
            number = starts[one.node][one.tile] + one.step + 1
            key = (number, one.sender, tape.party, one.node)
            old = lines.get(key)
            title = tape.plan.nodes[one.node].title(one.node)
            words, tiles = (0, 0) if old is None else (old.words, old.tiles)
            at = one.at if old is None else max(old.at, one.at)
            lines[key] = Line(number, one.sender, tape.party, title, tiles + 1, words + one.words, at)
    return [lines[key] for key in sorted(lines)]


def runs(tapes: Sequence[Tape]) -> list[list[Tape]]:
    """Tapes by run: those of parties that ran the same plan together, in the order in which runs began."""
    found: list[list[Tape]] = []
    for tape in tapes:
        together = next(
            (
                run
                for run in found
                if run[0].plan.digest() == tape.plan.digest()
                and len(run) < tape.parties
                and tape.party not in {one.party for one in run}
            ),
            None,
        )
        found.append([tape]) if together is None else together.append(tape)
    return [sorted(run, key=lambda tape: tape.party) for run in found]


def draw(tapes: Sequence[Tape]) -> str:
    """The plan of one run as an SVG, its rows by rounds, with the bytes that were sent for each node."""
    first = tapes[0]
    sent: dict[int, int] = {}
    for tape in tapes:
        for one in tape.heard:
            sent[one.node] = sent.get(one.node, 0) + one.words * WORD_BYTES
    notes = {node: f"{size:,} bytes" for node, size in sent.items()}
    return to_svg(first.plan, first.protocol, first.parties, symbols=first.symbols, notes=notes)


# -- files ---------------------------------------------------------------------------------------------------


def save(tapes: Sequence[Tape], path: str | Path) -> None:
    """Write tapes to a file that only its owner can read: it holds every secret. Raises OSError."""
    packed: bytes = msgpack.packb([FORMAT, [_pack(tape) for tape in tapes]])
    Path(path).touch(mode=0o600)
    Path(path).write_bytes(packed)


def load(path: str | Path) -> list[Tape]:
    """Read tapes from a file. Raises OSError, and PlanError for a file that is no transcript."""
    try:
        name, tapes = msgpack.unpackb(Path(path).read_bytes(), strict_map_key=False)
        if name != FORMAT:
            raise ValueError(f"its first word is {name!r:.40}")
        return [_unpack(fields) for fields in tapes]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise PlanError(f"{path} is no transcript that this version reads ({error})") from error


def _pack(tape: Tape) -> dict[str, Any]:
    return {
        "plan": tape.plan.to_bytes(),
        "protocol": tape.protocol,
        "party": tape.party,
        "parties": tape.parties,
        "keys": dict(tape.keys),
        "groups": dict(tape.groups),
        "inputs": {handle: _pack_stored(value) for handle, value in tape.inputs.items()},
        "heard": [
            [one.sender, one.node, one.tile, one.step, one.at, [_pack_words(array) for array in one.arrays]]
            for one in tape.heard
        ],
        "stored": None
        if tape.stored is None
        else {handle: _pack_stored(value) for handle, value in tape.stored.items()},
        "symbols": dict(tape.symbols),
        "seconds": tape.seconds,
    }


def _unpack(fields: Mapping[str, Any]) -> Tape:
    stored = fields["stored"]
    return Tape(
        plan=read_plan(fields["plan"]),
        protocol=fields["protocol"],
        party=fields["party"],
        parties=fields["parties"],
        keys=fields["keys"],
        groups=fields.get("groups", {}),
        inputs={handle: _unpack_stored(value) for handle, value in fields["inputs"].items()},
        heard=[
            Spoken(sender, node, tile, step, [_unpack_words(array) for array in arrays], at)
            for sender, node, tile, step, at, arrays in fields["heard"]
        ],
        stored=None
        if stored is None
        else {handle: _unpack_stored(value) for handle, value in stored.items()},
        symbols=fields["symbols"],
        seconds=fields["seconds"],
    )


def _pack_words(words: Words) -> list[Any]:
    return [list(words.shape), np.ascontiguousarray(words).astype("<u8").tobytes()]


def _unpack_words(fields: Sequence[Any]) -> Words:
    shape, words = fields
    return np.frombuffer(words, dtype="<u8").astype(np.uint64).reshape(shape)


def _pack_stored(value: Stored) -> list[Any]:
    tiles = [[tile.domain.name, tile.scale, _pack_words(tile.data)] for tile in value.tiles]
    return [type_fields(value.type), value.tile_rows, tiles]


def _unpack_stored(fields: Sequence[Any]) -> Stored:
    kind, tile_rows, tiles = fields
    shares = [Share(DOMAINS[domain], _unpack_words(data), scale) for domain, scale, data in tiles]
    return Stored(read_type(kind), shares, tile_rows)


__all__ = [
    "Line",
    "Replay",
    "Spoken",
    "Tape",
    "conversation",
    "draw",
    "load",
    "recording",
    "replay",
    "runs",
    "save",
]
