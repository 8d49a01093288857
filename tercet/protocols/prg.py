"""Keyed pseudorandom streams, one for every (key, session, operation, purpose).

Parties that share a key draw the same words without talking. A stream is named, never positioned: the name
says for which session, plan node, tile, step and purpose the words are, so the order in which operations run
can neither change a result nor use a mask twice. The name and the key are hashed (keyed BLAKE2b) into an
AES-128 key, and the stream is AES-CTR from counter zero; a stream key is never used for a second name, so
counters cannot collide.
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from tercet.protocols.domains import Words

KEY_BYTES = 32
BLOCK_WORDS = 1 << 15
"""Words drawn at a time, 128 KiB: small enough that a block stays in the cache until it is used."""

_ZEROS = memoryview(bytes(1 << 20))
"""What is encrypted: so much in a call that calls, which give up the interpreter lock, are few."""
_COUNTER_ZERO = modes.CTR(bytes(16))


def derive_key(key: bytes, name: bytes, size: int = KEY_BYTES) -> bytes:
    """A fresh key of `size` bytes for `name`, from a parent key (keyed BLAKE2b)."""
    return hashlib.blake2b(name, key=key, digest_size=size).digest()


def keyed_digest(key: bytes, words: Words) -> Words:
    """A 32-byte digest of words, as four words, which tells nothing without the key (keyed BLAKE2b)."""
    octets = np.ascontiguousarray(words).reshape(-1).view(np.uint8).data
    return np.frombuffer(hashlib.blake2b(octets, key=key, digest_size=KEY_BYTES).digest(), dtype=np.uint64)


class Stream:
    """The pseudorandom words of one key and name, drawn in order.

    Whoever constructs two streams with the same key and name gets the same words twice; `Protocol.stream`
    hands out each name once.
    """

    def __init__(self, key: bytes, name: bytes) -> None:
        self._context: CipherContext = Cipher(
            algorithms.AES(derive_key(key, name, 16)), _COUNTER_ZERO
        ).encryptor()

    def fill(self, out: Words) -> Words:
        """Overwrite a C-contiguous array with the next `out.size` words, and return it."""
        if not out.flags.c_contiguous:
            raise ValueError("a stream fills contiguous arrays only")
        view = out.reshape(-1).view(np.uint8).data
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._context.update_into(_ZEROS[: len(part)], part)
        return out

    def words(self, shape: tuple[int, ...]) -> Words:
        """The next words as a new array of `shape`."""
        return self.fill(np.empty(shape, dtype=np.uint64))
