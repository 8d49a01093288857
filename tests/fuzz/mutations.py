"""Changes to valid inputs, as bytes and, where they are msgpack, as trees, to get past the first checks.

All chance comes from the `random.Random` that is passed in, so a campaign is repeated by its seed, and
hypothesis can shrink what fails.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgpack

NUMBERS = (
    0,
    1,
    -1,
    2,
    63,
    64,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
)
ODD = (
    None,
    True,
    False,
    "",
    "x",
    "\0",
    "é" * 40,
    b"",
    b"x" * 32,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
)
WORDS = [
    number.to_bytes(8, order)
    for number in (n & ((1 << 64) - 1) for n in NUMBERS)
    for order in ("big", "little")
]
TREE_SHARE = 0.7
"""Of the changes to msgpack, so many are to its tree."""
ODD_SHARE = 0.3
"""Of the inputs that are changed, so many are ones that were refused."""


def change_bytes(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert, overwrite or copy some bytes, perhaps from another input."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 if place:
                changed[place - 1] ^= 1 << rng.randrange(8)
            case 1:
                del changed[place : place + rng.randrange(1, 9)]
            case 2:
                changed[place:place] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                changed[place : place + 8] = rng.choice(WORDS)
            case 4:
                start = rng.randrange(len(other) + 1)
                changed[place:] = other[start:]
            case _:
                start = rng.randrange(len(changed) + 1)
                changed[place:place] = changed[start : start + rng.randrange(64)]
    return bytes(changed)


def change_tree(tree: Any, other: Any, rng: random.Random) -> Any:
    """The tree with one part replaced, perhaps by one of the `other` tree, removed, doubled or wrapped."""
    if isinstance(tree, list | dict) and tree and rng.random() < 0.9:
        if isinstance(tree, dict):
            name = rng.choice(list(tree))
            if rng.random() < 0.05:
                return {key: value for key, value in tree.items() if key != name}
            return {**tree, name: change_tree(tree[name], other, rng)}
        place, what = rng.randrange(len(tree)), rng.random()
        if what < 0.1:
            return tree[:place] + tree[place + 1 :]
        if what < 0.2:
            return tree[: place + 1] + tree[place:]
        return [*tree[:place], change_tree(tree[place], other, rng), *tree[place + 1 :]]
    what = rng.random()
    if isinstance(tree, int) and what < 0.5:
        return min(max(tree + rng.choice((-1, 1, 64)), -(1 << 63)), (1 << 64) - 1)
    if what < 0.2:
        return _part(other, rng)
    if what < 0.25:
        return [tree] * rng.choice((1, 2, 100))
    return rng.choice(NUMBERS if what < 0.6 else (*ODD, [], {}))


def _part(tree: Any, rng: random.Random) -> Any:
    """Some part of a tree."""
    while isinstance(tree, list | dict) and tree and rng.random() < 0.7:
        tree = rng.choice(tree if isinstance(tree, list) else list(tree.values()))
    return tree


class Corpus:
    """Inputs to change: valid ones, and odd ones, which were refused at a place where none was before."""

    MOST = 256
    """Of either."""
    LONGEST = 1 << 14
    """Longer inputs are not changed further: doubled again and again, they would grow without end."""

    def __init__(self, seeds: Sequence[bytes], *, trees: bool) -> None:
        self._trees = trees
        self._seeds = len(seeds)
        self._valid: list[tuple[bytes, Any]] = []
        self._odd: list[tuple[bytes, Any]] = []
        for seed in seeds:
            self.add(seed, random.Random(), valid=True)

    def add(self, data: bytes, rng: random.Random, *, valid: bool) -> None:
        """Take an input in; when there are many, it takes the place of another that is no seed."""
        inputs = self._valid if valid else self._odd
        if len(data) > self.LONGEST:
            return
        try:
            tree = msgpack.unpackb(data, strict_map_key=False) if self._trees else None
        except (ValueError, TypeError, msgpack.UnpackException):
            return  # what is no msgpack any more is a dead end
        if len(inputs) < self.MOST:
            inputs.append((data, tree))
        else:
            inputs[rng.randrange(self._seeds, self.MOST)] = data, tree

    def changed(self, rng: random.Random) -> bytes:
        """One of the inputs, changed."""
        inputs = self._odd if self._odd and rng.random() < ODD_SHARE else self._valid
        data, tree = rng.choice(inputs)
        other, other_tree = rng.choice(self._valid)
        if self._trees and rng.random() < TREE_SHARE:
            for _ in range(rng.choice((1, 1, 1, 3))):
                tree = change_tree(tree, other_tree, rng)
            try:
                packed: bytes = msgpack.packb(tree)
            except (ValueError, TypeError, OverflowError):
                pass  # parts of an input that msgpack reads and does not write
            else:
                return packed
        return change_bytes(data, other, rng)
