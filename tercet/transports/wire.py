"""The frame format of Tercet's links, as pure functions over bytes: no sockets, no event loop, no clock.

A frame is a prefix of 16 bytes, a short header (msgpack made by the caller, opaque here) and a payload of raw
buffers:

    magic "T3" | version u8 | flags u8 (zero) | header length u32 | payload length u64 | header | payload

all little-endian. Header and payload are apart so that a reader can look at the header, compare the payload's
length with what it expects, and only then allocate the array into which the kernel writes. Whatever arrives
is judged before it costs anything: lengths have limits, and memory grows with the bytes that came, never with
the bytes that were announced. An error says whose fault it is: "this end" for a local mistake, the peer's
name for a remote one.
"""

from __future__ import annotations

import struct
from typing import Any

import attrs
import msgpack

from tercet.errors import TransportError

MAGIC = b"T3"
VERSION = 1
_PREFIX = struct.Struct("<2sBBIQ")
PREFIX_SIZE = _PREFIX.size
_FIRST_BUFFER = 64 * 1024
# msgpack reserves room for as many items as an array or map claims; nested claims could multiply.
_MAX_ITEMS = 1 << 20


@attrs.frozen
class FrameLimits:
    """The largest header and payload, in bytes, that an end sends or believes."""

    header: int = 16 * 1024 * 1024
    payload: int = 1 << 36


DEFAULT_LIMITS = FrameLimits()


def encode_prefix(header_length: int, payload_length: int, *, limits: FrameLimits = DEFAULT_LIMITS) -> bytes:
    """Return the 16 bytes that open a frame.

    Raises:
      TransportError: this end tried to send more than `limits` allow.
    """
    if not 0 <= header_length <= limits.header:
        raise TransportError(
            f"This end tried to send a header of {header_length} bytes, but a frame's header has at most "
            f"{limits.header}; put bulk data into the payload."
        )
    if not 0 <= payload_length <= limits.payload:
        raise TransportError(
            f"This end tried to send a payload of {payload_length} bytes, but a frame carries at most "
            f"{limits.payload}; split it into several frames."
        )
    return _PREFIX.pack(MAGIC, VERSION, 0, header_length, payload_length)


def parse_prefix(
    prefix: bytes | bytearray | memoryview, *, peer: str, limits: FrameLimits = DEFAULT_LIMITS
) -> tuple[int, int]:
    """Return (header length, payload length) from the 16 bytes that open a frame sent by `peer`.

    Raises:
      TransportError: the peer sent something that is no frame, another version, or more than `limits` allow.
    """
    magic, version, flags, header_length, payload_length = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise TransportError(
            f"What {peer} sent is no Tercet frame (it starts with {bytes(prefix[:4])!r}); check that the "
            "address belongs to a Tercet node and that both ends use the same transport."
        )
    if version != VERSION:
        raise TransportError(
            f"{peer} speaks version {version} of the frame format, this end version {VERSION}; "
            "install the same release of Tercet at both ends."
        )
    if flags:
        raise TransportError(
            f"{peer} sent a frame with unknown flags {flags:#04x}; version {VERSION} has none."
        )
    if header_length > limits.header:
        raise TransportError(
            f"{peer} announced a header of {header_length} bytes; this end accepts at most {limits.header}."
        )
    if payload_length > limits.payload:
        raise TransportError(
            f"{peer} announced a payload of {payload_length} bytes; this end accepts at most "
            f"{limits.payload}."
        )
    return header_length, payload_length


class FrameReader:
    """Cuts a byte stream into headers and payloads; whoever owns it does the reading.

    The owner asks for `next_header`; on None it reads from its stream into `space` and reports how much came
    with `filled`. After a header the owner takes the payload: first what was read ahead (`take_payload`), the
    rest straight from the stream into its array, told with `payload_arrived`. Nothing is lost between calls,
    so a read may be cancelled and resumed.
    """

    def __init__(self, limits: FrameLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._buffer = bytearray(_FIRST_BUFFER)
        self._start = 0
        self._end = 0
        self._lengths: tuple[int, int] | None = None
        self.payload_left = 0

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and is not complete, so that an end of stream now would cut it."""
        return self._lengths is not None or self._end > self._start or self.payload_left > 0

    @property
    def may_have_header(self) -> bool:
        """Whether bytes are waiting, so that `next_header` might succeed without reading."""
        return self._end > self._start

    def space(self) -> memoryview:
        """Return room for at least one more byte; it grows by doubling, after bytes have come to fill it."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > _FIRST_BUFFER:
                self._buffer = bytearray(_FIRST_BUFFER)
        elif self._end == len(self._buffer):
            waiting = self._end - self._start
            grown = self._buffer if self._start else bytearray(2 * len(self._buffer))
            grown[:waiting] = self._buffer[self._start : self._end]
            self._buffer, self._start, self._end = grown, 0, waiting
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> None:
        """Note that `count` bytes were written to the start of `space()`."""
        self._end += count

    def next_header(self, peer: str) -> tuple[bytes, int] | None:
        """Return (header, payload length) once the header is complete, else None.

        Raises:
          TransportError: `peer` sent something malformed, or the caller has not taken the last payload.
        """
        if self.payload_left:
            raise TransportError(
                f"This end asked for a header while {self.payload_left} bytes of the last payload from "
                f"{peer} have not been received; call receive_payload first."
            )
        if self._lengths is None:
            if self._end - self._start < PREFIX_SIZE:
                return None
            prefix = self._buffer[self._start : self._start + PREFIX_SIZE]
            self._lengths = parse_prefix(prefix, peer=peer, limits=self.limits)
            self._start += PREFIX_SIZE
        header_length, payload_length = self._lengths
        if self._end - self._start < header_length:
            return None
        header = bytes(memoryview(self._buffer)[self._start : self._start + header_length])
        self._start += header_length
        self._lengths = None
        self.payload_left = payload_length
        return header, payload_length

    @property
    def has_payload(self) -> bool:
        """Whether all that is left of a payload was read ahead."""
        return self._end - self._start >= self.payload_left

    def take_payload(self, into: memoryview) -> int:
        """Move payload bytes that were read ahead to the start of `into`; return how many."""
        count = min(self._end - self._start, self.payload_left, len(into))
        if count:
            into[:count] = memoryview(self._buffer)[self._start : self._start + count]
            self._start += count
            self.payload_left -= count
        return count

    def payload_arrived(self, count: int) -> None:
        """Note that `count` payload bytes went from the stream straight to their destination."""
        self.payload_left -= count


def pack_message(message: object) -> bytes:
    """Return `message` as msgpack.

    It is made of None, bools, integers of 64 bits, floats, str, bytes, lists and dicts with str keys. Tuples
    arrive as lists.

    Raises:
      TransportError: this end tried to send something else.
    """
    try:
        packed: bytes = msgpack.packb(message, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TransportError(
            f"This end tried to send a message that msgpack cannot carry ({error}); "
            "use plain numbers, strings, bytes, lists and dicts."
        ) from error
    return packed


def _refuse_extension(code: int, data: bytes) -> object:  # noqa: ARG001
    raise ValueError(f"extension type {code} is not allowed")


def unpack_message(data: bytes, *, peer: str = "the peer") -> Any:
    """Return the object that `pack_message` wrote; other dict keys and extension types are refused.

    Raises:
      TransportError: `peer` sent bytes that are not one such message.
    """
    items = min(len(data), _MAX_ITEMS)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            max_ext_len=0,
            max_array_len=items,
            max_map_len=items,
        )
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise TransportError(
            f"A message from {peer} is not valid msgpack ({reason}); it was discarded."
        ) from error
