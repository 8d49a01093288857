"""A conformance suite for protocols, yours included: call `check_protocol(MyProtocol)` in a test.

It runs every operation of `OPERATIONS` between all parties in one thread, with every party as dealer, and
checks

- values: at the edges and over many shapes; - costs: rounds and bytes of every party are exactly what the
protocol declares; - secrecy: what a party receives has the same lengths and the same distribution whatever
the secrets are, changes
  completely when keys change that the party does not know, and uses no mask or stream twice;
- order: nothing is opened beyond the allowance or behind its back, and a party that changes its share is
caught.

Statistics cannot prove secrecy; they catch a forgotten mask, which is the defect that programs have. Each
statistical test alarms falsely with a chance of 1e-9, and a run makes some hundreds of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tercet.errors import PrivacyError, ProtocolError
from tercet.protocols import kernels
from tercet.protocols.base import Op, Protocol, Share
from tercet.protocols.domains import DOMAINS, Domain, Words
from tercet.testing.lockstep import LockstepResult, lockstep, parties, reconstruct, share
from tercet.testing.operations import OPERATIONS, Operation, Secret, edges, extremes, uniform, zeros

FALSE_ALARM = 1e-9
SIZES = (0, 1, 63, 64, 65, 1000)
SAMPLE = 4096
_ENOUGH = 1024
"""Words below which a transcript is too short for statistics of its bytes."""


def check_protocol(cls: type[Protocol], parties: int | None = None) -> None:
    """Check that a protocol keeps the promises of `Protocol`; `parties` defaults to the first of its `sizes`.

    Raises ProtocolError with a sentence that says which operation broke which promise.
    """
    count = cls.sizes[0] if parties is None else parties
    watched = _watched(cls)
    _check_names(watched, count)
    _check_dealing(watched, count)
    _check_openings(watched, count)
    _check_random(watched, count)
    for operation in OPERATIONS:
        for dealer in range(count):
            check_values(watched, operation, parties=count, dealer=dealer)
            if count > 1 and not operation.discloses:
                check_secrecy(watched, operation, parties=count, dealer=dealer)


# -- running -------------------------------------------------------------------------------------------------


class _Watch:
    """Mixed into a protocol under test: notes streams that were drawn, and openings past the allowance."""

    def _watch(self) -> tuple[set[tuple[bytes, str, str]], list[int]]:
        found: tuple[set[tuple[bytes, str, str]], list[int]] = self.__dict__.setdefault(
            "_watched", (set(), [0])
        )
        return found

    def stream(self, key: bytes, tag: str, purpose: str) -> Any:
        streams, _ = self._watch()
        if (key, tag, purpose) in streams:
            raise ProtocolError(
                f"the stream {purpose!r} of {tag!r} was drawn twice by one party; a mask would repeat"
            )
        streams.add((key, tag, purpose))
        return super().stream(key, tag, purpose)  # type: ignore[misc]

    def open(self, x: Share) -> Any:
        opening = super().open(x)  # type: ignore[misc]
        self._watch()[1][0] += x.size
        return opening

    def opening(self, x: Share) -> Any:
        allowed = self._watch()[1]
        opening = super().opening(x)  # type: ignore[misc]

        def counted() -> Op[Words]:
            # A generator body: `open` has counted by the time it starts.
            if allowed[0] < x.size:
                raise PrivacyError(
                    f"{x.size} words are opened by `opening`, past the count that `open` keeps"
                )
            allowed[0] -= x.size
            result: Words = yield from opening
            return result

        return counted()


def _watched(cls: type[Protocol]) -> type[Protocol]:
    return type(cls.__name__, (_Watch, cls), {})


def _session(cls: type[Protocol], count: int, *, seed: bytes | None = None) -> list[Protocol]:
    session = parties(cls, count, seed=seed)
    for protocol in session:
        if isinstance(protocol, _Watch):
            protocol._watch()  # noqa: SLF001 - made before `bind` copies it
    return session


def _run(
    session: Sequence[Protocol],
    operation: Operation,
    shares: Sequence[list[Share]],
    *,
    name: str,
    dealer: int,
) -> tuple[LockstepResult[list[Any]], list[Protocol]]:
    allowance = sum(x.size for x in shares[0]) if operation.discloses else 0
    bound = [protocol.bind(name, dealer=dealer, openings=allowance) for protocol in session]
    return lockstep([operation.run(p, list(s)) for p, s in zip(bound, shares, strict=True)]), bound


def _share_all(session: Sequence[Protocol], secrets: Sequence[Secret]) -> list[list[Share]]:
    dealt = [share(session, secret.words, domain=secret.domain, scale=secret.scale) for secret in secrets]
    return [[column[party] for column in dealt] for party in range(len(session))]


def _results(session: Sequence[Protocol], results: Sequence[list[Any]]) -> Iterator[Words]:
    for index, first in enumerate(results[0]):
        if isinstance(first, Share):
            yield reconstruct(session, [result[index] for result in results])
        elif all(np.array_equal(first, result[index]) for result in results):
            yield first
        else:
            raise ProtocolError("parties see different values of one opening")


# -- values and costs ----------------------------------------------------------------------------------------


def check_values(
    cls: type[Protocol], operation: Operation, *, parties: int, dealer: int = 0, sizes: Sequence[int] = SIZES
) -> None:
    """Check results and costs of one operation; raises ProtocolError."""
    rng = np.random.default_rng(20240229)
    session = _session(cls, parties)
    for rows in sizes:
        for kind, values in (("edges", edges(rng)), ("uniform", uniform(rng))):
            where = f"{cls.name}: {operation.name} of {rows} rows ({kind}) with dealer {dealer}"
            secrets = operation.inputs(values, rows)
            shares = _share_all(session, secrets)
            try:
                run, bound = _run(session, operation, shares, name=where, dealer=dealer)
                results = list(_results(session, run.results))
            except (ProtocolError, PrivacyError) as cause:
                raise ProtocolError(f"{where}: {cause}") from cause
            expected = operation.expected([secret.words for secret in secrets])
            _check_result(where, operation, results, expected, rows, operation.tolerance(session[0]))
            declared = operation.cost(bound[0], shares[0])
            if (run.rounds, run.sent) != (declared.rounds, declared.sent):
                raise ProtocolError(
                    f"{where}: it took {run.rounds} rounds and sent {run.sent} bytes, but declares "
                    f"{declared.rounds} rounds and {declared.sent} bytes"
                )


def _check_result(
    where: str,
    operation: Operation,
    results: list[Words],
    expected: list[Words],
    rows: int,
    tolerance: int,
) -> None:
    if operation.packed:
        results = [kernels.unpack_bits(words, rows).astype(np.uint64) for words in results]
    if [words.shape for words in results] != [words.shape for words in expected]:
        shapes = [words.shape for words in results], [words.shape for words in expected]
        raise ProtocolError(f"{where}: the results have shapes {shapes[0]}, not {shapes[1]}")
    if operation.unordered:
        results, expected = _in_order(results), _in_order(expected)
    for got, want in zip(results, expected, strict=True):
        off = np.abs((got - want).view(np.int64)) if got.size else np.zeros(1, dtype=np.int64)
        worst = int(off.view(np.uint64).max())
        if worst > tolerance:
            place = int(off.view(np.uint64).argmax())
            raise ProtocolError(
                f"{where}: element {place} is off by {worst} units, of which {tolerance} are "
                f"allowed: {_number(got, place)} for {_number(want, place)}"
            )


def _number(words: Words, place: int) -> int:
    return int(words.reshape(-1).view(np.int64)[place])


def _in_order(columns: list[Words]) -> list[Words]:
    rows = np.concatenate(
        [words.reshape(math.prod(words.shape[:-1]), -1 if words.size else 0) for words in columns]
    )
    return [rows[:, np.lexsort(rows)]]


# -- secrecy -------------------------------------------------------------------------------------------------


def check_secrecy(cls: type[Protocol], operation: Operation, *, parties: int, dealer: int = 0) -> None:
    """Check what each party receives in one operation; raises ProtocolError. See the module's paragraph."""
    where = f"{cls.name}: {operation.name} with dealer {dealer}"
    session = _session(cls, parties)
    nothing, extreme = (operation.inputs(values, SAMPLE) for values in (zeros, extremes))
    shares = _share_all(session, nothing)
    first, _ = _run(session, operation, shares, name="first", dealer=dealer)
    again, _ = _run(session, operation, shares, name="second", dealer=dealer)
    other, _ = _run(session, operation, _share_all(session, extreme), name="third", dealer=dealer)
    for party in range(parties):
        _check_lengths(where, party, first, other)
        who = f"{where}: what party {party} receives"
        mine, theirs = first.received(party), other.received(party)
        if mine.size >= _ENOUGH:
            _check_alike(f"{who} tells zeros from large inputs", mine, theirs)
        if cls.words_uniform:
            for words in (mine, theirs):
                _check_uniform(f"{who} is not uniform", words)
        _check_unrelated(
            cls, f"{who} in two operations on the same shares is related", mine, again.received(party)
        )
        # A session in which all keys are fresh but those that this party knows.
        fresh = _session(cls, parties)
        for peer, key in session[party].keys.items():
            fresh[peer].keys = {**fresh[peer].keys, party: key}
        fresh[party].keys = session[party].keys
        fresh = _rebuilt(cls, fresh)
        same, _ = _run(fresh, operation, shares, name="first", dealer=dealer)
        _check_unrelated(
            cls, f"{who} does not hang on keys that it does not know", mine, same.received(party)
        )


