"""What owners allow: who may use a table, for which plans, and what may be revealed of it.

Rules travel with an upload and are kept by every node, which enforces them by itself. They hold for the table
and for everything that is computed from it, until it is revealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import attrs
import msgpack

from tercet.consent.review import Review
from tercet.errors import ConsentError

Plans = Literal["any", "approved"]


@attrs.frozen
class Rules:
    """An owner's rules for a table or model.

    `readers` are members who may use it, all analysts if empty. With `plans="approved"` each plan of theirs
    waits until the owner has signed it. `rows` allows that single rows are revealed; figures must rest on at
    least `min_count` rows, also after a join.
    """

    readers: tuple[str, ...] = ()
    plans: Plans = "approved"
    min_count: int = 1
    rows: bool = False

    def to_bytes(self) -> bytes:
        """For the wire and the catalog."""
        packed: bytes = msgpack.packb([list(self.readers), self.plans, self.min_count, self.rows])
        return packed

    @classmethod
    def from_bytes(cls, packed: bytes) -> Rules:
        """What `to_bytes` gave. Raises ConsentError for anything else."""
        try:
            match msgpack.unpackb(packed):
                case [list(readers), str(plans), int(least), bool(rows)]:
                    if (
                        plans in get_args(Plans)
                        and least >= 1
                        and all(isinstance(one, str) for one in readers)
                    ):
                        return cls(tuple(readers), "any" if plans == "any" else "approved", least, rows)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ConsentError(f"what came as rules of an owner is malformed ({error})") from error
        raise ConsentError("what came as rules of an owner is malformed: there are no such rules")

    @property
    def least(self) -> int:
        """Rows that a figure must rest on: one row is no figure, unless single rows may be revealed."""
        return max(self.min_count, 1 if self.rows else 2)

    def check(self, table: str, owner: str, caller: str, roles: Sequence[str], review: Review) -> None:
        """Raise ConsentError unless a member may have a plan run that reads a table."""
        if caller == owner:
            return
        if caller not in self.readers and (self.readers or "analyst" not in roles):
            raise ConsentError(f"{owner} does not let {caller} use table {table!r}; ask {owner}")
        shown = review.rows_of(table)
        if shown and not self.rows:
            raise ConsentError(
                f"{owner} does not let single rows of table {table!r} be revealed, and the plan would reveal "
                f"{shown[0]}; reveal figures over many rows"
            )
        fewest = review.fewest.get(table, self.least)
        if fewest < self.least:
            raise ConsentError(
                f"{owner} lets figures of table {table!r} rest on no fewer than {self.least} rows, and the "
                f"plan has one over {fewest}"
            )
        apart = review.apart.get(table, self.least)
        if apart < self.least:
            raise ConsentError(
                f"{owner} lets figures of table {table!r} rest on no fewer than {self.least} rows, and the "
                f"plan cuts the rows into parts of which one has {apart}: figures over parts with it and "
                "without it would tell of those alone"
            )

    def __str__(self) -> str:
        who = ", ".join(self.readers) or "every analyst"
        plans = "any plan" if self.plans == "any" else "plans that the owner has approved"
        least = f", figures over {self.min_count} rows or more" if self.min_count > 1 else ""
        return f"{who}: {plans}{least}{'' if self.rows else ', no single rows'}"
