"""Defects of every kind that `check_protocol` promises to find, each with the part of it that finds it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols import registry
from tercet.protocols.base import Round, declared
from tercet.protocols.rep4 import Rep4
from tercet.protocols.replicated import DIGEST_WORDS, Replicated, digest
from tercet.protocols.shamir import Shamir
from tercet.testing import protocols as kit
from tercet.testing.bias import check_bias
from tercet.testing.correctness import check_values
from tercet.testing.linear import check_linear
from tercet.testing.operations import OPERATIONS
from tercet.testing.order import check_order
from tercet.testing.permutations import check_permutations
from tercet.testing.repeats import check_repeats
from tercet.testing.secrecy import check_keys, check_secrecy
from tercet.testing.watch import watched
from tests.conformance import mutants as m

Additive = registry.get("additive")
NAMED = {operation.name: operation for operation in OPERATIONS}
TRUNCATE, MUL, MATMUL = "truncate", "mul", "matmul, (3, 5) @ (5, n)"
SHUFFLE = "shuffle of one column of numbers and two of words"


def smallest(cls):
    """The fewest parties that a protocol runs with: three, or four for `rep4`."""
    return max(3, min(cls.sizes))


def part(check, *names, **options):
    """A part of the suite, for some operations."""

    def run(cls):
        for name in names:
            check(cls, NAMED[name], parties=smallest(cls), **options)

    return run


def values(*names):
    return part(check_values, *names, sizes=(0, 1, 65))


def secrecy(*names):
    return part(check_secrecy, *names)


def linear(*names):
    return part(check_linear, *names)


def repeats(*names):
    return part(check_repeats, *names)


def keys(*names):
    return part(check_keys, *names)


def dealing(cls):
    kit.check_dealing(cls, smallest(cls))


def random(cls):
    kit.check_random(cls, smallest(cls))


def permutations(cls):
    check_permutations(cls, parties=smallest(cls))


def bias(cls):
    check_bias(cls, parties=smallest(cls))


def order(cls):
    check_order(cls, parties=smallest(cls))


# -- defects of one protocol ---------------------------------------------------------------------------------


class CombinesUnchecked(Replicated):
    """Checks one of three components."""

    @classmethod
    def combine(cls, parts, *, domain, shape):
        if not np.array_equal(digest(parts[1][0]), parts[0][1]):
            raise ProtocolError("component 1")
        return domain.total(part[0] for part in parts).reshape(shape)


class OpensUnchecked(Replicated):
    """Parties 1 and 2 believe what they hear."""

    @declared(lambda self, x: self.each(1, x.size + DIGEST_WORDS))
    def opening(self, x):
        got = yield Round(
            {self.next: [x.data[0]], self.prev: [digest(x.data[1])]},
            {self.prev: [x.shape], self.next: [(DIGEST_WORDS,)]},
        )
        missing = got[self.prev][0]
        if self.party == 0 and not np.array_equal(digest(missing), got[self.next][0]):
            raise ProtocolError("component 2")
        return x.domain.total([*x.data, missing])


class OpensWithoutCheck(Additive):
    @declared(lambda self, x: Additive.opening.declared_cost(self, x))
    def opening(self, x):
        after, before = (self.party + 1) % 3, (self.party - 1) % 3
        got = yield Round(
            {after: [x.data[0]], before: [digest(x.data[1])]}, {before: [x.shape], after: [(DIGEST_WORDS,)]}
        )
        return x.domain.total([*x.data, got[before][0]])


class DealsMasksThatCancel(Additive):
    @classmethod
    def deal(cls, values, *, domain, parties):
        (a, _), (_, _), _ = super().deal(values, domain=domain, parties=parties)
        b = domain.subtract(np.zeros_like(a), a)
        return [[a, b], [b, values], [values, a]]


def last_hop_stays(base):
    class Mutant(base):
        def stream(self, key, tag, purpose):
            made = super().stream(key, tag, purpose)
            last = purpose == "permutation" and tag.endswith("/3")
            return Rising() if last else made

    return Mutant


class Rising(m.Zeros):
    """Keys that are in order already."""

    def fill(self, out):
        out[...] = np.arange(out.size, dtype=np.uint64).reshape(out.shape) << np.uint64(40)
        return out


def hop_without_mask(base):
    def change(self, made, key, tag, purpose):
        return m.Zeros() if purpose == "reshare" and tag.endswith("/1") else None

    return m.streams(base, change)


def of_one_pair(self, key):
    return key in (self.keys.get(0), self.keys.get(1)) and self.party != 2


def joint_masks_by_no_key(base):
    """Masks of joint sharings are such that whoever they hide something from can draw them too."""

    class Mutant(base):
        def draw_without(self, party, tag, purpose):
            if purpose.startswith("joint"):
                return self.stream(bytes(32), tag, f"{purpose} without {party}")
            return super().draw_without(party, tag, purpose)

    return Mutant


R, A, S, Q = Replicated, Additive, Shamir, Rep4
KNOWN, ORDERS = "can compute", "knows the order by its keys"
AGAIN = "twice|more than once"


def made(defect, **options):
    """A defect of some strength."""
    return functools.partial(defect, **options)


DEFECTS = {
    # those that hide from tests of single words and of pairs
    "a summand is told to all": (m.summand_to_everybody, (R, A, Q), linear(MATMUL), KNOWN),
    "a gate is told to the dealer": (
        made(m.gate_told_to_the_dealer, summands=False),
        (R, A, Q),
        linear(TRUNCATE),
        KNOWN,
    ),
    "a gate is told in summands": (
        made(m.gate_told_to_the_dealer, summands=True),
        (R, A, Q),
        linear(TRUNCATE),
        KNOWN,
    ),
    "a last hop stays": (last_hop_stays, (R, Q), permutations, ORDERS),
    "a shuffle stays": (
        made(m.shuffles_by, order=m.stays),
        (R, A, S, Q),
        permutations,
        "everybody knows",
    ),
    "a shuffle is public": (
        made(m.shuffles_by, order=m.public),
        (R, A, S, Q),
        permutations,
        ORDERS,
    ),
    "fresh declares nothing": (m.fresh_declares_nothing, (Shamir,), values("fresh"), "but declares 0 rounds"),
    "fresh is told": (m.fresh_told, (R, A, Q), linear("fresh"), KNOWN),
    "masks repeat": (m.masks_repeat, (R, A, S, Q), repeats(MUL), AGAIN),
    "masks repeat later": (
        made(m.masks_repeat, period=10_000),
        (R, A, S, Q),
        repeats(TRUNCATE),
        AGAIN,
    ),
    "a truncation is biased": (
        made(m.truncates_with, before=0.5),
        (R, A, S, Q),
        bias,
        "is biased",
    ),
    "a truncation is a little biased": (
        made(m.truncates_with, before=0.25),
        (R, A, S),
        bias,
        "is biased",
    ),
    # the others
    "a mask for every operation": (m.one_mask_for_every_operation, (R, A, Q), secrecy(MUL), "related|twice"),
    "a mask for every purpose": (m.one_mask_for_every_purpose, (R,), linear(TRUNCATE), KNOWN),
    "no zero share": (
        made(m.no_masks_of, purpose="zero"),
        (R, A),
        secrecy(MUL),
        "not uniform|related",
    ),
    "half a zero share": (
        made(m.no_masks_of, purpose="zero", when=of_one_pair),
        (R, A),
        linear(MUL),
        KNOWN,
    ),
    "no joint mask": (made(m.no_masks_of, purpose="joint"), (Q,), secrecy(MUL), "not uniform|related"),
    "no joint mask of one pair": (
        made(m.no_masks_of, purpose="joint 0 1"),
        (Q,),
        linear(MUL),
        KNOWN,
    ),
    "a joint mask by no key": (joint_masks_by_no_key, (Q,), keys(MUL), "byte 0 of all keys"),
    "a hop of four has no mask": (
        made(m.no_masks_of, purpose="zero"),
        (Q,),
        secrecy(SHUFFLE),
        "not uniform|related|tells",
    ),
    "a cost a word short": (m.cost_a_word_short, (R, A, S, Q), values(TRUNCATE), "but declares"),
    "a length depends on a secret": (m.length_depends_on_a_secret, (R, A, Q), values(MATMUL), "expects"),
    "what is opened is told": (
        made(m.opened_told_to, receiver=0, summands=False),
        (R, A, Q),
        linear("bits_to_ring"),
        KNOWN,
    ),
    "what is opened is told in summands": (
        made(m.opened_told_to, receiver=0, summands=True),
        (R, A, Q),
        linear("bits_to_ring"),
        KNOWN,
    ),
    "a truncation is a unit off": (
        made(m.truncates_with, after=1),
        (R, A, Q),
        values(TRUNCATE),
        "off by 2 units",
    ),
    "combine checks one copy": (lambda base: CombinesUnchecked, (R,), dealing, "does not notice"),
    "an opening checks one copy": (lambda base: OpensUnchecked, (R,), dealing, "`open` does not notice"),
    "an opening checks nothing": (lambda base: OpensWithoutCheck, (A,), dealing, "`open` does not notice"),
    "an opening is one off": (m.opens_one_off, (R, A, S, Q), values("open"), "off by"),
    "combine is one off": (m.combines_one_off, (R, A, S, Q), dealing, "do not survive"),
    "keys are constant": (m.keys_are_constant, (R, A, Q), keys(MUL), "byte 0 of all keys"),
    # Of three keys of a byte, two are alike once in 85 times: then byte 0 does not show either.
    "keys are one byte": (m.keys_are_one_byte, (R, A, Q), keys(MUL), "byte [01] of all keys"),
    "dealt masks cancel": (lambda base: DealsMasksThatCancel, (A,), dealing, "not uniform"),
    "a hop has no mask": (hop_without_mask, (R,), secrecy(SHUFFLE), "not uniform|related|tells"),
    "a stream for two arrays": (m.one_stream_for_two_arrays, (R,), secrecy(SHUFFLE), "twice|tells"),
    "order of execution": (
        m.order_of_execution,
        (R, Q),
        order,
        "drawn|shares|off by|disagree|hold|different things|twice",
    ),
}
CASES = [
    pytest.param(make(base), check, complaint, id=f"{name}-{base.name}")
    for name, (make, bases, check, complaint) in DEFECTS.items()
    for base in bases
]


@pytest.mark.parametrize(("defect", "check", "complaint"), CASES)
def test_a_defect_is_found_by_its_part(defect, check, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        check(watched(defect))


def test_fresh_words_that_take_a_round_are_no_defect():
    slow = watched(m.fresh_takes_a_round(Replicated))
    for check in (values("fresh"), secrecy("fresh"), linear("fresh"), repeats("fresh"), random):
        check(slow)
