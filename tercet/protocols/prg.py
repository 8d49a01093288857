"""Keyed pseudorandom streams, one for every (key, session, operation, purpose).

Parties that share a key draw the same words without talking. A stream is named, never positioned: the name
says for which session, plan node, tile, step and purpose the words are, so the order in which operations run
can neither change a result nor use a mask twice. A key has one AES-128 key (keyed BLAKE2b), and block b of a
stream is the encryption of its nonce, 96 bits of the keyed hash of its name, followed by b in 32 bits: AES in
counter mode, where each name has a range of counters of its own. Short draws, of which small tables need
thousands, are encrypted block by block under a cipher that is set up once for the key, and long ones by GCM,
which is counter mode with a tag, where that is quicker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from tercet.protocols.domains import WORD_BYTES, Words

KEY_BYTES = 32
BLOCK_WORDS = 1 << 15
"""Words drawn at a time, 128 KiB: small enough that a block stays in the cache until it is used."""

BLOCK_BYTES, NONCE_BYTES = 16, 12
MOST_WORDS = 1 << 33
"""Words of one stream: 2^32 blocks."""
SHORT_WORDS = 192
"""Up to here, words of a stream are encrypted block by block: to set a counter takes as long as 90 blocks."""
LONG_WORDS = 1 << 14
"""A stream whose first draws are so long goes on in GCM, where that is quicker; it takes more to set up."""
GCM_IS_QUICKER = "AVX512_ICL" in np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
"""Whether the processor has instructions that encrypt four blocks at once: OpenSSL uses them for GCM alone.

Without them, the sum for the tag, which GCM makes too, takes half as long as the cipher.
"""
_GCM_START = 2 * BLOCK_BYTES
"""Where in a stream GCM begins: two of its counters are taken by what it does not encrypt."""

_ZEROS = memoryview(bytes(1 << 20))
"""What is encrypted: so much in a call that calls, which give up the interpreter lock, are few."""
_COUNTERS = tuple(number.to_bytes(BLOCK_BYTES - NONCE_BYTES, "big") for number in range(SHORT_WORDS // 2))


def derive_key(key: bytes, name: bytes, size: int = KEY_BYTES) -> bytes:
    """A fresh key of `size` bytes for `name`, from a parent key (keyed BLAKE2b)."""
    return hashlib.blake2b(name, key=key, digest_size=size).digest()


def session_key(master: bytes, session: bytes, nonces: Mapping[int, bytes]) -> bytes:
    """The key that two parties use in one session, from their link's key and their fresh nonces, by party.

    It hangs on nothing that a third party says, so none can make the two have different keys.
    """
    told = [part for party in sorted(nonces) for part in (party.to_bytes(8, "little"), nonces[party])]
    parts = (session, *told)
    return derive_key(master, b"session" + b"".join(len(part).to_bytes(8, "little") + part for part in parts))


def keyed_digest(key: bytes, words: Words) -> Words:
    """A 32-byte digest of words, as four words, which tells nothing without the key (keyed BLAKE2b)."""
    octets = np.ascontiguousarray(words).reshape(-1).view(np.uint8).data
    return np.frombuffer(hashlib.blake2b(octets, key=key, digest_size=KEY_BYTES).digest(), dtype=np.uint64)


class StreamKey:
    """A key, with the cipher that its streams have in common; it lives as long as whoever draws with it."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._cipher = algorithms.AES(derive_key(key, b"streams", 16))
        self._nonces = hashlib.blake2b(key=key, digest_size=NONCE_BYTES, person=b"tercet-stream")
        self._idle: list[CipherContext] = []
        self._counting: list[CipherContext] = []

    def nonce(self, name: bytes) -> bytes:
        """What blocks of the stream of a name begin with."""
        nonces = self._nonces.copy()  # quicker than to begin with the key again
        nonces.update(name)
        return nonces.digest()

    def encrypt(self, blocks: bytes) -> bytes:
        """Each block by itself. In any thread."""
        try:
            context = self._idle.pop()
        except IndexError:
            # Blocks are counters, none of which comes twice, so this is counter mode by hand.
            context = Cipher(self._cipher, modes.ECB()).encryptor()  # noqa: S305
        encrypted = context.update(blocks)
        self._idle.append(context)
        return encrypted

    def fill(self, view: memoryview, first: bytes, skipped: int) -> None:
        """Overwrite bytes with those of counter mode from a block on, but for the first. In any thread."""
        try:
            context = self._counting.pop()  # setting the counter takes a tenth of making a context
            context.reset_nonce(first)
        except IndexError:
            context = Cipher(self._cipher, modes.CTR(first)).encryptor()
        if skipped:
            context.update(bytes(skipped))
        _draw(context, view)
        self._counting.append(context)

    def running(self, nonce: bytes, skipped: int) -> CipherContext:
        """What encrypts zeros to a stream from `_GCM_START` on, but for the first bytes of that.

        GCM with a nonce of 96 bits encrypts in counter mode (NIST SP 800-38D, 7.1), and no tag is asked for.
        """
        context = Cipher(self._cipher, modes.GCM(nonce)).encryptor()
        context.update(bytes(skipped))
        return context


