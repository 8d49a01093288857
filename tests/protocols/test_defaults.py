"""What protocols inherit is right on any core: here the replicated one, stripped of what it does faster."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tercet.protocols.base import Protocol, declared
from tercet.protocols.defaults import merge_exchange
from tercet.protocols.domains import Z64
from tercet.protocols.replicated import Replicated
from tercet.testing.lockstep import parties
from tercet.testing.operations import OPERATIONS
from tercet.testing.protocols import check_secrecy, check_values
from tercet.testing.watch import watched

INHERITED = (
    "mul", "matmul_local", "dot_local", "truncate", "is_negative", "is_zero", "shuffle",
)  # fmt: skip
Bare = type("Bare", (Replicated,), {name: vars(Protocol)[name] for name in INHERITED})


class Slow(Bare):
    """What is inherited does not need random words that come without a round."""

    def random(self, shape, *, domain=Z64):
        raise AssertionError("words are drawn without the round that they take")

    @declared(lambda self, shape, domain=Z64: self.cost("reduce", self.spec(shape, product=True)))
    def fresh(self, shape, *, domain=Z64):
        return self.reduce(self.to_product(Replicated.random(self, shape, domain=domain)))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_values_and_costs(operation):
    for dealer in range(3):
        check_values(Bare, operation, parties=3, dealer=dealer, sizes=(0, 1, 2, 65))
    check_values(Slow, operation, parties=3, sizes=(0, 1, 2, 65))


def test_fresh_words_that_take_a_round_do():
    """And the costs of what is inherited say so: a round more, before the bits are converted."""
    operation = next(one for one in OPERATIONS if one.name == "truncate")
    check_secrecy(watched(Slow), operation, parties=3)
    bare, slow = (parties(cls)[0] for cls in (Bare, Slow))
    for name, arguments in (("truncate", (16,)), ("is_negative", ()), ("is_zero", ())):
        fast, late = (one.cost(name, one.spec((64,)), *arguments) for one in (bare, slow))
        assert late.rounds == fast.rounds + 1
        assert late.total == fast.total + 3 * 64 * 8
    fast, late = (one.cost("shuffle", [one.spec((65,))]) for one in (bare, slow))
    assert late.rounds - fast.rounds == 1 + 21 + 7  # a comparison in each of 28 stages


@pytest.mark.parametrize("name", ["truncate", "mul and truncate", "is_zero"])
def test_secrecy(name):
    operation = next(one for one in OPERATIONS if one.name == name)
    check_secrecy(watched(Bare), operation, parties=3)


@pytest.mark.parametrize("rows", range(11))
def test_the_network_sorts_all_zeros_and_ones(rows):
    """By the 0-1 principle, it then sorts everything. No stage compares a place twice."""
    bits = np.array(list(itertools.product([0, 1], repeat=rows)), dtype=np.int64).reshape(2**rows, rows)
    for low, high in merge_exchange(rows):
        assert len({*low, *high}) == low.size + high.size
        bits[:, low], bits[:, high] = (
            np.minimum(bits[:, low], bits[:, high]),
            np.maximum(bits[:, low], bits[:, high]),
        )
    assert np.all(np.diff(bits, axis=1) >= 0)
