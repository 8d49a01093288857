"""Secrecy by experiment: what a party receives must not tell secrets, messages or keys apart.

Statistics cannot prove secrecy; they catch a forgotten or repeated mask, which is the defect that programs
have. Each test alarms falsely with a chance of `FALSE_ALARM`, and a run of the suite among three parties has
about 1,400; with those of other modules, it alarms falsely once in some 500,000 runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import Words
from tercet.protocols.prg import KEY_BYTES
from tercet.testing.lockstep import LockstepResult
from tercet.testing.operations import Operation, extremes, zeros
from tercet.testing.watch import affordable, new_session, notes, observe, run, share_all

FALSE_ALARM = 1e-9
SAMPLE = 4096
"""Rows of an experiment, fewer where that would be too much traffic."""
_SAMPLES = (SAMPLE, 1024, 256, 64)
_FEWEST = 16
_ENOUGH = 1024
"""Words below which a transcript is too short for statistics of its bytes."""


def check_secrecy(cls: type[Protocol], operation: Operation, *, parties: int, dealer: int = 0) -> None:
    """Check what each party receives in one operation; raises ProtocolError. See the module's paragraph."""
    where = f"{cls.name}: {operation.name} with dealer {dealer}"
    session = new_session(cls, parties)
    rows = next((n for n in _SAMPLES if affordable(session[0], operation, n)), _FEWEST)
    if not operation.is_fixed(rows):
        rows = operation.fixed_up_to or 0
    nothing, extreme = (operation.inputs(values, rows) for values in (zeros, extremes))
    shares = share_all(session, nothing)
    first, _ = run(session, operation, shares, name="first", dealer=dealer)
    again, _ = run(session, operation, shares, name="second", dealer=dealer)
    other, _ = run(session, operation, share_all(session, extreme), name="third", dealer=dealer)
    _check_masked(where, session)
    for party in range(parties):
        _check_lengths(where, party, first, other)
        who = f"{where}: what party {party} receives"
        mine = heard(first, session, party)
        _check_independent(cls, who, mine, heard(again, session, party), heard(other, session, party))
        if first.rounds:
            held = [_held(ran, party) for ran in (first, again, other)]
            _check_independent(cls, f"{where}: what party {party} holds of the result", *held)
        fresh = observe(with_keys_of(cls, session[party], new_session(cls, parties)))
        same, _ = run(fresh, operation, shares, name="first", dealer=dealer)
        theirs = heard(same, fresh, party)
        check_unrelated(cls, f"{who} does not hang on keys that it does not know", mine, theirs)


def check_keys(cls: type[Protocol], operation: Operation, *, parties: int) -> None:
    """Check that all bytes of keys matter to an operation's results; raises ProtocolError."""
    session = new_session(cls, parties)
    shares = share_all(session, operation.inputs(zeros, _FEWEST))
    first, _ = run(session, operation, shares, name="first", dealer=0)
    for place in range(KEY_BYTES):
        changed = observe([_with_changed_keys(cls, one, place) for one in session])
        other, _ = run(changed, operation, shares, name="first", dealer=0)
        for party in range(parties):
            if np.any(_held(first, party) == _held(other, party)):
                raise ProtocolError(
                    f"{cls.name}: {operation.name} gives party {party} the same words if byte {place} of all "
                    "keys changes"
                )


def _with_changed_keys(cls: type[Protocol], known: Protocol, place: int) -> Protocol:
    def changed(keys: Mapping[int, bytes]) -> dict[int, bytes]:
        return {who: key[:place] + bytes([key[place] ^ 1]) + key[place + 1 :] for who, key in keys.items()}

    made = cls(party=known.party, parties=known.parties, keys=changed(known.keys))
    made.groups = changed(known.groups)
    return made


def with_keys_of(cls: type[Protocol], known: Protocol, fresh: Sequence[Protocol]) -> list[Protocol]:
    """A session in which all keys are fresh but those that one party knows."""
    session = []
    for other in fresh:
        same = {known.party: known.keys[other.party]} if other.party != known.party else known.keys
        made = cls(party=other.party, parties=other.parties, keys={**other.keys, **same})
        groups = {missing: key for missing, key in known.groups.items() if missing != other.party}
        made.groups = {**other.groups, **groups}
        session.append(made)
    return session


