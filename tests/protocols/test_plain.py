"""The clear reference says what operations mean, and shared protocols agree with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import ProtocolError
from tercet.protocols.domains import decode, encode
from tercet.protocols.fourier import sigmoid
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import lockstep, parties, share
from tercet.testing.operations import OPERATIONS, uniform
from tercet.testing.watch import results


def run(operation, *columns, scale=0):
    [protocol] = parties(Plain)
    shares = [share([protocol], np.asarray(column), scale=scale)[0] for column in columns]
    return lockstep([operation(protocol.bind("operation"), *shares)])


@given(st.lists(st.integers(-(2**62) + 1, 2**62 - 1), min_size=1), st.integers(1, 62))
def test_truncation_rounds_to_nearest(values, bits):
    got = (
        run(lambda p, x: p.truncate(x, bits), np.array(values).view(np.uint64))
        .results[0]
        .data[0]
        .view(np.int64)
    )
    assert got.tolist() == [(value + (1 << (bits - 1))) >> bits for value in values]


def test_fourier_is_the_series():
    series, x = sigmoid(6.0, 1e-3), np.linspace(-6, 6, 101)
    result = run(
        lambda p, x: p.fourier(x, [series], dealt_bits=20, coefficient_bits=14), encode(x, 16), scale=16
    )
    [[y]] = result.results
    np.testing.assert_allclose(decode(y.data[0], y.scale), series(decode(encode(x, 16), 16)), atol=2.0**-34)
    assert result.rounds == 0


def test_a_shuffle_permutes_and_hangs_on_key_and_name():
    x = np.arange(1000, dtype=np.uint64)

    def order(name, keys):
        protocol = Plain(party=0, parties=1, keys=keys).bind(name)
        [column] = lockstep([protocol.shuffle([protocol.constant(x)])]).results[0]
        return column.data[0]

    orders = [order("a", {}), order("b", {}), order("a", {0: bytes(32)})]
    for one in orders:
        np.testing.assert_array_equal(np.sort(one), x)
        assert not np.array_equal(one, x)
    assert len({one.tobytes() for one in orders}) == 3
    np.testing.assert_array_equal(order("a", {}), orders[0])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OPERATIONS), st.integers(0, 150), st.integers(0, 2**32), st.integers(0, 2))
def test_shared_and_plain_agree(operation, rows, seed, dealer):
    values = {}
    for cls in (Plain, Replicated):
        session = parties(cls)
        secrets = operation.inputs(uniform(np.random.default_rng(seed)), rows)
        columns = [share(session, one.words, domain=one.domain, scale=one.scale) for one in secrets]
        held = [[column[party] for column in columns] for party in range(len(session))]
        allowed = operation.openings(held[0])
        bound = [p.bind("operation", dealer=dealer, openings=allowed) for p in session]
        ran = lockstep([operation.run(p, s) for p, s in zip(bound, held, strict=True)]).results
        values[cls] = list(results(session, ran))
    for plain, shared in zip(values[Plain], values[Replicated], strict=True):
        assert plain.shape == shared.shape
        if operation.drawn:
            continue
        if operation.packed:
            tail = np.uint64(2 ** (rows % 64) - 1) if rows % 64 else ~np.uint64(0)
            plain[-1:] &= tail
            shared[-1:] &= tail
        if operation.unordered:
            plain, shared = np.sort(plain, axis=-1), np.sort(shared, axis=-1)
        assert (np.abs((plain - shared).view(np.int64)) <= operation.tolerance(session[0])).all()


@pytest.mark.parametrize("wrong", ["mul_local", "matmul_local", "dot_local"])
def test_products_are_refused_as_factors(wrong):
    [protocol] = parties(Plain)
    x = protocol.constant(np.ones((2, 2), dtype=np.uint64))
    with pytest.raises(ProtocolError, match="full sharings"):
        getattr(protocol, wrong)(protocol.mul_local(x, x), x)
