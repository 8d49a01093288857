"""A campaign: so many changed inputs for every target, and what came of it; `python -m tests.fuzz.campaign`.

An input that is refused at a new line of code joins the corpus, and so do some that are accepted, so that
later ones begin further in. The process may not grow: its address space is capped, running out of memory is
a failure even where the decoder makes a sentence of it, and of a sample of inputs the memory that decoding
takes at its peak is measured. An input that takes long is a failure too. What fails is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import attrs

from tests.fuzz.mutations import Corpus
from tests.fuzz.targets import Target, all_targets

MORE_MEMORY = 512 << 20
"""How much the address space may grow."""
SAMPLED = 997
"""Of so many inputs, the memory of one is measured."""
PEAK_BASE, PEAK_PER_BYTE = 8 << 20, 512
"""What decoding an input may take at its peak: so much, and more for each of its bytes."""
SLOWEST_S = 5.0
KEPT = 1 / 16
"""Of accepted inputs, so many join the corpus."""
Place = tuple[str, int, int]
"""Where an input was refused: file, line, and the line of the cause."""


class Failed(Exception):  # noqa: N818
    """A decoder did what it must not; the message has the input."""


@attrs.define
class Tally:
    """What came of the inputs of one target."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    places: set[Place] = attrs.field(factory=set)
    seconds: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.inputs + other.inputs,
            self.accepted + other.accepted,
            self.refused + other.refused,
            self.places | other.places,
            self.seconds + other.seconds,
            max(self.slowest_s, other.slowest_s),
            max(self.peak_bytes, other.peak_bytes),
        )

    def to_json(self) -> dict[str, float]:
        found = attrs.asdict(self, filter=attrs.filters.exclude("places"))
        return {**found, "places": len(self.places), "rate": self.inputs / max(self.seconds, 1e-9)}


def campaign(target: Target, inputs: int, rng: random.Random) -> Tally:
    """Feed a target with changed inputs. Raises Failed with the first that it does not stand."""
    tally, corpus = Tally(), Corpus(list(target.seeds), trees=target.tree)
    began = time.perf_counter()
    for number in range(inputs):
        data = corpus.changed(rng)
        started = time.process_time()  # a busy machine is no slow decoder
        if number % SAMPLED:
            place = _outcome(target, data)
        else:
            place, peak = _measured(target, data)
            tally.peak_bytes = max(tally.peak_bytes, peak)
        tally.slowest_s = max(tally.slowest_s, time.process_time() - started)
        if tally.slowest_s > SLOWEST_S:
            raise Failed(f"it took {tally.slowest_s:.1f} s to decode {data!r}")
        tally.inputs += 1
        if place is None:
            tally.accepted += 1
            if rng.random() < KEPT:
                corpus.add(data, rng, valid=True)
            continue
        tally.refused += 1
        if place not in tally.places:
            tally.places.add(place)
            corpus.add(data, rng, valid=False)
    tally.seconds = time.perf_counter() - began
    return tally


def _outcome(target: Target, data: bytes) -> Place | None:
    """Where an input was refused, None if it was accepted. Raises Failed."""
    try:
        target.decode(data)
    except target.refuses as error:
        if isinstance(error.__cause__, MemoryError):
            raise Failed(f"no memory for {data!r}") from error
        cause = error.__cause__
        return (*_line(error), 0 if cause is None else _line(cause)[1])
    except Exception as error:
        raise Failed(f"{type(error).__name__}: {error} for {data!r}") from error
    return None


def _line(error: BaseException) -> tuple[str, int]:
    """File and line that an error comes from."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return ("", 0) if step is None else (step.tb_frame.f_code.co_filename, step.tb_lineno)


def _measured(target: Target, data: bytes) -> tuple[Place | None, int]:
    tracemalloc.start()
    try:
        place = _outcome(target, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > (target.peak or PEAK_BASE) + PEAK_PER_BYTE * len(data):
        raise Failed(f"{peak} bytes of memory for {data!r}")
    return place, peak


def cap_memory() -> None:
    """Let the address space of this process grow by so much and no more."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY, resource.RLIM_INFINITY))


def main() -> int:
    """Run a campaign; a JSON line for each target, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000, help="for all targets together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", action="append", help="a target; again for more")
    options = parser.parse_args()
    targets = {name: one for name, one in all_targets().items() if not options.only or name in options.only}
    for target in targets.values():
        for seed in target.seeds:
            target.decode(seed)
    cap_memory()
    failures, total = 0, Tally()
    for name, target in targets.items():
        rng = random.Random(f"{options.seed} {name}")
        told: dict[str, Any] = {"target": name, "seed": options.seed}
        try:
            tally = campaign(target, -(-options.inputs // len(targets)), rng)
        except Failed as failed:
            failures += 1
            told["failed"] = str(failed)
        else:
            told |= tally.to_json()
            total = total.plus(tally)
        print(json.dumps(told), flush=True)
    print(json.dumps({"target": "all", "seed": options.seed, "failures": failures, **total.to_json()}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
