"""Streams: the same for one key and name, in whatever pieces they are drawn, and unlike any other."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from tercet.protocols import prg
from tercet.protocols.prg import BLOCK_WORDS, LONG_WORDS, SHORT_WORDS, Stream, StreamKey, derive_key

KEY = bytes(range(32))
PINNED = ["3f4a64c26287e56a", "a562fa809846f641", "73d69aa87ca1f50d"]
DERIVED = "5d31af979c062088"


@given(st.lists(st.integers(0, 3 * BLOCK_WORDS // 2), max_size=6))
def test_pieces_make_one_stream(pieces):
    whole = Stream(KEY, b"name").words((sum(pieces),))
    stream = Stream(KEY, b"name")
    parts = [stream.words((piece,)) for piece in pieces]
    np.testing.assert_array_equal(np.concatenate([np.empty(0, np.uint64), *parts]), whole)


def by_hand(name, blocks):
    """The stream of a name, from hashlib and a block cipher."""
    key = hashlib.blake2b(b"streams", key=KEY, digest_size=16).digest()
    nonce = hashlib.blake2b(name, key=KEY, digest_size=12, person=b"tercet-stream").digest()
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return np.frombuffer(
        b"".join(encryptor.update(nonce + block.to_bytes(4, "big")) for block in range(blocks)), np.uint64
    )


@pytest.mark.parametrize("words", [1, 2, 3, SHORT_WORDS - 1, SHORT_WORDS, SHORT_WORDS + 1, 2 * BLOCK_WORDS])
def test_the_stream_is_aes_in_counter_mode_with_a_nonce_for_each_name(words):
    expected = by_hand(b"name", BLOCK_WORDS)[:words]
    np.testing.assert_array_equal(Stream(KEY, b"name").words((words,)), expected)
    np.testing.assert_array_equal(Stream(StreamKey(KEY), b"name").words((words,)), expected)


def test_the_words_of_a_known_key_and_name():
    """Pinned, since nodes of different releases must draw alike."""
    assert [f"{word:016x}" for word in Stream(KEY, b"name").words((3,))] == PINNED
    assert derive_key(KEY, b"name", 16).hex()[:16] == DERIVED


@given(st.lists(st.sampled_from([0, 1, 2, 3, SHORT_WORDS // 2, SHORT_WORDS]), max_size=8))
def test_short_and_long_draws_make_one_stream(pieces):
    stream = Stream(KEY, b"name")
    parts = [stream.words((piece,)) for piece in pieces]
    expected = by_hand(b"name", BLOCK_WORDS)[: sum(pieces)]
    np.testing.assert_array_equal(np.concatenate([np.empty(0, np.uint64), *parts]), expected)


@pytest.mark.parametrize("gcm", [False, True])
@pytest.mark.parametrize(
    "start", [0, 1, 3, 4, 5, SHORT_WORDS // 2, SHORT_WORDS + 1, LONG_WORDS - 1, LONG_WORDS + 1]
)
def test_a_stream_goes_on_in_gcm_from_its_first_long_draw(start, gcm, monkeypatch):
    monkeypatch.setattr(prg, "GCM_IS_QUICKER", gcm)
    stream = Stream(KEY, b"name")
    parts = [stream.words((piece,)) for piece in (start, LONG_WORDS, 1, 7, LONG_WORDS + 3, 2)]
    expected = by_hand(b"name", 2 * BLOCK_WORDS)[: sum(map(len, parts))]
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_threads_draw_from_one_key_at_a_time():
    key, expected = StreamKey(KEY), {}
    names = [f"name {number}".encode() for number in range(400)]
    for name in names:
        expected[name] = Stream(KEY, name).words((9,))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            drawn = list(pool.map(lambda name: Stream(key, name).words((9,)), names))
    finally:
        sys.setswitchinterval(before)
    for name, words in zip(names, drawn, strict=True):
        np.testing.assert_array_equal(words, expected[name])


def test_a_stream_ends_before_its_counter_runs_over(monkeypatch):
    monkeypatch.setattr(prg, "MOST_WORDS", 1000)
    stream = Stream(KEY, b"name")
    stream.words((999,))
    stream.words((1,))
    with pytest.raises(ValueError, match="a stream has 1000 words, and no more"):
        stream.words((1,))


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
