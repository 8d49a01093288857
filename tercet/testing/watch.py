"""Protocols under observation: what the conformance suite runs, and what it notes meanwhile.

A protocol under test gets `Watch` mixed in. It notes every random stream that a party draws, and what is
opened by whom under which allowance; it changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from tercet.errors import PrivacyError, ProtocolError
from tercet.protocols.base import Op, Protocol, Share
from tercet.protocols.domains import Words
from tercet.protocols.prg import Stream
from tercet.testing.lockstep import LockstepResult, lockstep, parties, reconstruct, share
from tercet.testing.operations import Exports, Operation, Secret, zeros

MOST_BYTES = 1 << 22
"""What all parties may send in one experiment, a round counting as `ROUND_BYTES`: defaults are slow."""
ROUND_BYTES = 1 << 12


@attrs.define(eq=False)
class Notes:
    """What one party did.

    Streams that it drew, words that `opening` may still open, what masks hid, and what `compare` heard of
    peers who hold the same words, which says nothing new. Within `look`, also all words that it drew, opened
    and multiplied, and those drawn by themselves.
    """

    streams: set[tuple[bytes, str, str]] = attrs.field(factory=set)
    allowed: int = 0
    masked: list[Words] = attrs.field(factory=list)
    compared: set[bytes] = attrs.field(factory=set)
    view: list[Words] | None = None
    drawn: list[Words] = attrs.field(factory=list)

    def see(self, words: Words) -> None:
        """Keep words, within `look`."""
        if self.view is not None:
            self.view.append(words)


class Seen(Stream):
    """A stream whose words are kept."""

    def __init__(self, stream: Stream, notes: Notes) -> None:
        self._stream = stream
        self._notes = notes

    def fill(self, out: Words) -> Words:
        """The next words, which are kept."""
        self._stream.fill(out)
        self._notes.drawn.append(out.copy())
        self._notes.see(self._notes.drawn[-1])
        return out


class Watch:
    """Mixed into a protocol under test."""

    @property
    def notes(self) -> Notes:
        """The party's notes, shared by all that `bind` makes of it."""
        found: Notes = self.__dict__.setdefault("_notes", Notes())
        return found

    def stream(self, key: bytes, tag: str, purpose: str) -> Any:
        """Note the name of a stream; ProtocolError for one that was drawn before."""
        if (key, tag, purpose) in self.notes.streams:
            raise ProtocolError(
                f"the stream {purpose!r} of {tag!r} was drawn twice by one party; a mask would repeat"
            )
        self.notes.streams.add((key, tag, purpose))
        stream = super().stream(key, tag, purpose)  # type: ignore[misc]
        return stream if self.notes.view is None else Seen(stream, self.notes)

    def mul_local(self, x: Share, y: Share) -> Any:
        """Note what a party multiplies by itself."""
        product = super().mul_local(x, y)  # type: ignore[misc]
        self.notes.see(product.data)
        return product

    def matmul_local(self, x: Share, y: Share) -> Any:
        """Note what a party multiplies by itself."""
        product = super().matmul_local(x, y)  # type: ignore[misc]
        self.notes.see(product.data)
        return product

    def mul(self, x: Share, y: Share) -> Any:
        """Note what a party multiplies by itself, which need not come by `mul_local`."""
        if self.notes.view is not None:
            self.mul_local(x, y)
        return super().mul(x, y)  # type: ignore[misc]

    def open(self, x: Share) -> Any:
        """Allow `opening` what `open` has counted."""
        opening = super().open(x)  # type: ignore[misc]
        self.notes.allowed += x.size
        return opening

    def open_masked(self, x: Share, mask: Share) -> Any:
        """Allow `opening` a masked value, and note it."""
        opening = super().open_masked(x, mask)  # type: ignore[misc]

        def noted() -> Op[Words]:
            self.notes.allowed += x.size
            opened: Words = yield from opening
            self.notes.masked.append(opened.reshape(-1))
            self.notes.see(opened)
            return opened

        return noted()

    def compare(self, known: Mapping[int, Words]) -> Any:
        """Note what peers said, once it was found to be what this party expected."""
        comparing = super().compare(known)  # type: ignore[misc]

        def noted() -> Op[None]:
            heard: list[bytes] = []
            try:
                step = next(comparing)
                while True:
                    got = yield step
                    heard += [words.tobytes() for arrays in got.values() for words in arrays]
                    step = comparing.send(got)
            except StopIteration:
                self.notes.compared.update(heard)

        return noted()

    def opening(self, x: Share) -> Any:
        """PrivacyError beyond what was allowed."""
        opening = super().opening(x)  # type: ignore[misc]

        def counted() -> Op[Words]:
            # A generator body: `open` and `open_masked` have counted by the time it starts.
            if self.notes.allowed < x.size:
                raise PrivacyError(
                    f"{x.size} words are opened by `opening`, past the count that `open` keeps"
                )
            self.notes.allowed -= x.size
            result: Words = yield from opening
            return result

        return counted()


