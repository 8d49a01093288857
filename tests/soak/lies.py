"""Lies without end: `python -m tests.soak.lies`. TERCET_LIES (200) of them, by one node of four (`rep4`).

Whole joins, fits and sorts run on one machine, and in each run one node, chosen by a seeded generator, alters
one frame that it sends to one other: a bit, a word, all words, two words swapped, a frame that it has sent
before. Every run must end with an error that names parties, within a minute. What was counted is printed as
JSON, and on standard error after every 250 lies; the program ends with code 1 if a lie passed, or a run hung.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import pandas as pd

import tercet
from tercet.actors.party import Party
from tercet.errors import ProtocolError, TercetError
from tercet.ml import LogisticRegression
from tercet.protocols.domains import Words

ROWS = 60
LONGEST_S = 60.0
SAID_AFTER = 250
RNG = np.random.default_rng(0)
AGE, COST = RNG.normal(size=ROWS).round(3), RNG.normal(size=ROWS).round(3)
CLINIC = pd.DataFrame({"k": np.arange(ROWS), "age": AGE, "sick": (AGE + COST > 0) * 1})
INSURER = pd.DataFrame({"k": np.arange(ROWS)[:40], "cost": COST[:40]})


def flip_a_bit(words: Words, rng: np.random.Generator, _: Words | None) -> None:
    """One bit of one word."""
    words[rng.integers(words.size)] ^= np.uint64(1) << np.uint64(rng.integers(64))


def flip_a_word(words: Words, rng: np.random.Generator, _: Words | None) -> None:
    """All bits of one word."""
    words[rng.integers(words.size)] ^= ~np.uint64(0)


def flip_all(words: Words, _rng: np.random.Generator, _: Words | None) -> None:
    """All bits of all words."""
    words ^= ~np.uint64(0)


def draw(words: Words, rng: np.random.Generator, _: Words | None) -> None:
    """Random words."""
    words[:] = rng.integers(0, 2**64, words.size, dtype=np.uint64)


def swap(words: Words, rng: np.random.Generator, _: Words | None) -> None:
    """Two words."""
    a, b = rng.integers(words.size, size=2)
    words[a], words[b] = words[b], words[a]


def repeat(words: Words, _rng: np.random.Generator, earlier: Words | None) -> None:
    """What it sent before, as far as that goes."""
    if earlier is not None:
        count = min(earlier.size, words.size)
        words[:count] = earlier[:count]


WAYS: tuple[Callable[..., None], ...] = (flip_a_bit, flip_a_word, flip_all, draw, swap, repeat)


@attrs.define(eq=False)
class Liar:
    """One party, which counts the frames that it sends, and alters the one of a given number."""

    party: int
    at: int
    way: Callable[..., None]
    rng: np.random.Generator
    sent: int = 0
    told: bool = False
    _last: Words | None = None

    def say(self, arrays: list[Words]) -> list[Words]:
        """What it sends in the place of some arrays to one peer."""
        truth = np.concatenate([np.ravel(array) for array in arrays]) if arrays else np.empty(0, np.uint64)
        lie = truth.copy()
        if self.sent == self.at and lie.size:
            self.way(lie, self.rng, self._last)
            self.told = not np.array_equal(lie, truth)
        self.sent += 1
        self._last = truth
        places = np.cumsum([array.size for array in arrays])[:-1]
        parts = np.split(lie, places) if arrays else []
        return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


@contextmanager
def lying(liar: Liar) -> Iterator[None]:
    """The parties of this process, of which one lies."""
    frames, messages = Party.send_frames, Party.send

    async def send_frames(self: Party, session: bytes, number: int, outbox: Any) -> None:
        if self.index == liar.party:
            outbox = {peer: liar.say(list(arrays)) for peer, arrays in outbox.items()}
        await frames(self, session, number, outbox)

    async def send(self: Party, session: bytes, outbox: Any) -> None:
        if self.index == liar.party:
            outbox = {
                peer: [(*message[:3], liar.say(list(message[3]))) for message in some]
                for peer, some in outbox.items()
            }
        await messages(self, session, outbox)

    Party.send_frames, Party.send = send_frames, send  # type: ignore[method-assign]
    try:
        yield
    finally:
        Party.send_frames, Party.send = frames, messages  # type: ignore[method-assign]


def works(lake: Any) -> dict[str, Callable[[], Any]]:
    """What is done under lies, on tables that were uploaded before."""
    clinic = lake.upload(CLINIC, name="clinic", key="k", owner="clinic")
    insurer = lake.upload(INSURER, name="insurer", key="k", owner="insurer")
    both = clinic.join(insurer, on="k")
    return {
        "join": lambda: clinic.join(insurer, on="k"),
        "fit": lambda: LogisticRegression(solver="gd", max_iter=2).fit(both, target="sick").reveal(),
        "newton": lambda: LogisticRegression(max_iter=2).fit(both, target="sick").reveal(),
        "median": lambda: clinic.describe(["age"], statistics=["median"]),
    }


def campaign(lies: int, seed: int) -> dict[str, Any]:
    """Tell so many lies; what became of them."""
    rng, counted, longest, wrong = np.random.default_rng(seed), Counter[str](), 0.0, list[str]()
    with tercet.local(protocol="rep4") as lake:
        todo = works(lake)
        frames = {}
        for name, work in todo.items():
            for party in range(4):
                counting = Liar(party, -1, draw, rng)
                with lying(counting):
                    work()
                frames[name, party] = counting.sent
        for number in range(lies):
            if number and number % SAID_AFTER == 0:
                print(f"{number} lies: {dict(counted)}, longest {longest:.1f} s", file=sys.stderr)  # noqa: T201
            name, party = str(rng.choice(list(todo))), int(rng.integers(4))
            way = WAYS[rng.integers(len(WAYS))]
            liar = Liar(party, int(rng.integers(frames[name, party])), way, rng)
            what = f"lie {number}: {name}, party {party} alters frame {liar.at}: {way.__name__}"
            start, end = time.monotonic(), "passed"
            try:
                with lying(liar):
                    todo[name]()
            except ProtocolError as error:
                end = "caught" if "party" in str(error) and str(party) in str(error) else "caught, unnamed"
            except TercetError as error:
                end = f"ended with {type(error).__name__}"
            longest = max(longest, time.monotonic() - start)
            end = end if liar.told else f"not told, {end}"
            counted[end] += 1
            if end not in ("caught", "not told, passed") or time.monotonic() - start > LONGEST_S:
                wrong.append(f"{what}: {end}")
    return {"seed": seed, "lies": lies, **counted, "longest_s": round(longest, 1), "wrong": wrong}


def main() -> None:
    """Run the campaign that the environment asks for."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found = campaign(int(os.environ.get("TERCET_LIES", "200")), int(os.environ.get("TERCET_LIES_SEED", "1")))
    print(json.dumps(found, indent=1))  # noqa: T201
    sys.exit(bool(found["wrong"]))


if __name__ == "__main__":
    main()
