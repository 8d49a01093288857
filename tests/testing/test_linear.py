"""What a party can add up: leaks in two summands are found, and what hides is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols.base import Round, declared
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tercet.testing.linear import check_linear, rank
from tercet.testing.operations import OPERATIONS
from tercet.testing.watch import watched

NAMED = {operation.name: operation for operation in OPERATIONS}


@pytest.mark.parametrize("size", [1, 5, 64, 65, 200])
def test_the_rank_of_a_product_of_matrices_is_its_inner_size(size):
    rng = np.random.default_rng(size)
    inner = size // 2 + 1
    left = np.concatenate([np.eye(inner), rng.integers(0, 2, (size, inner))]).astype(np.int64)
    right = np.concatenate([np.eye(inner), rng.integers(0, 2, (inner, size))], axis=1).astype(np.int64)
    product = (left @ right & 1).astype(np.uint8)
    assert rank(rng.permutation(product)) == inner
    assert rank(np.zeros_like(product)) == 0


class TellsTheDealerInTwoSummands(Replicated):
    """Of a truncated value, the dealer is sent the component that it lacks, less a mask, and the mask."""

    @declared(lambda self, x, bits: Replicated.truncate.declared_cost(self, x, bits))
    def truncate(self, x, bits):
        y = yield from super().truncate(x, bits)
        role, tag = self.role(self.dealer), self.tag()
        if role == 0:
            yield Round(recv={(self.dealer + 1) % 3: [y.shape], (self.dealer + 2) % 3: [y.shape]})
            return y
        mask = self.draw(self.dealer + 2, tag, "summand").words(y.shape)
        yield Round(send={self.dealer: [y.data[1] - mask if role == 1 else mask]})
        return y


class TellsASum(Replicated):
    """A mask is used for a bit of the input and for one of the result: their sum is known, neither is."""

    @declared(lambda self, x, y: Replicated.mul.declared_cost(self, x, y))
    def mul(self, x, y):
        z = yield from super().mul(x, y)
        mask = self.draw(1, self.tag(), "both").words(z.shape) if self.party != 2 else None
        if self.party == 2:
            yield Round(recv={0: [z.shape], 1: [z.shape]})
        else:
            yield Round(send={2: [mask + x.data.sum(axis=0) if self.party == 0 else mask + z.data[0]]})
        return z


@pytest.mark.parametrize(
    ("defect", "operation"),
    [
        (TellsTheDealerInTwoSummands, "truncate"),
        (TellsTheDealerInTwoSummands, "mul and truncate"),
        (TellsASum, "mul"),
        (TellsASum, "AND of 64 bits"),
    ],
)
def test_a_leak_in_summands_is_found(defect, operation):
    with pytest.raises(ProtocolError, match=r"party \d can compute bits of inputs or results"):
        check_linear(watched(defect), NAMED[operation], parties=3)


TESTED = [one for one in OPERATIONS if not one.discloses and one.is_fixed(1000)]


@pytest.mark.parametrize("operation", TESTED, ids=lambda one: one.name)
def test_the_sample_has_power_and_finds_nothing(operation):
    assert check_linear(watched(Replicated), operation, parties=3)


def test_of_numbers_modulo_a_prime_nothing_is_said():
    assert not check_linear(watched(Shamir), NAMED["mul"], parties=3)
    assert check_linear(watched(Shamir), NAMED["AND of 64 bits"], parties=3)
