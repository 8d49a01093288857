"""A slow network on one machine: a link that adds latency, jitter and a bandwidth cap to another link.

Experiments compare protocols with few rounds against protocols with few bytes, so latency and bandwidth must
be dialled without root rights. The sender puts its clock (CLOCK_MONOTONIC, the same for all processes of a
host) before the header; the receiver holds each frame back until it would have arrived. So frames sent back
to back overlap their latencies, as they do on a real line. Both ends must be shaped; each end's settings rule
what it receives.
"""

from __future__ import annotations

import math
import random
import struct
import time
from collections.abc import Awaitable, Sequence

import attrs

from tercet.errors import TransportError
from tercet.transports.base import Buffer, Link, OneAtATime, WrappedLink
from tercet.transports.fine_sleep import fine_sleeper
from tercet.transports.wire import PREFIX_SIZE

_STAMP = struct.Struct("<d")


@attrs.frozen
class _Held:
    """A frame that is on its way."""

    header: bytes
    payload_length: int
    due: float


class ShapedLink(WrappedLink):
    """A link whose frames arrive `latency_s` seconds late, at `bandwidth_bps` bits per second at most.

    With `jitter_s`, each frame is late by a time of its own, uniform between `latency_s - jitter_s` and
    `latency_s + jitter_s`, but none overtakes another, as in TCP.

    The cap counts whole frames (prefix, header, payload), one after the other. `latency_s` is one way. In
    flight is only what the inner link buffers (64 frames for `memory_pair`, some MiB for TCP); beyond that
    the sender waits, as it does for a real window.

    A receive_header that is cancelled while a frame is held back loses nothing.
    """

    def __init__(
        self, link: Link, latency_s: float, bandwidth_bps: float | None = None, jitter_s: float = 0.0
    ) -> None:
        if not 0 <= latency_s < math.inf:
            raise TransportError(f"A latency of {latency_s} seconds makes no sense; give a number from 0 on.")
        if bandwidth_bps is not None and not bandwidth_bps > 0:
            raise TransportError(
                f"A bandwidth of {bandwidth_bps} bits per second makes no sense; give None for no cap."
            )
        if not 0 <= jitter_s <= latency_s:
            raise TransportError(
                f"A jitter of {jitter_s} seconds makes no sense; give 0 to {latency_s}, the latency."
            )
        super().__init__(link)
        self._latency = latency_s
        self._jitter = jitter_s
        self._last_due = -math.inf
        self._seconds_per_byte = 8.0 / bandwidth_bps if bandwidth_bps else 0.0
        self._line_free = -math.inf
        self._held: _Held | None = None
        self._receiving = OneAtATime("receiving")
        self._sleeper = fine_sleeper()

    async def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Stamp and send one frame; see `Link.send`."""
        await self._link.send(_STAMP.pack(time.monotonic()) + header, buffers)

    def send_now(self, header: bytes, buffers: Sequence[Buffer] = ()) -> Awaitable[None] | None:
        """Stamp one frame and send what leaves at once; see `Link.send_now`."""
        return self._link.send_now(_STAMP.pack(time.monotonic()) + header, buffers)

    def take_payload(self, into: Buffer) -> bool:
        """Fill `into` if the payload has come already; see `Link.take_payload`."""
        return self._link.take_payload(into)

    async def receive_header(self) -> tuple[bytes, int]:
        """Wait until the whole frame would have arrived; see `Link.receive_header`."""
        with self._receiving:
            if self._held is None:
                self._held = self._hold(*await self._link.receive_header())
            await self._sleeper.until(self._held.due)
            held, self._held = self._held, None
            return held.header, held.payload_length

    def _hold(self, stamped: bytes, payload_length: int) -> _Held:
        now = time.monotonic()
        if len(stamped) < _STAMP.size:
            raise TransportError(
                f"{self.peer} sent a frame without a time stamp; wrap both ends in ShapedLink."
            )
        (sent,) = _STAMP.unpack_from(stamped)
        if not math.isfinite(sent):
            raise TransportError(
                f"{self.peer} sent a frame without a time stamp; wrap both ends in ShapedLink."
            )
        sent = min(sent, now)  # a stamp from the future is another host's clock
        size = PREFIX_SIZE + len(stamped) + payload_length
        self._line_free = max(sent, self._line_free) + size * self._seconds_per_byte
        late = self._latency + self._jitter * random.uniform(-1.0, 1.0)  # noqa: S311 - times are no secret
        self._last_due = max(self._last_due, self._line_free + late)
        return _Held(stamped[_STAMP.size :], payload_length, self._last_due)

    async def aclose(self) -> None:
        """Close the inner link; a frame that is held back is lost."""
        self._sleeper.close()
        await super().aclose()


@attrs.frozen
class Shaping:
    """What a link is slowed down to, for experiments on one machine: one-way latency, bandwidth, jitter."""

    latency_s: float = 0.0
    bandwidth_bps: float | None = None
    jitter_s: float = 0.0

    def apply(self, link: Link) -> Link:
        """The link, slowed down if anything is asked for. Both ends must do the same."""
        if self.latency_s == 0 and self.bandwidth_bps is None:
            return link
        return ShapedLink(link, self.latency_s, self.bandwidth_bps, self.jitter_s)
