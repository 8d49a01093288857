"""Streams: the same for one key and name, in whatever pieces they are drawn, and unlike any other."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tercet.protocols.prg import BLOCK_WORDS, Stream, derive_key

KEY = bytes(range(32))


@given(st.lists(st.integers(0, 3 * BLOCK_WORDS // 2), max_size=6))
def test_pieces_make_one_stream(pieces):
    whole = Stream(KEY, b"name").words((sum(pieces),))
    stream = Stream(KEY, b"name")
    parts = [stream.words((piece,)) for piece in pieces]
    np.testing.assert_array_equal(np.concatenate([np.empty(0, np.uint64), *parts]), whole)


def test_the_stream_is_aes_in_counter_mode_under_a_hashed_key():
    key = hashlib.blake2b(b"name", key=KEY, digest_size=16).digest()
    assert derive_key(KEY, b"name", 16) == key
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = b"".join(encryptor.update(counter.to_bytes(16, "big")) for counter in range(BLOCK_WORDS))
    np.testing.assert_array_equal(
        Stream(KEY, b"name").words((2 * BLOCK_WORDS,)), np.frombuffer(blocks, np.uint64)
    )


def test_names_and_keys_make_unlike_streams():
    streams = [(KEY, b"a"), (KEY, b"b"), (KEY[::-1], b"a"), (KEY[:31], b"a")]
    words = np.concatenate([Stream(key, name).words((1000,)) for key, name in streams])
    assert np.unique(words).size == words.size  # a false alarm has a chance below 2^-41


def test_any_shape_is_filled_in_order():
    words = Stream(KEY, b"name").words((2, 3, 5))
    np.testing.assert_array_equal(words.reshape(-1), Stream(KEY, b"name").words((30,)))
    assert Stream(KEY, b"name").words((3, 0)).shape == (3, 0)
    with pytest.raises(ValueError, match="contiguous"):
        Stream(KEY, b"name").fill(np.empty((4, 4), dtype=np.uint64)[:, :2])
