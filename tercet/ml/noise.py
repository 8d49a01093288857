"""Noise in counts that the nodes are told: dummy rows, each of which counts by a secret coin of its own.

What is told is the true number plus one of the binomial distribution of COINS and 1/2, so of whether one row
is there it tells no more than (EPSILON, DELTA)-differential privacy allows (Dwork, Kenthapadi, McSherry,
Mironov, Naor 2006). Nobody knows which coins have come up, nor which rows are dummies. They have random keys,
and a secret flag of zero in the result, so they weigh nothing in whatever is computed of it.
"""

from __future__ import annotations

from tercet.plans import Builder, Value

COINS = 512
"""Dummies, each of which is in the count or not."""
EPSILON, DELTA = 0.5, 1e-9
"""What is told of a row's part in a count, to which so many coins are added."""
WITH_NOISE = f"with noise of {COINS} coins (epsilon {EPSILON:g}, delta {DELTA:g})"
"""How a count with noise is declared, after what it counts."""


def tossed(builder: Builder) -> Value:
    """Secret coins, as words `(1, COINS)` of all ones or none. Local."""
    return builder.apply("smear", builder.random_words(1, COINS))
