"""Circuits: nibbles exhaustively, trees against integers, Ascon against known answers and another package."""

from __future__ import annotations

import ascon
import numpy as np
import pytest
from ascon import _ascon
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.protocols import bitplanes, circuits
from tercet.protocols.base import Share
from tercet.protocols.domains import BITS
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import lockstep, parties, reconstruct, share

KEY = bytes(range(16))
KNOWN_ANSWERS = [
    (bytes(range(16)), "7bf3fe517b1d314c897f0f2b263d4905"),
    (b"policy-000000042", "d398ac359d7085ce53d996a0d8d20850"),
]
IV_OF_2021 = 0x80804C80 << 32


def words(octets, order="<"):
    return np.frombuffer(octets, dtype=order + "u8").astype(np.uint64)


def tags(cls, key, messages, **options):
    """The tags of messages `(2, n)` under a key `(2,)`, computed by a protocol."""
    session = parties(cls)
    shares = zip(share(session, key, domain=BITS), share(session, messages, domain=BITS), strict=True)
    bound = [p.bind("prf") for p in session]
    run = lockstep([circuits.ascon_prf_short(p, *s, **options) for p, s in zip(bound, shares, strict=True)])
    return reconstruct(session, run.results)


@pytest.mark.parametrize("cls", [Plain, Replicated])
@pytest.mark.parametrize(("message", "tag"), KNOWN_ANSWERS)
def test_ascon_known_answers(cls, message, tag):
    got = tags(cls, words(KEY), words(message)[:, None])
    assert got.astype("<u8").tobytes().hex() == tag


@pytest.mark.parametrize("cls", [Plain, Replicated])
def test_ascon_is_the_package_from_pypi(cls):
    """PyPI's package has the byte order of 2021, which is a matter of reading words and of the first one."""
    rng = np.random.default_rng(5)
    key, messages = rng.bytes(16), [rng.bytes(16) for _ in range(10_000)]
    columns = words(b"".join(messages), ">").reshape(-1, 2).T
    got = tags(cls, words(key, ">"), np.ascontiguousarray(columns), iv=IV_OF_2021)
    want = [ascon.mac(key, message, variant="Ascon-PrfShort") for message in messages]
    assert np.ascontiguousarray(got.T).astype(">u8").tobytes() == b"".join(want)


def test_ascon_in_the_byte_order_of_sp_800_232():
    """Words read as SP 800-232 reads them: PyPI's permutation gives the reference."""
    rng = np.random.default_rng(6)
    key, messages = rng.bytes(16), [rng.bytes(16) for _ in range(200)]
    want = []
    for message in messages:
        halves = [int.from_bytes(half[i : i + 8], "little") for half in (key, message) for i in (0, 8)]
        state = [int.from_bytes(bytes.fromhex("80804c8000000000"), "little"), *halves]
        _ascon.ascon_permutation(state, 12)
        want.append([state[3] ^ halves[0], state[4] ^ halves[1]])
    messages = np.ascontiguousarray(words(b"".join(messages)).reshape(-1, 2).T)
    np.testing.assert_array_equal(tags(Plain, words(key), messages).T, np.array(want, dtype=np.uint64))


def test_nibbles_exhaustively():
    """All u and v of four bits, in 256 lanes, and random halves of the one-hot code."""
    u, v = np.divmod(np.arange(256, dtype=np.uint64), np.uint64(16))
    u_planes, v_planes = bitplanes.to_planes(u, 4), bitplanes.to_planes(v, 4)
    code = np.empty((circuits.ONE_HOT, 4), dtype=np.uint64)
    circuits.nibble_one_hot(u_planes, code)
    for a in range(1, 16):
        np.testing.assert_array_equal(bitplanes.unpack_bits(code[a - 1], 256), u == a)
    half = np.random.default_rng(0).integers(0, 2**64, size=code.shape, dtype=np.uint64)
    generate, propagate, equal = (np.zeros((2, 1, 4), dtype=np.uint64) for _ in range(3))
    for first, part in ((True, half), (False, code ^ half)):
        circuits.nibble_carry_leaves(part, v_planes, first, generate[int(first)], propagate[int(first)])
        circuits.nibble_equal_leaves(part, v_planes, first, equal[int(first)])
    for leaves, want in ((generate, u + v >= 16), (propagate, u + v == 15), (equal, u == v)):
        np.testing.assert_array_equal(bitplanes.unpack_bits(leaves[0, 0] ^ leaves[1, 0], 256), want)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 21), st.integers(0, 2**32))
def test_trees_of_any_width(groups, seed):
    rng = np.random.default_rng(seed)
    generate, propagate = rng.integers(0, 2**64, size=(2, groups, 2), dtype=np.uint64)
    generate &= ~propagate  # a group that generates a carry does not propagate one
    carry = np.zeros(2, dtype=np.uint64)
    for g, p in zip(generate, propagate, strict=True):
        carry = g | (p & carry)
    session = parties(Replicated)
    g, p = (share(session, planes, domain=BITS) for planes in (generate, propagate))
    bound = [party.bind("tree") for party in session]
    run = lockstep([circuits.carry_tree(b, *s) for b, s in zip(bound, zip(g, p, strict=True), strict=True)])
    np.testing.assert_array_equal(reconstruct(session, run.results), carry)
    cost = circuits.carry_tree_cost(bound[0], groups, 2)
    assert (run.rounds, run.sent) == (cost.rounds, cost.sent)

    bound = [party.bind("all") for party in session]
    run = lockstep([circuits.and_tree(b, x) for b, x in zip(bound, g, strict=True)])
    np.testing.assert_array_equal(reconstruct(session, run.results), np.bitwise_and.reduce(generate, axis=0))
    cost = circuits.and_tree_cost(bound[0], groups, 2)
    assert (run.rounds, run.sent) == (cost.rounds, cost.sent)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(0, 2**32), st.sampled_from([Plain, Replicated]))
def test_the_highest_difference_is_selected(places, seed, cls):
    rng = np.random.default_rng(seed)
    differ, chosen = rng.integers(0, 2**64, size=(2, places, 2), dtype=np.uint64)
    for _ in range(rng.integers(0, 8)):  # the first difference may be far down
        differ &= rng.integers(0, 2**64, size=differ.shape, dtype=np.uint64)
    differ[rng.integers(0, places)] = 2**64 - 1
    want = np.zeros(2, dtype=np.uint64)
    for n, v in zip(differ, chosen, strict=True):  # the highest is last
        want = (n & v) | (~n & want)
    order = list(circuits.halves(places))
    assert sorted(order) == list(range(places))
    session = parties(cls)
    shares = [share(session, planes[order], domain=BITS) for planes in (differ, chosen)]
    bound = [party.bind("select") for party in session]
    run = lockstep(
        [circuits.select_tree(b, *s) for b, s in zip(bound, zip(*shares, strict=True), strict=True)]
    )
    np.testing.assert_array_equal(reconstruct(session, run.results), want)
    cost = circuits.select_tree_cost(bound[0], places, 2)
    assert (run.rounds, run.sent) == (cost.rounds, cost.sent)


def test_a_tree_of_one_leaf_is_the_leaf():
    protocol = parties(Plain)[0].bind("one")
    leaf = Share(BITS, np.array([[[5]]], dtype=np.uint64))
    with pytest.raises(StopIteration) as stop:
        next(circuits.and_tree(protocol, leaf))
    assert stop.value.value.data.tolist() == [[5]]
