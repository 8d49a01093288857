"""A conformance suite for protocols, yours included: call `check_protocol(MyProtocol)` in a test.

It runs every operation of `OPERATIONS`, sorting among them, between all parties in one thread, with every
party as dealer, and checks

- values, at the edges and over many shapes, scales and widths (`properties`, which needs hypothesis), and
  that truncations are right on average (`bias`);
- costs: rounds and bytes of every party are exactly what the protocol declares (a sort's are a mean);
- secrecy: what a party receives has the same lengths and the same distribution whatever the secrets are,
  changes completely when keys change that the party does not know, and uses no mask or stream twice
  (`secrecy`), nor one that repeats within a long message (`repeats`); no sum of bits of all that a party sees
  is a bit of an input or result (`linear`);
- shuffles: no party knows the order, which is new each time (`permutations`);
- openings and reveals: nothing is opened beyond the allowance or behind its back, and a party that changes
  its share is caught, by the parties or by the receiver;
- order: results do not depend on what runs before, beside, or in which tiles (`order`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tercet.errors import PrivacyError, ProtocolError
from tercet.protocols.base import Protocol, Share
from tercet.protocols.domains import DOMAINS, Domain, Words
from tercet.testing.bias import check_bias
from tercet.testing.correctness import check_values
from tercet.testing.linear import check_linear
from tercet.testing.lockstep import lockstep, reconstruct, share
from tercet.testing.operations import OPERATIONS, Operation, edges, revealed
from tercet.testing.order import check_order
from tercet.testing.permutations import check_permutations
from tercet.testing.repeats import check_repeats
from tercet.testing.secrecy import SAMPLE, check_keys, check_secrecy, check_uniform, check_unrelated
from tercet.testing.telling import Line
from tercet.testing.watch import new_session, results, watched


def check_protocol(cls: type[Protocol], parties: int | None = None) -> None:
    """Check that a protocol keeps the promises of `Protocol`; `parties` defaults to the first of its `sizes`.

    Raises ProtocolError with a sentence that says which operation broke which promise. On a terminal, a line
    says meanwhile what is under way.
    """
    steps = list(_steps(watched(cls), cls.sizes[0] if parties is None else parties))
    with Line() as line:
        for number, (what, step) in enumerate(steps, 1):
            line.write(f"{cls.name}: {what} ({number} of {len(steps)})")
            step()


def _steps(cls: type[Protocol], count: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is checked, in order: a few words, and a check that raises ProtocolError."""
    from tercet.testing.properties import check_properties  # here, for hypothesis is not always there

    yield "names", lambda: _check_names(cls, count)
    yield "dealing", lambda: check_dealing(cls, count)
    yield "openings", lambda: _check_openings(cls, count)
    yield "random words", lambda: check_random(cls, count)
    for operation in OPERATIONS:
        yield operation.name, functools.partial(_check_operation, cls, operation, count)
    yield "orders of shuffles", lambda: check_permutations(cls, parties=count)
    yield "means of truncations", lambda: check_bias(cls, parties=count)
    yield "made-up operations", lambda: check_properties(cls, parties=count)
    yield "orders and tiles", lambda: check_order(cls, parties=count)


def _check_operation(cls: type[Protocol], operation: Operation, count: int) -> None:
    for dealer in range(count):
        check_values(cls, operation, parties=count, dealer=dealer)
        if count > 1 and not operation.discloses:
            check_secrecy(cls, operation, parties=count, dealer=dealer)
    if count > 1:
        check_linear(cls, operation, parties=count)
        check_repeats(cls, operation, parties=count)
        if operation.name == "mul":
            check_keys(cls, operation, parties=count)


# -- the rest of the interface -------------------------------------------------------------------------------


def _refuses(action: Callable[[], Any], error: type[Exception]) -> bool:
    try:
        action()
    except error:
        return True
    return False


def _check_names(cls: type[Protocol], count: int) -> None:
    protocol = new_session(cls, count)[0]
    protocol.bind("once")
    if not _refuses(lambda: protocol.bind("once"), ProtocolError):
        raise ProtocolError(f"{cls.name}: `bind` gives one operation name twice; masks would repeat")


def check_dealing(cls: type[Protocol], count: int) -> None:
    rng = np.random.default_rng(1)
    session = new_session(cls, count)
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
        check_unrelated(cls, what, a.data.reshape(-1), b.data.reshape(-1))
        if cls.words_uniform:
            check_uniform(
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
            for name, action in (("open", _open), ("reveal", _reveal)):
                if not _refuses(lambda a=action, s=shares: a(cls, s), ProtocolError):  # type: ignore[misc]
                    raise ProtocolError(
                        f"{cls.name}: `{name}` does not notice that party {party} changed its share"
                    )


def _open(cls: type[Protocol], shares: Sequence[Share]) -> None:
    """An opening by a new session. ProtocolError if a party notices that shares do not fit together."""
    bound = [p.bind("tampered", openings=shares[0].size) for p in new_session(cls, len(shares))]
    lockstep([p.open(x) for p, x in zip(bound, shares, strict=True)])


def _reveal(cls: type[Protocol], shares: Sequence[Share]) -> None:
    """A reveal by a new session. ProtocolError if a party, or then the receiver, notices the same."""
    bound = [p.bind("tampered") for p in new_session(cls, len(shares))]
    ran = lockstep([revealed(p, x) for p, x in zip(bound, shares, strict=True)])
    list(results(bound, ran.results))


def _check_openings(cls: type[Protocol], count: int) -> None:
    session = new_session(cls, count)
    shares = share(session, np.arange(10, dtype=np.uint64))
    bound = [protocol.bind("openings", openings=19) for protocol in session]
    lockstep([p.open(x) for p, x in zip(bound, shares, strict=True)])
    for protocol, x in zip(bound, shares, strict=True):
        if not _refuses(lambda p=protocol, x=x: next(p.open(x)), PrivacyError):  # type: ignore[misc]
            raise ProtocolError(
                f"{cls.name}: 20 words were opened of 19 that were allowed, without a PrivacyError"
            )


def check_random(cls: type[Protocol], count: int) -> None:
    session = new_session(cls, count)
    bound = [protocol.bind("random") for protocol in session]
    for domain in DOMAINS.values():
        one, two = (
            reconstruct(session, lockstep([p.fresh((SAMPLE,), domain=domain) for p in bound]).results)
            for _ in range(2)
        )
        check_unrelated(cls, f"{cls.name}: two random values in {domain} are related", one, two)
        if cls.words_uniform:
            check_uniform(f"{cls.name}: random words in {domain} are not uniform", one)


__all__ = ["OPERATIONS", "Operation", "check_protocol", "check_secrecy", "check_values"]
