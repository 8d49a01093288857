"""Who may shake hands: strangers are counted by their address, so that those at one hinder nobody at another.

A listener asks before each handshake and says when it is over. An address has so many under way at a time,
and all together more; what comes beyond lets the oldest of the same address go, or the oldest of the one that
has most: whoever is honest is done in a moment, so the oldest are those that wait on purpose. New connections
of an address are so many a second. No sockets and no clock: whoever calls says what time it is.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

import attrs

from tercet.transports.tcp import split_address

MOST_ADDRESSES = 1 << 14
"""Addresses whose rate is remembered; those that were quiet for longest are forgotten first."""
V6_NETWORK = 64
"""Of an IPv6 address, the bits that a stranger cannot pick at will."""


@attrs.define
class TokenBucket:
    """Lets `rate` things a second pass, and `burst` at once; what comes earlier has to wait, all in a row."""

    rate: float
    burst: float
    _level: float = attrs.field(default=attrs.Factory(lambda self: self.burst, takes_self=True))
    _at: float = 0.0

    def spend(self, now: float, cost: float = 1.0) -> float:
        """Take a token; how many seconds to wait until it is there. Time must not run backwards."""
        self._refill(now)
        self._level -= cost
        return max(0.0, -self._level / self.rate)

    def has(self, now: float) -> bool:
        """Whether a token is there; takes it if so."""
        self._refill(now)
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def _refill(self, now: float) -> None:
        self._level = min(self.burst, self._level + self.rate * max(0.0, now - self._at))
        self._at = now


@attrs.frozen
class Limits:
    """What strangers may have: handshakes at a time, of an address and in all, and new ones a second."""

    at_once: int = 256
    of_address: int = 8
    a_second: float = 20.0
    burst: float = 100.0


DEFAULT_ADMISSION = Limits()


@attrs.define(eq=False)
class Handshake:
    """One that is under way; `give_up` ends it."""

    address: str
    give_up: Callable[[], None]


class Admission:
    """Handshakes under way at one listener."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._under_way: dict[str, OrderedDict[Handshake, None]] = {}
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()
        self.count = 0

    def allows(self, address: str, now: float) -> bool:
        """Whether one more connection of an address may shake hands now, by how many it has made lately."""
        bucket = self._rates.get(address)
        if bucket is None:
            bucket = self._rates[address] = TokenBucket(self._limits.a_second, self._limits.burst, at=now)
            if len(self._rates) > MOST_ADDRESSES:
                self._rates.popitem(last=False)
        self._rates.move_to_end(address)
        return bucket.has(now)

    def begin(self, address: str, give_up: Callable[[], None]) -> Handshake:
        """A handshake begins; the one that has to make room for it, if any, is given up."""
        crowd = None
        if len(self._under_way.get(address, ())) >= self._limits.of_address:
            crowd = address
        elif self.count >= self._limits.at_once:
            crowd = max(self._under_way, key=lambda one: len(self._under_way[one]))
        if crowd is not None:
            oldest = next(iter(self._under_way[crowd]))
            self.end(oldest)
            oldest.give_up()
        begun = Handshake(address, give_up)
        self._under_way.setdefault(address, OrderedDict())[begun] = None
        self.count += 1
        return begun

    def end(self, handshake: Handshake) -> None:
        """A handshake is over, or was given up."""
        mine = self._under_way.get(handshake.address)
        if mine is not None and handshake in mine:
            del mine[handshake]
            self.count -= 1
            if not mine:
                del self._under_way[handshake.address]


def address_of(where: str) -> str:
    """What a connection from "host:port" is counted under: its IPv4 address, or its IPv6 network."""
    host = split_address(where)[0].partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, V6_NETWORK), strict=False))
    return host
