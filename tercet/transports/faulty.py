"""Links that go wrong on purpose, so that tests can show that nothing hangs and every error names its peer.

`FaultyLink` wraps one end of a link. What it receives is untouched; what it sends is fine for some frames,
then one fault happens. Faults that damage a frame happen once; those that end a link last.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import trio

from tercet.errors import TransportError
from tercet.transports.base import Buffer, Link, WrappedLink, byte_view
from tercet.transports.wire import PREFIX_SIZE


class Fault(enum.Enum):
    """What happens to a frame."""

    DROP = "drop"
    """It is lost; later frames arrive."""

    STALL = "stall"
    """It is lost, and so are all later ones, while the link stays open: a frozen process or a black hole."""

    TRUNCATE = "truncate"
    """Half of it arrives, then the link closes: a process killed while it sent."""

    FLIP_HEADER = "flip header"
    """One bit of its header is inverted."""

    FLIP_PAYLOAD = "flip payload"
    """One bit of its payload is inverted."""

    CLOSE = "close"
    """The link closes instead."""


@runtime_checkable
class Truncating(Protocol):
    """A link that can send part of a frame; those of memory, TCP and TLS can."""

    async def send_truncated(self, header: bytes, buffers: Sequence[Buffer], *, keep: int) -> None:
        """Send the first `keep` bytes of a frame and close."""
        ...


class FaultyLink(WrappedLink):
    """A link that sends `after` frames well; then `fault` befalls the next.

    A bit is flipped in the middle of header or payload; a header or payload that is empty passes unharmed and
    the fault waits for the next frame. After TRUNCATE and CLOSE this end is closed.

    Raises:
      TransportError: TRUNCATE is asked of a link that cannot send part of a frame; wrap that link's inner
        one.
    """

    def __init__(self, link: Link, fault: Fault, *, after: int = 0) -> None:
        if fault is Fault.TRUNCATE and not isinstance(link, Truncating):
            raise TransportError(
                f"{type(link).__name__} cannot truncate a frame; wrap the link inside it instead."
            )
        super().__init__(link)
        self._fault = fault
        self._good = after
        self._happened = False

    async def send(self, header: bytes, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame, well or badly; see `Link.send`."""
        if self._good > 0:
            self._good -= 1
            await self._link.send(header, buffers)
        elif self._happened and self._fault is not Fault.STALL:
            await self._link.send(header, buffers)
        else:
            await self._send_badly(header, buffers)

    async def _send_badly(self, header: bytes, buffers: Sequence[Buffer]) -> None:
        payload = bytearray().join(byte_view(buffer) for buffer in buffers)
        self._happened = True
        match self._fault:
            case Fault.DROP | Fault.STALL:
                await trio.lowlevel.checkpoint()
            case Fault.CLOSE:
                await self._link.aclose()
            case Fault.TRUNCATE if isinstance(self._link, Truncating):
                # At least the header and all but one byte at most, so that the peer believes the frame.
                await self._link.send_truncated(
                    header, buffers, keep=PREFIX_SIZE + len(header) + len(payload) // 2
                )
            case Fault.FLIP_HEADER:
                self._happened = bool(header)
                await self._link.send(_flip(header), buffers)
            case _:
                self._happened = bool(payload)
                await self._link.send(header, [_flip(payload)])


def _flip(data: bytes | bytearray) -> bytes:
    """Return `data` with the lowest bit of its middle byte inverted."""
    spoilt = bytearray(data)
    if spoilt:
        spoilt[len(spoilt) // 2] ^= 1
    return bytes(spoilt)