def watched(cls: type[Protocol]) -> type[Protocol]:
    """The protocol with `Watch` mixed in."""
    return cls if issubclass(cls, Watch) else type(cls.__name__, (Watch, cls), {})


def notes(protocol: Protocol) -> Notes:
    """What a watched party noted; nothing for one that is not watched."""
    return protocol.notes if isinstance(protocol, Watch) else Notes()


def observe(session: Sequence[Protocol]) -> list[Protocol]:
    """Make the notes of all parties now, before `bind` copies them."""
    for protocol in session:
        notes(protocol)
    return list(session)


def new_session(cls: type[Protocol], count: int, *, seed: bytes | None = None) -> list[Protocol]:
    """The parties of a session, under observation if the protocol is."""
    return observe(parties(cls, count, seed=seed))


@contextlib.contextmanager
def look(session: Sequence[Protocol]) -> Iterator[list[list[Words]]]:
    """Keep what each party draws, opens and multiplies meanwhile, if it is under observation."""
    views: list[list[Words]] = [[] for _ in session]
    for protocol, view in zip(session, views, strict=True):
        notes(protocol).view = view
    try:
        yield views
    finally:
        for protocol in session:
            notes(protocol).view = None
            notes(protocol).drawn.clear()


def drawn(protocol: Protocol) -> list[Words]:
    """What a party has drawn since `look` began, an array a draw."""
    return notes(protocol).drawn


def run(
    session: Sequence[Protocol],
    operation: Operation,
    shares: Sequence[list[Share]],
    *,
    name: str,
    dealer: int,
) -> tuple[LockstepResult[list[Any]], list[Protocol]]:
    """One operation between all parties, under a name of its own, and the parties bound to it."""
    allowance = operation.openings(shares[0])
    bound = [protocol.bind(name, dealer=dealer, openings=allowance) for protocol in session]
    return lockstep([operation.run(p, list(s)) for p, s in zip(bound, shares, strict=True)]), bound


def share_all(session: Sequence[Protocol], secrets: Sequence[Secret]) -> list[list[Share]]:
    """Each party's shares of all secrets."""
    dealt = [share(session, secret.words, domain=secret.domain, scale=secret.scale) for secret in secrets]
    return [[column[party] for column in dealt] for party in range(len(session))]


def results(session: Sequence[Protocol], found: Sequence[list[Any]]) -> Iterator[Words]:
    """The values of an operation's results. ProtocolError if parties see different openings."""
    for index, first in enumerate(found[0]):
        if isinstance(first, Share):
            yield reconstruct(session, [result[index] for result in found])
        elif isinstance(first, Exports):
            parts = [result[index].arrays for result in found]
            yield type(session[0]).combine(parts, domain=first.domain, shape=first.shape)
        elif all(np.array_equal(first, result[index]) for result in found):
            yield first
        else:
            raise ProtocolError("parties see different values of one opening")


def affordable(protocol: Protocol, operation: Operation, rows: int, *, most: int = MOST_BYTES) -> bool:
    """Whether an operation on so many rows sends little enough for an experiment; one row always does."""
    inputs = operation.inputs(zeros, rows)
    specs = [protocol.spec(one.words.shape, domain=one.domain, scale=one.scale) for one in inputs]
    cost = operation.cost(protocol, specs)
    return rows <= 1 or cost.total + cost.rounds * ROUND_BYTES <= most


__all__ = [
    "Notes",
    "Watch",
    "affordable",
    "drawn",
    "look",
    "new_session",
    "notes",
    "observe",
    "results",
    "run",
    "share_all",
    "watched",
]
