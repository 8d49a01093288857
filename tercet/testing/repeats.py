"""Masks by experiment: in a draw or message of many words, no word comes twice.

`secrecy` compares samples of a few thousand words, each hidden also by shares that were dealt at random. A
mask that repeats after as many words does not show there. Here parties hold constants, so that a message is
its masks and nothing else, and there are more rows. Some 2^19 words have one twice with a chance of 2^-27.
"""

from __future__ import annotations

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Protocol
from tercet.testing.operations import Operation, zeros
from tercet.testing.secrecy import has_repeats, heard
from tercet.testing.watch import affordable, drawn, look, new_session, run

ROWS = (20_480, 8_192, 4_096, 1_024, 64)
"""Numbers of rows, of which the first is taken that is not too much traffic."""


def check_repeats(cls: type[Protocol], operation: Operation, *, parties: int, dealer: int = 0) -> None:
    """Check that no word comes twice in what a party draws, or receives; raises ProtocolError."""
    session = new_session(cls, parties)
    rows = next((n for n in ROWS if affordable(session[0], operation, n)), 0)
    if operation.discloses or not rows or not operation.is_fixed(rows):
        return
    where = f"{cls.name}: {operation.name} of {rows} rows with dealer {dealer}"
    secrets = operation.inputs(zeros, rows)
    shares = [[p.constant(s.words, domain=s.domain, scale=s.scale) for s in secrets] for p in session]
    with look(session):
        ran, _ = run(session, operation, shares, name="repeats", dealer=dealer)
        for protocol in session:
            if any(has_repeats(words.reshape(-1)) for words in drawn(protocol)):
                raise ProtocolError(
                    f"{where}: party {protocol.party} draws a word twice in one array; its stream repeats"
                )
    for party in range(parties if cls.words_uniform else 0):
        words = heard(ran, session, party)
        ordered, counts = np.unique(words, return_counts=True)
        if ordered.size < words.size:
            raise ProtocolError(
                f"{where}: party {party} receives {int(np.sum(counts > 1))} words more than once, where "
                "nothing but masks differs; a mask repeats"
            )


__all__ = ["check_repeats"]
