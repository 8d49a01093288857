"""Sealed records: how bytes travel on a link once TLS has shown who is at its ends.

TLS shakes hands, and the ends tell each other over it that they are content, and 32 random bytes each. From
these bytes and both certificates they derive a key for each direction (HKDF, RFC 5869), and from then on the
connection carries records of their own instead of TLS's:

    length u32 | AES-256-GCM (NIST SP 800-38D) of 1 to 2^18 bytes | tag of 16 bytes

big-endian: TLS's own records begin with a byte that is no zero, and so are too long for one of these. A nonce
is the record's number under its key, and the length is authenticated with the record; after 2^16 records, at
most 16 GiB, the next key is derived from the last. So a record that was altered, left out, repeated, moved or
sent back is an error, and ends the link. That a stream ends is not authenticated, as little as a cable that
is cut: whoever reads frames knows whether one is whole.

Why not TLS's records: they have 16 KiB and pass two more buffers on each side, which cost more than the
cipher does.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Awaitable, Iterator, Sequence

import attrs
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tercet.transports.stream import ByteStream, DamagedError

CONTRIBUTION_BYTES = 32
"""Random bytes that each end tells the other over TLS."""
RECORD_BYTES = 1 << 18
"""Plain bytes of a record, at most."""
RECORDS_PER_KEY = 1 << 16
_KEY_BYTES, _NONCE_BYTES, _TAG_BYTES = 32, 12, 16
_LENGTH = struct.Struct(">I")
_SHORT = 1 << 14
"""Bytes up to which it is quicker to join pieces than to hand them to the cipher one by one."""
_ALONE = 1 << 16
"""Bytes from which on it is quicker to begin another record than to copy them once more at the receiver."""
RECORDS_AT_ONCE = 256
"""Records that are opened in one go, in about half a millisecond, however short they are."""
_FIRST_BUFFER, _LARGEST_BUFFER = 1 << 16, 1 << 20
_KEYS, _NEXT_KEY = b"tercet sealed records 1: both keys", b"tercet sealed records 1: next key"


@attrs.frozen
class Contribution:
    """What one end gives to the keys: random bytes, and the certificate (DER) that it has proved to own."""

    random: bytes = attrs.field(repr=False)
    certificate: bytes


def keys_of(client: Contribution, server: Contribution) -> tuple[bytes, bytes]:
    """The keys of what the client sends and of what the server sends.

    They depend on who both ends are. Else someone in between could pass on the random bytes of two ends that
    each mean to talk to it, and so give both links the same keys (an unknown key-share attack).
    """
    ends = b"".join(hashlib.sha256(end.certificate).digest() for end in (client, server))
    both = _derived(client.random + server.random, _KEYS + ends, 2 * _KEY_BYTES)
    return both[:_KEY_BYTES], both[_KEY_BYTES:]


def _derived(secret: bytes, label: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=label).derive(secret)


class Direction:
    """What is sent one way: its present key, and how many records were sealed or opened with that.

    Each end calls `seal` or `open` once for each record, in the order in which they are sent.
    """

    def __init__(self, key: bytes) -> None:
        self._take(key)

    def _take(self, key: bytes) -> None:
        self._key, self._number = key, 0
        self._short, self._cipher = AESGCM(key), algorithms.AES(key)

    def _nonce(self) -> bytes:
        if self._number == RECORDS_PER_KEY:
            self._take(_derived(self._key, _NEXT_KEY, _KEY_BYTES))
        nonce = self._number.to_bytes(_NONCE_BYTES, "big")
        self._number += 1
        return nonce

    def seal(self, pieces: Sequence[memoryview], out: bytearray) -> memoryview:
        """A record of some pieces, of `RECORD_BYTES` together at most; a long one is written to `out`."""
        size = sum(map(len, pieces))
        length, nonce = _LENGTH.pack(size), self._nonce()
        if size <= _SHORT:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return memoryview(length + self._short.encrypt(nonce, data, length))
        record = memoryview(out)
        encryptor = Cipher(self._cipher, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(length)
        record[: len(length)] = length
        end = len(length)
        for piece in pieces:
            end += encryptor.update_into(piece, record[end:])
        encryptor.finalize()
        record[end : end + _TAG_BYTES] = encryptor.tag
        return record[: end + _TAG_BYTES]

    def open(self, length: bytes, sealed: memoryview, into: memoryview) -> None:
        """Write the bytes of a record, of exactly that length, to `into`. Raises DamagedError.

        What `into` has after an error means nothing.
        """
        nonce = self._nonce()
        try:
            if len(sealed) <= _SHORT:
                into[:] = self._short.decrypt(nonce, sealed, length)
                return
            tag = bytes(sealed[-_TAG_BYTES:])
            decryptor = Cipher(self._cipher, modes.GCM(nonce, tag)).decryptor()
            decryptor.authenticate_additional_data(length)
            decryptor.update_into(sealed[:-_TAG_BYTES], into)
            decryptor.finalize()
        except InvalidTag:
            raise DamagedError("its tag is wrong") from None


class SealedStream(ByteStream):
    """Records over a byte stream; `early` is what has come of them before."""

    def __init__(self, stream: ByteStream, *, sends: Direction, receives: Direction, early: bytes) -> None:
        self._stream = stream
        self._sends, self._receives = sends, receives
        self._out = bytearray()
        self._buffer = bytearray(early.ljust(_FIRST_BUFFER, b"\0"))
        self._start, self._end = 0, len(early)
        self._plain = bytearray()
        self._left = memoryview(b"")
        """What is left of a record that was opened into `_plain`."""
        self._damaged = False

    async def send_all(self, pieces: list[memoryview]) -> None:
        """Seal and send; short neighbours share records, and a short record goes with what is behind it."""
        sealed = []
        for record in _records(pieces):
            long = sum(map(len, record)) > _SHORT
            if long and not self._out:
                self._out = bytearray(_LENGTH.size + RECORD_BYTES + _TAG_BYTES)
            sealed.append(self._sends.seal(record, self._out))
            if long:  # `_out` is needed again
                await self._stream.send_all(sealed)
                sealed = []
        if sealed:
            await self._stream.send_all(sealed)

    def send_now(self, pieces: list[memoryview]) -> Awaitable[None] | None:
        """One record, if they are short; long ones are sealed as they leave."""
        if sum(map(len, pieces)) > _SHORT:
            return self.send_all(pieces)
        return self._stream.send_now([self._sends.seal(pieces, self._out)])

    async def receive_into(self, view: memoryview) -> int:
        """Open into `view` the next records that have arrived and fit, or part of one that is longer."""
        if self._left or self._end > self._start:
            await trio.lowlevel.checkpoint()  # else the read below is one
        while not (count := self._opened(view)):
            arrived = await self._stream.receive_into(self._room())
            if not arrived:
                return 0
            self._end += arrived
        return count

    def _room(self) -> memoryview:
        """Room for what arrives; it grows with what has come."""
        waiting = self._end - self._start
        if self._end == len(self._buffer):
            size = min(2 * len(self._buffer), _LARGEST_BUFFER)
            kept = self._buffer[self._start : self._end]
            if size > len(self._buffer):
                self._buffer = bytearray(size)
            self._buffer[:waiting] = kept
            self._start, self._end = 0, waiting
        elif not waiting:
            self._start = self._end = 0
        return memoryview(self._buffer)[self._end :]

    def _opened(self, view: memoryview) -> int:
        """How many bytes were written to `view`: 0 if more have to arrive. Raises DamagedError."""
        have = len(self._left) and self._taken(view)
        try:
            for _ in range(RECORDS_AT_ONCE):
                if self._left or have == len(view) or not (size := self._arrived()):
                    break
                if size <= len(view) - have:
                    self._open(size, view[have : have + size])
                    have += size
                elif have:
                    break
                else:
                    if not self._plain:
                        self._plain = bytearray(RECORD_BYTES)
                    self._left = self._open(size, memoryview(self._plain)[:size])
                    have = self._taken(view)
        except DamagedError:
            if not have:
                raise  # else the next call does: what came before was whole
        return have

    def _open(self, size: int, into: memoryview) -> memoryview:
        """Open the next record, of `size` bytes. Raises DamagedError, and then nothing more is opened."""
        begin = self._start + _LENGTH.size
        length, end = bytes(self._buffer[self._start : begin]), begin + size + _TAG_BYTES
        self._damaged = True
        self._receives.open(length, memoryview(self._buffer)[begin:end], into)
        self._start, self._damaged = end, False
        return into

    def _arrived(self) -> int:
        """Plain bytes of the next record if all of it is there, else 0. Raises DamagedError."""
        if self._damaged:
            raise DamagedError("an earlier record was damaged")
        waiting = self._end - self._start
        if waiting < _LENGTH.size:
            return 0
        (size,) = _LENGTH.unpack_from(self._buffer, self._start)
        if not 0 < size <= RECORD_BYTES:
            self._damaged = True
            raise DamagedError(f"a record of {size} bytes")
        return size if waiting >= _LENGTH.size + size + _TAG_BYTES else 0

    def _taken(self, view: memoryview) -> int:
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()


def _records(pieces: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """The pieces in order, cut where a record is full, and before a long piece.

    So what is long, a payload, is opened where it is wanted, and not first where a frame's header is.
    """
    record: list[memoryview] = []
    room = RECORD_BYTES
    for piece in pieces:
        rest = piece
        if record and len(rest) > _ALONE:
            yield record
            record, room = [], RECORD_BYTES
        while len(rest) > room:
            record.append(rest[:room])
            rest = rest[room:]
            yield record
            record, room = [], RECORD_BYTES
        record.append(rest)
        room -= len(rest)
    if room < RECORD_BYTES:
        yield record
