"""Defects that can be planted into any protocol, each by a function from a class to a subclass of it.

Those that need to know more of a protocol than `Protocol` says are beside the test that uses them.
"""

from __future__ import annotations

import math

import numpy as np

from tercet.protocols import kernels
from tercet.protocols.base import Cost, Round, declared
from tercet.protocols.domains import Z64
from tercet.protocols.prg import Stream

WORD = 8


def like(method):
    """The cost of an inherited method: what a defect adds is not declared, for other parts to find."""
    return declared(method.declared_cost)


class Cycle(Stream):
    """A stream whose words come again."""

    def __init__(self, stream, period):
        self._stream, self._words, self._at, self._period = stream, None, 0, period

    def fill(self, out):
        if self._words is None:
            self._words = self._stream.words((self._period,))
        places = (self._at + np.arange(out.size)) % self._period
        self._at += out.size
        out[...] = self._words[places].reshape(out.shape)
        return out


class Again(Stream):
    """A stream that gives every array the words of the first."""

    def __init__(self, make):
        self._make = make

    def fill(self, out):
        return self._make().fill(out)


class Zeros(Stream):
    """No masks."""

    def __init__(self):
        pass

    def fill(self, out):
        out[...] = 0
        return out


def streams(base, change):
    """A protocol whose streams are others: `change(self, key, tag, purpose)`, or None to leave one."""

    class Mutant(base):
        def stream(self, key, tag, purpose):
            made = super().stream(key, tag, purpose)
            return change(self, made, key, tag, purpose) or made

    return Mutant


def masks_repeat(base, period=4096):
    return streams(base, lambda self, made, *_: Cycle(made, period))


def one_mask_for_every_operation(base):
    return streams(base, lambda self, made, key, tag, purpose: Stream(key, purpose.encode()))


def one_mask_for_every_purpose(base):
    return streams(base, lambda self, made, key, tag, purpose: Stream(key, tag.encode()))


def one_stream_for_two_arrays(base):
    def change(self, made, key, tag, purpose):
        return Again(lambda: Stream(key, f"{tag}/{purpose}".encode()))

    return streams(base, change)


def keys_are_constant(base):
    return streams(base, lambda self, made, key, tag, purpose: Stream(bytes(32), f"{tag}/{purpose}".encode()))


def keys_are_one_byte(base):
    return streams(
        base, lambda self, made, key, tag, purpose: Stream(key[:1] * 32, f"{tag}/{purpose}".encode())
    )


def no_masks_of(base, purpose, when=lambda self, key: True):
    """Streams for purposes that begin like this are zeros, for all keys or some."""

    def change(self, made, key, tag, found):
        return Zeros() if found.startswith(purpose) and when(self, key) else None

    return streams(base, change)


def order_of_execution(base):
    """Randomness is named by how many tags were made before, by all parties."""
    made = {"count": 0}

    class Mutant(base):
        def tag(self):
            made["count"] += 1
            return f"{made['count'] // self.parties}"

    return Mutant


# -- what is told --------------------------------------------------------------------------------------------


def summand_to_everybody(base):
    """What a party holds of a product's result is sent to all others."""

    class Mutant(base):
        @like(base.reduce)
        def reduce(self, x):
            z = yield from super().reduce(x)
            peers = [party for party in range(self.parties) if party != self.party]
            yield Round({peer: [z.data] for peer in peers}, {peer: [z.data.shape] for peer in peers})
            return z

    return Mutant


def _told(protocol, x, receiver, teller, *, summands):
    """A round in which a party is told words that it lacks: by one party, or in two summands by two."""
    helper = next(p for p in range(protocol.parties) if p not in (receiver, teller))
    words = x.data
    tag, senders = protocol.tag(), [teller, helper] if summands else [teller]
    send = {}
    if protocol.party in senders:
        mask = np.zeros_like(words)
        if summands:
            mask = protocol.draw_with(teller + helper - protocol.party, tag, "told", words.shape)
        send = {receiver: [x.domain.subtract(words, mask) if protocol.party == teller else mask]}
    recv = {sender: [words.shape] for sender in senders} if protocol.party == receiver else {}
    yield Round(send, recv)


