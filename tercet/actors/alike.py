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
    """Digests, by peer, of all that is compared of these values by handle; none for one that holds none."""
    found: dict[int, hashlib.blake2b] = {}
    for handle in sorted(handle for handle, stored in inputs.items() if is_compared(protocol, stored)):
        for peer, digest in digests(protocol, inputs[handle]).items():
            whole = found.setdefault(peer, hashlib.blake2b(digest_size=KEY_BYTES))
            whole.update(handle.encode() + b"\0" + digest)
    return {peer: whole.digest() for peer, whole in found.items()}


def is_compared(protocol: type[Protocol] | Protocol, stored: Stored) -> bool:
    """Whether parties compare a value: what was dealt, and where they may be malicious also what runs stored.

    For a corrupt party can choose who hears that a run has ended well, and so have honest ones keep values of
    different runs under one handle. What these would say of them differs by what the corrupt party lacks.
    """
    return stored.dealt or protocol.malicious


def is_work(protocol: type[Protocol], inputs: Mapping[str, Stored]) -> bool:
    """Whether `all_digests` of these takes so long, the first time, that it is for a thread."""
    fresh = [one for one in inputs.values() if is_compared(protocol, one) and one.alike is None]
    if any(isinstance(stored.tiles, FiledTiles) for stored in fresh):
        return True
    return sum(tile.data.size for stored in fresh for tile in stored.tiles) > MOST_AT_ONCE


def sealed(digest: bytes, key: bytes, session: bytes, sender: int) -> bytes:
    """A digest as one end of a link tells it to the other in a session; of none, nothing."""
    if not digest:
        return b""
    said = digest + sender.to_bytes(8, "little") + session
    return hashlib.blake2b(said, key=key, digest_size=KEY_BYTES, person=b"tercet-alike").digest()


def differing(
    protocol: type[Protocol], party: int, peers: Iterable[int], inputs: Mapping[str, Stored]
) -> ProtocolError:
    """What ends a session whose party and peers hold different words of what they compare."""
    compared = {handle: one for handle, one in sorted(inputs.items()) if is_compared(protocol, one)}
    named = ", ".join(map(repr, list(compared)[:MOST_NAMED])) + (
        ", ..." if len(compared) > MOST_NAMED else ""
    )
    what = "uploaded" if all(one.dealt for one in compared.values()) else "uploaded or stored"
    return ProtocolError(
        f"party {party} and party {', '.join(map(str, peers))} hold different words of what was {what} as "
        f"{named}: {'upload' if what == 'uploaded' else 'make'} it again; if that does not help, one of "
        "these parties is faulty"
    )


__all__ = ["all_digests", "differing", "digests", "is_work", "sealed"]
