"""The tables that benchmarks work on, and how they come into a lake.

Features are normal, scaled to unit spread, outcomes follow a logistic model of them, keys are integers.
Everything follows from a seed, so runs with the same options do the same work.
"""

from __future__ import annotations

import math
import time
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

import tercet
from perf.machine import MB, WORD
from tercet.plans.types import bind_shape

KEY, TARGET = "id", "outcome"
SCALE = 16
"""Fractional bits of features, the same in every table, so that a model of one can be evaluated on
another."""

Columns = dict[str, npt.NDArray[Any]]


def feature_names(features: int) -> list[str]:
    """Names of the features."""
    return [f"x{number}" for number in range(features)]


def normal(random: np.random.Generator, features: int, rows: int) -> npt.NDArray[np.float64]:
    """Normal features `(features, rows)` of spread just below one, so that all can be stored at one scale."""
    X = random.standard_normal((features, rows))
    spread: npt.NDArray[np.float64] = X.std(axis=1, keepdims=True)
    return X / (spread * (1 + 1e-4))


def learnable(rows: int, features: int, *, seed: int = 1) -> Columns:
    """A table to learn from: features, and an outcome with log-odds `x beta - 1/4`, of spread about 1.4."""
    random = np.random.default_rng(seed)
    X = normal(random, features, rows)
    beta = np.where(np.arange(features) % 2 == 0, 1.0, -1.0) * np.linspace(0.5, 1.5, features)
    odds = beta @ X * (1.3 / math.sqrt(float(beta @ beta))) - 0.25
    outcome = random.random(rows) < 1 / (1 + np.exp(-odds))
    columns = dict(zip(feature_names(features), X, strict=True))
    return {KEY: np.arange(rows), **columns, TARGET: outcome}


def linkable(rows: int, features: int, *, seed: int = 1) -> tuple[Columns, Columns]:
    """Two tables of the same keys in different order, which share the features between them."""
    random = np.random.default_rng(seed)
    keys = random.permutation(10 * rows)[:rows]
    order = random.permutation(rows)
    names = feature_names(features)
    X = dict(zip(names, normal(random, features, rows), strict=True))
    half = -(-features // 2)
    left = {KEY: keys, **{name: X[name] for name in names[:half]}}
    right = {KEY: keys[order], **{name: X[name][order] for name in names[half:]}}
    return left, right


def repeating(rows: int, groups: int, features: int, *, seed: int = 1) -> Columns:
    """Features of rows whose keys are drawn among so many."""
    random = np.random.default_rng(seed)
    X = normal(random, features, rows)
    return {KEY: random.integers(0, groups, rows), **dict(zip(feature_names(features), X, strict=True))}


@attrs.frozen
class Uploaded:
    """A table in the lake, and what it took to get it there."""

    table: Any
    seconds: float
    shares_mb: float
    """Memory that one party's shares of it need."""


async def upload(lake: tercet.AsyncLake, columns: Columns, name: str, *, unique: bool = True) -> Uploaded:
    """Upload a table as its owner would."""
    features = [column for column in columns if column not in (KEY, TARGET)]
    began = time.perf_counter()
    scales = dict.fromkeys(features, SCALE)
    table = await lake.upload(columns, name=name, key=KEY, owner=name, scales=scales, unique=unique)
    seconds = time.perf_counter() - began
    words = sum(
        math.prod(bind_shape(part.type.shape, {})) for part in (*table.parts, table.keys) if part is not None
    )
    held = lake.cluster.client.protocol.held
    return Uploaded(table, seconds, held * words * WORD / MB)


def design(columns: Columns) -> npt.NDArray[np.float64]:
    """The features of a table, `(rows, features)`."""
    return np.stack([values for name, values in columns.items() if name not in (KEY, TARGET)], axis=1)
