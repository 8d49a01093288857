"""Truncation by experiment: errors of single numbers are bounded (`correctness`), and their mean is.

A sum of many truncated numbers is as good as the mean of their errors: half a unit more each time adds up.
Numbers whose fraction is the same are truncated with masks of their own, and the mean error has to be within
`Protocol.truncation_bias` and what chance explains: by Hoeffding's bound it exceeds that with a chance of
`FALSE_ALARM`, whatever the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import Words
from tercet.testing.lockstep import lockstep, reconstruct, share
from tercet.testing.secrecy import FALSE_ALARM
from tercet.testing.watch import new_session

BITS = (1, 4, 16)
FRACTIONS = 4
"""Fractions are multiples of one quarter, where there are so many."""
EACH = (8192, 2048, 1024, 256)
"""Numbers of a fraction, of which the first is taken that is not too much traffic."""
MOST_BYTES = 1 << 24


def check_bias(cls: type[Protocol], *, parties: int) -> None:
    """Check truncations of sharings and products with every dealer; raises ProtocolError."""
    rng = np.random.default_rng(5)
    for dealer in range(parties):
        session = new_session(cls, parties)
        if session[0].truncation_bias is None:
            return
        for bits in BITS:
            for product in (False, True):
                _check(session, rng, bits, dealer, product=product)


def _check(
    session: Sequence[Protocol], rng: np.random.Generator, bits: int, dealer: int, *, product: bool
) -> None:
    one = session[0]
    fractions = np.arange(0, 1 << bits, max(1, (1 << bits) // FRACTIONS))
    each = next((n for n in EACH if _bytes(one, n * fractions.size, bits, product=product) <= MOST_BYTES), 64)
    whole = rng.integers(-(1 << (60 - bits)), 1 << (60 - bits), size=(fractions.size, each))
    x = (whole << bits) + fractions[:, None]
    y = _truncated(session, x.view(np.uint64), bits, dealer, product=product).view(np.int64)
    means = np.mean(y - whole, axis=1) - fractions / (1 << bits)
    width = 1 if one.truncates_down else 2 * one.truncation_error + 1
    chance = width * math.sqrt(math.log(2 / FALSE_ALARM) / (2 * each))
    allowed = (one.truncation_bias or 0.0) / (1 << bits)
    worst = int(np.argmax(np.abs(means)))
    if abs(means[worst]) > allowed + chance:
        kind, fraction = "product" if product else "sharing", fractions[worst] / (1 << bits)
        raise ProtocolError(
            f"{one.name}: truncate by {bits} bits of a {kind} with dealer {dealer} is biased: numbers with a "
            f"fraction of {fraction} come out {means[worst]:.3f} units off on average; {allowed:.3g} are "
            f"promised and {chance:.3f} may be chance"
        )


def _bytes(protocol: Protocol, count: int, bits: int, *, product: bool) -> int:
    return protocol.cost("truncate", protocol.spec((count,), product=product), bits).total


def _truncated(session: Sequence[Protocol], x: Words, bits: int, dealer: int, *, product: bool) -> Words:
    shares: Sequence[Share] = share(session, x)
    if product:
        ones = share(session, np.ones_like(x))
        shares = [p.mul_local(a, b) for p, a, b in zip(session, shares, ones, strict=True)]
    name = f"bias of {bits} bits, {'product' if product else 'sharing'}"
    bound = [protocol.bind(name, dealer=dealer) for protocol in session]
    found = lockstep([p.truncate(held, bits) for p, held in zip(bound, shares, strict=True)]).results
    return reconstruct(session, found)


__all__ = ["check_bias"]