def gate_told_to_the_dealer(base, *, summands):
    """All words that another party holds of a truncated value."""

    class Mutant(base):
        @like(base.truncate)
        def truncate(self, x, bits):
            y = yield from super().truncate(x, bits)
            yield from _told(self, y, self.dealer, (self.dealer + 1) % self.parties, summands=summands)
            return y

    return Mutant


def opened_told_to(base, receiver, *, summands):
    """What is opened under a mask that the receiver knows: here the shares before the mask is added."""

    class Mutant(base):
        @like(base.bits_to_ring)
        def bits_to_ring(self, x, count):
            yield from _told(self, x, receiver, (receiver + 1) % self.parties, summands=summands)
            return (yield from super().bits_to_ring(x, count))

    return Mutant


def fresh_told(base, receiver=0):
    """The party that must lack a word of fresh ones is told it."""

    class Mutant(base):
        @like(base.fresh)
        def fresh(self, shape, *, domain=Z64):
            x = yield from super().fresh(shape, domain=domain)
            yield from _told(self, x, receiver, (receiver + 1) % self.parties, summands=False)
            return x

    return Mutant


def length_depends_on_a_secret(base):
    class Mutant(base):
        @like(base.reduce)
        def reduce(self, x):
            loud = bool(x.data.any() and int(x.data.reshape(-1)[0]) & 1)
            z = yield from super().reduce(x)
            yield Round({1: [np.zeros(1 + loud, dtype=np.uint64)]} if self.party == 0 else {})
            return z

    return Mutant


# -- what is declared ----------------------------------------------------------------------------------------


def fresh_declares_nothing(base):
    class Mutant(base):
        @declared(lambda self, *_, **__: self.free())
        def fresh(self, shape, *, domain=Z64):
            return super().fresh(shape, domain=domain)

    return Mutant


def fresh_takes_a_round(base):
    """Not a defect: fresh words are drawn and shared anew."""

    class Mutant(base):
        @declared(lambda self, s, domain=Z64: self.cost("reduce", self.spec(s, domain=domain, product=True)))
        def fresh(self, shape, *, domain=Z64):
            return self.reduce(self.to_product(self.random(shape, domain=domain)))

    return Mutant


def cost_a_word_short(base, name="truncate"):
    method = getattr(base, name)

    def short(self, x, *args):
        found = method.declared_cost(self, x, *args)
        return Cost(found.rounds, (found.sent[0] - WORD, *found.sent[1:]))

    return type("Mutant", (base,), {name: declared(short)(lambda self, *args: method(self, *args))})


# -- what comes out ------------------------------------------------------------------------------------------


def truncates_with(base, before=0.0, after=0):
    """So much is added: before, as a part of a unit of the result, or after, in units."""

    class Mutant(base):
        @like(base.truncate)
        def truncate(self, x, bits):
            lifted = self.add_public(x, np.full(x.shape, math.floor(before * (1 << bits)), dtype=np.uint64))
            y = yield from super().truncate(lifted, bits)
            return self.add_public(y, np.full(x.shape, after, dtype=np.uint64))

    return Mutant


def opens_one_off(base):
    class Mutant(base):
        @like(base.opening)
        def opening(self, x):
            opened = (yield from super().opening(x)).copy()
            opened.reshape(-1)[-1:] += np.uint64(1)
            return opened

    return Mutant


def combines_one_off(base):
    class Mutant(base):
        @classmethod
        def combine(cls, parts, *, domain, shape):
            found = super().combine(parts, domain=domain, shape=shape).copy()
            found.reshape(-1)[-1:] += np.uint64(1)
            return found

    return Mutant


# -- rows ----------------------------------------------------------------------------------------------------


def shuffles_by(base, order):
    """Rows move by an order that `order(self, rows)` gives to everybody, in the place of a shuffle."""

    class Mutant(base):
        @declared(lambda self, columns: self.free())
        def shuffle(self, columns):
            yield from ()
            places = order(self, columns[0].shape[-1])
            return [self.take(column, places) for column in columns]

    return Mutant


def stays(protocol, rows):
    return np.arange(rows)


def public(protocol, rows):
    return kernels.permutation(Stream(bytes(32), protocol.tag().encode()).words((rows,)))
