"""Transcripts: all that the parties of a run were given, said and heard, to be read, drawn and replayed.

While `recording` is on, nodes and workers that are tasks of this process keep a tape of every session: plan,
keys, stored inputs, each message with its time, and what came out. So one of them can run again alone; see
`replay`. Of what it said itself a tape has digests, which tell whether that says the same.

Words lie in memory, or in a file, if recordings are to be longer than that, or to be read by other processes.

A transcript holds every party's keys and shares, and so every secret. It is for debugging and for teaching,
on data that are not secret; nothing that a client can send to a node turns it on.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgpack
import numpy as np

from tercet.actors.parts import Handover, Parcel, Parcels, Part
from tercet.actors.party import Party
from tercet.actors.storage import Written
from tercet.actors.tracing import Message
from tercet.actors.values import Outcome, Stored, read_type, type_fields
from tercet.actors.word_files import FiledWords, WordFile
from tercet.errors import PlanError
from tercet.plans.drawing import to_svg
from tercet.plans.parsing import read_plan
from tercet.plans.plan import Plan
from tercet.plans.shards import NODE
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
        if isinstance(self.arrays, FiledWords):
            return sum(math.prod(shape) for _, shape in self.arrays.places)
        return sum(array.size for array in self.arrays)


@attrs.frozen(eq=False)
class Received:
    """What another member of the party sent, as it came: its header and words, of a parcel or of `rows`.

    See `parts`. `after` is how many messages and parcels the receiver had sent by then.
    """

    rows: bool
    header: Sequence[Any]
    arrays: Sequence[Words]
    after: int

    def read(self) -> Parcel | Handover:
        """The same again."""
        flat = [array.reshape(-1) for array in self.arrays]
        words = np.concatenate(flat) if flat else np.empty(0, dtype=np.uint64)
        return (Handover if self.rows else Parcel).read(self.header, words)


@attrs.frozen
class Said:
    """What a party sent: to a peer, or `inside` the party to another member.

    `of` is a message's (node, tile, step), a parcel's (node, output, tile, tiles), or (node, exchange,
    sender) of rows that workers hand to each other; `digest` is of the words.
    """

    inside: bool
    to: int
    of: tuple[int, ...]
    words: int
    digest: bytes


@attrs.define(eq=False)
class Tape:
    """One session of one party, or of one member of it: all that it was given, and what came out."""

    plan: Plan
    protocol: str
    party: int
    parties: int
    keys: Mapping[int, bytes]
    inputs: Mapping[str, Stored]
    groups: Mapping[int, bytes] = attrs.field(factory=dict)
    """Keys of all parties but one, by that party."""
    member: int = NODE
    workers: int = 0
    """How many share the run out, beside the node."""
    heard: list[Spoken] = attrs.field(factory=list)
    received: list[Received] = attrs.field(factory=list)
    said: Counter[Said] = attrs.field(factory=Counter)
    stored: Mapping[str, Stored] | None = None
    """What the run left; None if it did not end."""
    symbols: Mapping[str, int] = attrs.field(factory=dict)
    seconds: float = 0.0


# -- recording -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def recording(parties: Sequence[int] | None = None, *, file: Path | None = None) -> Iterator[list[Tape]]:
    """While inside, sessions in this process are recorded, of these parties or of all, and of their workers.

    Words go to a `file`, which should be new, or stay in memory without one. Yields the list that tapes are
    added to as sessions begin.
    """
    tapes: list[Tape] = []
    words = None if file is None else WordFile(file)

    def witness(
        plan: Plan, protocol: Protocol, inputs: Mapping[str, Stored], part: Part | None
    ) -> Recording | None:
        if parties is not None and protocol.party not in parties:
            return None
        tape = Tape(
            plan,
            protocol.name,
            protocol.party,
            protocol.parties,
            keys=dict(protocol.keys),
            inputs=_kept(inputs, words),
            groups=dict(protocol.groups),
            member=NODE if part is None else part.member,
            workers=0 if part is None else part.workers,
        )
        tapes.append(tape)
        return Recording(tape, words)

    before, Party.witness = Party.witness, staticmethod(witness)
    try:
        yield tapes
    finally:
        Party.witness = before


def _kept(values: Mapping[str, Stored], words: WordFile | None) -> dict[str, Stored]:
    if words is None:
        return dict(values)
    return {handle: words.add_stored(value) for handle, value in values.items()}


class Sayings:
    """A witness that keeps digests of what is said; `seconds` of its thread is what that has taken."""

    def __init__(self) -> None:
        self.said: Counter[Said] = Counter()
        self.count = 0
        self.seconds = 0.0

    def begin(self) -> None:
        """As `Witness.begin`."""

    def hear(self, peer: int, node: int, tile: int, step: int, arrays: Sequence[Words]) -> None:
        """As `Witness.hear`."""

    def receive(self, parcel: Parcel | Handover) -> None:
        """As `Witness.receive`."""

    def say(self, outbox: Mapping[int, Sequence[Message]], parcels: Parcels) -> None:
        """As `Witness.say`."""
        began = time.thread_time()
        for peer, messages in outbox.items():
            for *of, arrays in messages:
                self._note(inside=False, to=peer, of=tuple(of), arrays=arrays)
        for member, some in parcels.items():
            for parcel in some:
                if isinstance(parcel, Parcel) and isinstance(parcel.data, Written):
                    continue  # what a worker wrote is in the storage
                header, arrays = parcel.to_wire()
                of = header[:3] if isinstance(parcel, Handover) else header[:4]
                self._note(inside=True, to=member, of=tuple(of), arrays=arrays)
        self.seconds += time.thread_time() - began

    def _note(self, *, inside: bool, to: int, of: tuple[int, ...], arrays: Sequence[Words]) -> None:
        digest, words = hashlib.blake2b(digest_size=16), 0
        for array in arrays:
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
            words += array.size
        self.said[Said(inside, to, of, words, digest.digest())] += 1
        self.count += 1

    def end(self, outcome: Outcome) -> None:
        """As `Witness.end`."""


class Recording(Sayings):
    """A witness that keeps a tape."""

    def __init__(self, tape: Tape, words: WordFile | None) -> None:
        super().__init__()
        self.said = tape.said
        self._tape = tape
        self._words = words
        self._began: float | None = None

    def begin(self) -> None:
        """As `Witness.begin`."""
        self._began = time.perf_counter()

    def hear(self, peer: int, node: int, tile: int, step: int, arrays: Sequence[Words]) -> None:
        """As `Witness.hear`."""
        at = 0.0 if self._began is None else time.perf_counter() - self._began
        self._tape.heard.append(Spoken(peer, node, tile, step, self._keep(arrays), at))

    def receive(self, parcel: Parcel | Handover) -> None:
        """As `Witness.receive`."""
        header, arrays = parcel.to_wire()
        rows = isinstance(parcel, Handover)
        self._tape.received.append(Received(rows, header, self._keep(arrays), self.count))

    def _keep(self, arrays: Sequence[Words]) -> Sequence[Words]:
        return arrays if self._words is None else self._words.add(arrays)

    def end(self, outcome: Outcome) -> None:
        """As `Witness.end`."""
        self._tape.stored, self._tape.symbols = _kept(outcome.stored, self._words), dict(outcome.symbols)
        self._tape.seconds = outcome.statistics.seconds


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
        protocol = registry.get(tape.protocol)
        workers = 0 if tape.member == NODE else tape.workers
        symbols = {**tape.plan.maxima, **tape.symbols}
        layout = Layout(tape.plan, symbols, workers=workers, protocol=protocol)
        starts, _ = schedule(Costs(layout, protocol, tape.parties))
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
    """Tapes by run: those of parties that ran the same plan together, in the order in which runs began.

    Workers of one number run together as nodes do, and are a run of their own.
    """
    found: list[list[Tape]] = []
    for tape in tapes:
        together = next(
            (
                run
                for run in found
                if run[0].plan.digest() == tape.plan.digest()
                and run[0].member == tape.member
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
        "member": tape.member,
        "workers": tape.workers,
        "received": [
            [one.rows, one.header, one.after, [_pack_words(array) for array in one.arrays]]
            for one in tape.received
        ],
        "said": [[*attrs.astuple(one), times] for one, times in tape.said.items()],
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
        member=fields.get("member", NODE),
        workers=fields.get("workers", 0),
        received=[
            Received(rows, header, [_unpack_words(array) for array in arrays], after)
            for rows, header, after, arrays in fields.get("received", ())
        ],
        said=Counter(
            {
                Said(inside, to, tuple(of), words, digest): times
                for inside, to, of, words, digest, times in fields.get("said", ())
            }
        ),
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
    "Received",
    "Said",
    "Sayings",
    "Spoken",
    "Tape",
    "conversation",
    "draw",
    "load",
    "recording",
    "runs",
    "save",
]
