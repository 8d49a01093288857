"""Approvals: an owner's signature under one plan, for one run of it.

What is signed names the lake, the run, the plan's digest, the approver and an end. So an approval is worth
nothing for a plan that was altered, in another lake, or for another run: runs are named by 16 random bytes,
and a node notes for good which ones it has let start.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs
import msgpack

from tercet.errors import ConsentError
from tercet.members.keys import MemberKeys, verify

PURPOSE = b"approval"
DAYS = 7
LONGEST_S = 366 * 86400.0


@attrs.frozen
class Approval:
    """An approval, as it travels; `expires` is in seconds since 1970."""

    session: bytes
    digest: bytes
    approver: str
    expires: float
    signature: bytes = attrs.field(default=b"", repr=False)

    def _message(self, lake: bytes) -> bytes:
        packed: bytes = msgpack.packb([lake, self.session, self.digest, self.approver, self.expires])
        return packed

    @classmethod
    def make(
        cls, lake: bytes, session: bytes, digest: bytes, keys: MemberKeys, *, days: float = DAYS
    ) -> Approval:
        """Sign a plan's digest for one run."""
        unsigned = cls(session, digest, keys.identity.name, time.time() + days * 86400)
        return attrs.evolve(unsigned, signature=keys.sign(PURPOSE, unsigned._message(lake)))

    def check(self, lake: bytes, session: bytes, digest: bytes, certificates: Sequence[str]) -> None:
        """Raise ConsentError unless this approves the plan of that digest for that run, now.

        It is signed with the key of one of these certificates.
        """
        who, message = self.approver, self._message(lake)
        if not any(verify(one, PURPOSE, message, self.signature) for one in certificates):
            raise ConsentError(f"the approval in the name of {who} is not signed with the key of {who}")
        if self.session != session:
            raise ConsentError(f"{who} has approved another run; approvals hold for one run")
        if self.digest != digest:
            raise ConsentError(f"{who} has approved another plan than this one; show it to {who} again")
        if not time.time() <= self.expires <= time.time() + LONGEST_S:
            raise ConsentError(f"the approval of {who} has expired; ask {who} again")
