"""The page `docs/reference/costs.md`: what operations cost, as declared and as measured.

`python -m tercet.testing.costs` prints it.
"""

from __future__ import annotations

import sys

from tercet.protocols import registry
from tercet.protocols.base import Protocol
from tercet.testing.lockstep import lockstep, parties, share
from tercet.testing.operations import OPERATIONS, Operation, zeros

ROWS = 4096
_HEADER = f"""# What operations cost

Rounds, and bytes that each party sends for each of n rows, for n = {ROWS} with party 0 as dealer: as the
protocol declares them, and as measured. The scheduler rotates the dealer over tiles, so every party sends the
mean. What goes to the receiver of a reveal, outside, is not counted. What a sort costs hangs on chance, and a
mean is declared. This page is written by
`python -m tercet.testing.costs`; a test keeps it true.
"""


def costs_page() -> str:
    """The page, in Markdown: every operation of every built-in protocol."""
    sections = [_HEADER]
    for name in registry.BUILT_IN:
        rows = [_row(registry.get(name), operation) for operation in OPERATIONS]
        table = [
            "| operation | rounds declared | measured | bytes a row declared | measured |",
            "| --- | --- | --- | --- | --- |",
            *rows,
        ]
        sections.append(f"## {name}\n\n" + "\n".join(table) + "\n")
    return "\n".join(sections)


def _row(cls: type[Protocol], operation: Operation) -> str:
    session = parties(cls, seed=b"costs")
    secrets = operation.inputs(zeros, ROWS)
    columns = [share(session, one.words, domain=one.domain, scale=one.scale) for one in secrets]
    shares = [[column[party] for column in columns] for party in range(len(session))]
    bound = [
        protocol.bind("cost", openings=operation.openings(own))
        for protocol, own in zip(session, shares, strict=True)
    ]
    run = lockstep([operation.run(p, s) for p, s in zip(bound, shares, strict=True)])
    declared = operation.cost(bound[0], shares[0])
    cells = [", ".join(f"{sent / ROWS:.4g}" for sent in each) for each in (declared.sent, run.sent)]
    return f"| {operation.name} | {declared.rounds} | {run.rounds} | {cells[0]} | {cells[1]} |"


__all__ = ["costs_page"]

if __name__ == "__main__":
    sys.stdout.write(costs_page())