def heard(ran: LockstepResult[Any], session: Sequence[Protocol], party: int) -> Words:
    """All words that a party received, but for what `Protocol.compare` had it expect word for word."""
    expected = notes(session[party]).compared
    new = [m.words.reshape(-1) for m in ran.transcript[party] if m.words.tobytes() not in expected]
    return np.concatenate([np.empty(0, np.uint64), *new])


def _held(ran: LockstepResult[Any], party: int) -> Words:
    """All words that a party holds of the results, but for what it sends of them to a receiver outside."""
    results = [one.data.reshape(-1) for one in ran.results[party] if isinstance(one, Share)]
    return np.concatenate([np.empty(0, np.uint64), *results])


def _check_independent(cls: type[Protocol], who: str, mine: Words, again: Words, other: Words) -> None:
    """Words from zeros, from the same zeros in another operation, and from large inputs."""
    if mine.size >= _ENOUGH:
        check_alike(f"{who} tells zeros from large inputs", mine, other)
    if cls.words_uniform:
        for words in (mine, other):
            check_uniform(f"{who} is not uniform", words)
    check_unrelated(cls, f"{who} in two operations on the same shares is related", mine, again)


def _check_masked(where: str, session: Sequence[Protocol]) -> None:
    """What was opened under masks, on the same secrets twice and on others, is uniform throughout."""
    opened = [words for protocol in session[:1] for words in notes(protocol).masked]
    if opened:
        words = np.concatenate(opened)
        check_uniform(f"{where}: what it opens under masks is not uniform", words)
        if words.size >= _ENOUGH and has_repeats(words):
            raise ProtocolError(f"{where}: what it opens under masks has words twice; a mask repeats")


def _check_lengths(where: str, party: int, one: LockstepResult[Any], two: LockstepResult[Any]) -> None:
    shapes = [[(m.round, m.sender, m.words.shape) for m in run.transcript[party]] for run in (one, two)]
    if shapes[0] != shapes[1]:
        raise ProtocolError(f"{where}: the lengths of messages to party {party} depend on the secrets")


def check_unrelated(cls: type[Protocol], what: str, one: Words, two: Words) -> None:
    """Two transcripts of one secret: no word the same, and all differences uniform."""
    equal = int(np.count_nonzero(one == two))
    if equal:
        raise ProtocolError(f"{what}: {equal} of {one.size} words are the same")
    if cls.words_uniform and has_repeats(np.concatenate([one, two])):
        raise ProtocolError(f"{what}: some words come twice")
    if cls.words_uniform:
        for name, difference in (("XOR", one ^ two), ("difference", one - two)):
            check_uniform(f"{what}: their {name} is not uniform", difference)


def has_repeats(words: Words) -> bool:
    """Whether some word comes twice."""
    ordered = np.sort(words)
    return bool(np.any(ordered[1:] == ordered[:-1]))


def _histogram(words: Words) -> Any:
    """How often each byte value occurs at each of the eight places of a word."""
    lanes = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8).astype(np.int64) + 256 * np.arange(8)
    return np.bincount(lanes.reshape(-1), minlength=2048).astype(np.float64)


def limit(degrees: int) -> float:
    """The value that chi-square exceeds with chance FALSE_ALARM (Wilson and Hilferty 1931)."""
    z = statistics.NormalDist().inv_cdf(1 - FALSE_ALARM)
    return degrees * float((1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3)


def check_uniform(what: str, words: Words) -> None:
    """Whether all values of each byte of words are about as frequent; raises ProtocolError."""
    if words.size < _ENOUGH:
        return
    expected = words.size / 256
    chi = float(np.sum((_histogram(words) - expected) ** 2) / expected)
    if chi > limit(8 * 255):
        raise ProtocolError(f"{what}: chi-square of its bytes is {chi:.0f}, above {limit(8 * 255):.0f}")


def check_alike(what: str, one: Words, two: Words) -> None:
    """Whether bytes of two lists of words are distributed alike; raises ProtocolError."""
    a, b = _histogram(one), _histogram(two)
    total = a + b
    chi = float(np.sum((a - b) ** 2 / np.where(total > 0, total, 1)))
    if chi > limit(8 * 255):
        raise ProtocolError(
            f"{what}: chi-square between their bytes is {chi:.0f}, above {limit(8 * 255):.0f}"
        )