def _draw(context: CipherContext, view: memoryview) -> None:
    """Overwrite bytes with what a context in counter mode encrypts zeros to."""
    for begin in range(0, len(view), len(_ZEROS)):
        part = view[begin : begin + len(_ZEROS)]
        context.update_into(_ZEROS[: len(part)], part)


class Stream:
    """The pseudorandom words of one key and name, drawn in order, up to `MOST_WORDS`.

    Whoever constructs two streams with the same key and name gets the same words twice; `Protocol.stream`
    hands out each name once.
    """

    def __init__(self, key: bytes | StreamKey, name: bytes) -> None:
        self._key = key if isinstance(key, StreamKey) else StreamKey(key)
        self._nonce = self._key.nonce(name)
        self._drawn = 0
        self._running: CipherContext | None = None

    def fill(self, out: Words) -> Words:
        """Overwrite a C-contiguous array with the next `out.size` words, and return it."""
        if not out.flags.c_contiguous:
            raise ValueError("a stream fills contiguous arrays only")
        start, size = self._drawn, out.size
        end = self._drawn = start + size
        if end > SHORT_WORDS:
            if end > MOST_WORDS:
                raise ValueError(f"a stream has {MOST_WORDS} words, and no more")
            self._fill_long(out.reshape(-1).view(np.uint8).data, start)
        elif size:
            counters = _COUNTERS[start // 2 : (end + 1) // 2]
            # The nonce goes in front of each counter: before the first, and between them.
            blocks = self._key.encrypt(self._nonce + self._nonce.join(counters))
            out[...] = np.ndarray(out.shape, np.uint64, blocks, start % 2 * WORD_BYTES)
        return out

    def _fill_long(self, view: memoryview, start: int) -> None:
        long = start <= LONG_WORDS <= len(view) // WORD_BYTES
        if long and self._running is None and GCM_IS_QUICKER:
            before = max(0, _GCM_START - start * WORD_BYTES)
            self._count(view[:before], start)
            self._running = self._key.running(self._nonce, start * WORD_BYTES + before - _GCM_START)
            view = view[before:]
        if self._running is None:
            self._count(view, start)
        else:
            _draw(self._running, view)

    def _count(self, view: memoryview, start: int) -> None:
        counter = (start // 2).to_bytes(BLOCK_BYTES - NONCE_BYTES, "big")
        self._key.fill(view, self._nonce + counter, start % 2 * WORD_BYTES)

    def words(self, shape: tuple[int, ...]) -> Words:
        """The next words as a new array of `shape`."""
        return self.fill(np.empty(shape, dtype=np.uint64))
