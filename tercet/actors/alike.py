"""What was dealt to two parties alike, compared before a plan reads it.

An owner's client, or the way from there, may be faulty, so that nodes which are to hold the same words of a
table hold different ones. Plans on it would end in the middle, and accuse a node, or give something else. So
parties tell each other digests when a plan starts that reads what was dealt, under a key of their link and
for one session and direction. That finds accidents and crude cheating, and takes no round. It is no proof: a
corrupt node can tell the digest of what it was dealt, and compute with something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from tercet.actors.values import FiledTiles, Stored
from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol
from tercet.protocols.prg import KEY_BYTES

MOST_AT_ONCE = 1 << 17
"""Words that are looked through in the event loop: a millisecond."""
MOST_NAMED = 3
"""Handles that an error names."""


def digests(protocol: Protocol, stored: Stored) -> Mapping[int, bytes]:
    """Digests of the words of a value that this party holds together with others, by peer.

    They are found once, tile by tile, for which tiles in files are read. Raises StorageError.
    """
    if stored.alike is None:
        found: dict[int, hashlib.blake2b] = {}
        for tile in stored.tiles:
            for peer, words in protocol.held_alike(tile).items():
                octets = np.ascontiguousarray(words).reshape(-1).view(np.uint8).data
                found.setdefault(peer, hashlib.blake2b(digest_size=KEY_BYTES)).update(octets)
        stored.alike = {peer: digest.digest() for peer, digest in found.items()}
    return stored.alike


def all_digests(protocol: Protocol, inputs: Mapping[str, Stored]) -> dict[int, bytes]:
    """Digests, by peer, of all that was dealt among these values by handle; none for one that holds none."""
    found: dict[int, hashlib.blake2b] = {}
    for handle in sorted(handle for handle, stored in inputs.items() if stored.dealt):
        for peer, digest in digests(protocol, inputs[handle]).items():
            whole = found.setdefault(peer, hashlib.blake2b(digest_size=KEY_BYTES))
            whole.update(handle.encode() + b"\0" + digest)
    return {peer: whole.digest() for peer, whole in found.items()}


def is_work(inputs: Mapping[str, Stored]) -> bool:
    """Whether `all_digests` of these takes so long, the first time, that it is for a thread."""
    fresh = [stored for stored in inputs.values() if stored.dealt and stored.alike is None]
    if any(isinstance(stored.tiles, FiledTiles) for stored in fresh):
        return True
    return sum(tile.data.size for stored in fresh for tile in stored.tiles) > MOST_AT_ONCE


def sealed(digest: bytes, key: bytes, session: bytes, sender: int) -> bytes:
    """A digest as one end of a link tells it to the other in a session; of none, nothing."""
    if not digest:
        return b""
    said = digest + sender.to_bytes(8, "little") + session
    return hashlib.blake2b(said, key=key, digest_size=KEY_BYTES, person=b"tercet-alike").digest()


def differing(party: int, peers: Iterable[int], inputs: Mapping[str, Stored]) -> ProtocolError:
    """What ends a session whose party and peers hold different words of what was dealt."""
    handles = sorted(handle for handle, stored in inputs.items() if stored.dealt)
    named = ", ".join(map(repr, handles[:MOST_NAMED])) + (", ..." if len(handles) > MOST_NAMED else "")
    return ProtocolError(
        f"party {party} and party {', '.join(map(str, peers))} hold different words of what was uploaded as "
        f"{named}: upload it again; if that does not help, one of these parties is faulty"
    )


__all__ = ["all_digests", "differing", "digests", "is_work", "sealed"]