def _rebuilt(cls: type[Protocol], session: Sequence[Protocol]) -> list[Protocol]:
    made = [cls(party=p.party, parties=p.parties, keys=p.keys) for p in session]
    for protocol in made:
        if isinstance(protocol, _Watch):
            protocol._watch()  # noqa: SLF001 - made before `bind` copies it
    return made


def _check_lengths(where: str, party: int, one: LockstepResult[Any], two: LockstepResult[Any]) -> None:
    shapes = [[(m.round, m.sender, m.words.shape) for m in run.transcript[party]] for run in (one, two)]
    if shapes[0] != shapes[1]:
        raise ProtocolError(f"{where}: the lengths of messages to party {party} depend on the secrets")


def _check_unrelated(cls: type[Protocol], what: str, one: Words, two: Words) -> None:
    """Two transcripts of one secret: no word the same, and all differences uniform."""
    equal = int(np.count_nonzero(one == two))
    if equal:
        raise ProtocolError(f"{what}: {equal} of {one.size} words are the same")
    both = np.concatenate([one, two])
    if cls.words_uniform and np.unique(both).size != both.size:
        raise ProtocolError(f"{what}: some words come twice")
    if cls.words_uniform:
        for name, difference in (("XOR", one ^ two), ("difference", one - two)):
            _check_uniform(f"{what}: their {name} is not uniform", difference)


