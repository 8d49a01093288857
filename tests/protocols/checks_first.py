"""A protocol whose parties check a value before they let it out: `reveal` with a round of its own."""

from __future__ import annotations

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Round, declared, gather
from tercet.protocols.prg import keyed_digest
from tercet.protocols.replicated import DIGEST_WORDS, Replicated


class ChecksFirst(Replicated):
    """Lets a value out once every party has seen that the two holders of each component agree on it.

    So that no party has to be told by another: a party compares its components with those who hold them too,
    and hears a digest of the one that it misses from both of its holders, under a key of these two.
    """

    name = "checks first"

    @declared(lambda self, x: self.cost("compare", self._held(x)) | self.each(1, 2 * DIGEST_WORDS))
    def reveal(self, x):
        held = self._held(x)
        yield from gather(self.compare(held), self._compare_missing(held))
        return (yield from super().reveal(x))

    def _held(self, x):
        """Both components that this party holds, by the other holder of each."""
        return {self.prev: x.data[0], self.next: x.data[1]}

    def _compare_missing(self, held):
        tag = self.tag()

        def drawn(peer, purpose):
            return self.draw_with(peer, tag, purpose, (DIGEST_WORDS,))

        sent = {}
        for holder, words in held.items():
            third = 3 - self.party - holder
            said = keyed_digest(drawn(holder, "holders").tobytes(), words)
            sent[third] = [said ^ drawn(third, f"to {third}")]
        got = yield Round(sent, {peer: [(DIGEST_WORDS,)] for peer in held})
        one, two = (got[peer][0] ^ drawn(peer, f"to {self.party}") for peer in held)
        if not np.array_equal(one, two):
            raise ProtocolError(
                f"party {self.prev} and party {self.next} hold different words of what party {self.party} "
                "does not see; nothing left the run"
            )
