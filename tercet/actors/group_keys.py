"""Keys of all parties but one, made for a session from what each of them draws, and compared before use.

Each party draws a seed for each group that it is in, and tells it to the other members. The key of a group is
a hash of all their seeds. A party that tells two others different seeds would have them draw different words
where they must draw the same ones, and what they check later could then tell it something (eprint 2026/234).
So all members of a group compare digests under the key before anything hangs on it, each for one pair and
direction, so that none can send back what it was sent.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol
from tercet.protocols.prg import KEY_BYTES, derive_key


def groups_of(protocol: type[Protocol], parties: int, *members: int) -> tuple[int, ...]:
    """The groups that all these parties are in, each by the party that is not; none without `group_keys`."""
    return tuple(one for one in range(parties) if one not in members) if protocol.group_keys else ()


def read_words(words: Any, count: int, what: str) -> tuple[bytes, ...]:
    """So many seeds or digests from the wire, 32 bytes each. Raises ProtocolError."""
    if not isinstance(words, list) or len(words) != count:
        raise ProtocolError(f"{what} has {count} strings of {KEY_BYTES} bytes, and nothing else")
    if any(not isinstance(word, bytes) or len(word) != KEY_BYTES for word in words):
        raise ProtocolError(f"{what} has strings of {KEY_BYTES} bytes, and nothing else")
    return tuple(words)


def group_key(session: bytes, missing: int, seeds: Mapping[int, bytes]) -> bytes:
    """The key of all parties but one in a session, from the seeds of all its members."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES, person=b"tercet-group")
    for part in (session, missing.to_bytes(8, "little"), *(seeds[member] for member in sorted(seeds))):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


class GroupKeys:
    """The keys of one party's groups in one session: its seeds first, then the keys, once all have theirs."""

    def __init__(self, session: bytes, party: int, parties: int) -> None:
        self._session = session
        self._party = party
        self._seeds = {
            missing: {party: secrets.token_bytes(KEY_BYTES)} for missing in range(parties) if missing != party
        }
        self.keys: dict[int, bytes] = {}
        """By the party that does not know the key, in order."""

    def seeds_for(self, peer: int) -> list[bytes]:
        """What a peer is told: a seed for each group that it is in as well."""
        return [seeds[self._party] for missing, seeds in self._seeds.items() if missing != peer]

    def hear(self, peer: int, seeds: Sequence[bytes]) -> None:
        """Take what a peer has told."""
        common = [missing for missing in self._seeds if missing != peer]
        for missing, seed in zip(common, seeds, strict=True):
            self._seeds[missing][peer] = seed

    def make(self) -> None:
        """Make the keys, once all peers have told theirs."""
        self.keys = {
            missing: group_key(self._session, missing, seeds) for missing, seeds in self._seeds.items()
        }

    def digests(self, sender: int, receiver: int) -> list[bytes]:
        """What a member tells another to show that it has the same keys, of all groups that both are in."""
        name = f"confirm {sender} to {receiver}".encode()
        return [
            derive_key(key, name) for missing, key in self.keys.items() if missing not in (sender, receiver)
        ]

    def check(self, told: Mapping[int, Sequence[bytes]]) -> None:
        """Compare with what all peers have told. Raises ProtocolError, naming those who differ."""
        wrong: list[int] = []
        suspects = {self._party}
        for peer, digests in sorted(told.items()):
            common = [missing for missing in self.keys if missing != peer]
            for missing, said, due in zip(common, digests, self.digests(peer, self._party), strict=True):
                if not secrets.compare_digest(said, due):
                    wrong += [peer] if peer not in wrong else []
                    suspects |= self._seeds[missing].keys()
        if wrong:
            raise ProtocolError(
                f"party {self._party} and party {_listed(wrong)} do not have the same keys: one of the "
                f"parties {_listed(sorted(suspects))} is faulty, and the run was given up before any key was "
                "used"
            )


def _listed(parties: Sequence[int]) -> str:
    return ", ".join(map(str, parties))