def _histogram(words: Words) -> Any:
    """How often each byte value occurs at each of the eight places of a word."""
    lanes = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8).astype(np.int64) + 256 * np.arange(8)
    return np.bincount(lanes.reshape(-1), minlength=2048).astype(np.float64)


def _limit(degrees: int) -> float:
    """The value that chi-square exceeds with chance FALSE_ALARM (Wilson and Hilferty 1931)."""
    z = statistics.NormalDist().inv_cdf(1 - FALSE_ALARM)
    return degrees * float((1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3)


def _check_uniform(what: str, words: Words) -> None:
    if words.size < _ENOUGH:
        return
    expected = words.size / 256
    chi = float(np.sum((_histogram(words) - expected) ** 2) / expected)
    if chi > _limit(8 * 255):
        raise ProtocolError(f"{what}: chi-square of its bytes is {chi:.0f}, above {_limit(8 * 255):.0f}")


def _check_alike(what: str, one: Words, two: Words) -> None:
    a, b = _histogram(one), _histogram(two)
    total = a + b
    chi = float(np.sum((a - b) ** 2 / np.where(total > 0, total, 1)))
    if chi > _limit(8 * 255):
        raise ProtocolError(
            f"{what}: chi-square between their bytes is {chi:.0f}, above {_limit(8 * 255):.0f}"
        )


# -- the rest of the interface -------------------------------------------------------------------------------


def _refuses(action: Callable[[], Any], error: type[Exception]) -> bool:
    try:
        action()
    except error:
        return True
    return False


def _check_names(cls: type[Protocol], count: int) -> None:
    protocol = _session(cls, count)[0]
    protocol.bind("once")
    if not _refuses(lambda: protocol.bind("once"), ProtocolError):
        raise ProtocolError(f"{cls.name}: `bind` gives one operation name twice; masks would repeat")


def _check_dealing(cls: type[Protocol], count: int) -> None:
    rng = np.random.default_rng(1)
    session = _session(cls, count)
    for domain in DOMAINS.values():
        for shape in ((0,), (1,), (3, 65), (SAMPLE,)):
            values = edges(rng)(shape, 64)
            dealt = cls.deal(values, domain=domain, parties=count)
            for party, parts in enumerate(dealt):
                shapes = cls.dealt_shapes(shape, domain=domain, party=party, parties=count)
                if [part.shape for part in parts] != [tuple(part) for part in shapes]:
                    raise ProtocolError(
                        f"{cls.name}: `deal` of {shape} and `dealt_shapes` disagree for party {party}"
                    )
            shares = share(session, values, domain=domain)
            if not np.array_equal(reconstruct(session, shares), values):
                raise ProtocolError(
                    f"{cls.name}: values of shape {shape} in {domain} do not survive deal and combine"
                )
        if count > 1:
            _check_dealt_secret(cls, session, domain)
            _check_tampering(cls, session, values, domain)


def _check_dealt_secret(cls: type[Protocol], session: Sequence[Protocol], domain: Domain) -> None:
    words = np.zeros(SAMPLE, dtype=np.uint64)
    one, two = (share(session, words, domain=domain) for _ in range(2))
    for party, (a, b) in enumerate(zip(one, two, strict=True)):
        what = f"{cls.name}: party {party}'s share in {domain}, dealt twice, is related"
        _check_unrelated(cls, what, a.data.reshape(-1), b.data.reshape(-1))
        if cls.words_uniform:
            _check_uniform(
                f"{cls.name}: party {party}'s share of zeros in {domain} is not uniform", a.data.reshape(-1)
            )


def _check_tampering(cls: type[Protocol], session: Sequence[Protocol], values: Words, domain: Domain) -> None:
    for party in range(len(session)):
        for component in range(session[0].spec((1,), domain=domain).data.shape[0]):
            shares = share(session, values, domain=domain)
            changed = shares[party].data.copy()
            changed[component, 0] ^= np.uint64(1)
            shares[party] = shares[party].like(changed)
            if not _refuses(lambda s=shares: reconstruct(session, s), ProtocolError):  # type: ignore[misc]
                raise ProtocolError(
                    f"{cls.name}: `combine` does not notice that party {party} changed its share"
                )
            bound = [
                p.bind(f"tampered/{party}/{component}", openings=values.size)
                for p in _session(cls, len(session))
            ]
            operations = [p.open(x) for p, x in zip(bound, shares, strict=True)]
            if not _refuses(lambda o=operations: lockstep(o), ProtocolError):  # type: ignore[misc]
                raise ProtocolError(
                    f"{cls.name}: `open` does not notice that party {party} changed its share"
                )


def _check_openings(cls: type[Protocol], count: int) -> None:
    session = _session(cls, count)
    shares = share(session, np.arange(10, dtype=np.uint64))
    bound = [protocol.bind("openings", openings=19) for protocol in session]
    lockstep([p.open(x) for p, x in zip(bound, shares, strict=True)])
    for protocol, x in zip(bound, shares, strict=True):
        if not _refuses(lambda p=protocol, x=x: next(p.open(x)), PrivacyError):  # type: ignore[misc]
            raise ProtocolError(
                f"{cls.name}: 20 words were opened of 19 that were allowed, without a PrivacyError"
            )


def _check_random(cls: type[Protocol], count: int) -> None:
    session = _session(cls, count)
    bound = [protocol.bind("random") for protocol in session]
    for domain in DOMAINS.values():
        one, two = (
            reconstruct(session, lockstep([p.fresh((SAMPLE,), domain=domain) for p in bound]).results)
            for _ in range(2)
        )
        _check_unrelated(cls, f"{cls.name}: two random values in {domain} are related", one, two)
        if cls.words_uniform:
            _check_uniform(f"{cls.name}: random words in {domain} are not uniform", one)


__all__ = ["OPERATIONS", "Operation", "check_protocol", "check_secrecy", "check_values"]
