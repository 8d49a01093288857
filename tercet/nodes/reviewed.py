"""What a node remembers of a plan that it has looked through, until the run is over."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from tercet.errors import ConsentError, PlanError
from tercet.members.rules import Rules
from tercet.members.study_pages import DOES
from tercet.ml.computations import is_computed
from tercet.nodes.requests import Built
from tercet.plans.parsing import check_handle
from tercet.plans.plan import Plan
from tercet.plans.review import NOTHING, Review, Tables
from tercet.storage.catalog import Entry

LONGEST_SHOWN = 512
"""Characters of a name in a plan by hand."""


@attrs.frozen
class Reviewed:
    """A plan that was let through: whose, what it does, the tables it reads, and what it is bound to."""

    caller: str
    review: Review
    sources: Tables
    bound: bytes
    built: Built | None = None
    """Of what request it was made; None if it was made by hand."""

    @property
    def stored(self) -> Mapping[str, Tables]:
        """By handle, the tables whose rows what it stores is by: none of what a computation has learned.

        What a fit has beside its model for each row, as columns of a formula, is by row.
        """
        found, does = self.review.stored, None if self.built is None else DOES.get(self.built.known.name)
        if does is not None and does.learns:
            return {handle: rows if handle in self.review.long else NOTHING for handle, rows in found.items()}
        return found


def plan_handles(plan: Plan, kind: str) -> list[str]:
    """The handles under which a plan reads (`input`) or stores (`store`) values, each once, in order."""
    return list(dict.fromkeys(str(node.get("handle")) for node in plan.nodes if node.kind == kind))


def require_given(handle: str) -> None:
    """Raise PlanError for a handle that no member may give a value: what computations read is theirs."""
    check_handle(handle)
    if is_computed(handle):
        raise PlanError(
            f"{handle!r:.80} is a handle as computations give them, and only these do: what was computed "
            "stays what it is; take another"
        )


def by_hand(plan: Plan) -> Plan:
    """A plan that a member has written.

    Raises PlanError if it stores under handles that it may not, or if what owners read of it before they sign
    has characters that hide or move text, or is longer than anybody reads.
    """
    for handle in plan_handles(plan, "store"):
        require_given(handle)
    for text in (plan.name, *(one.what for one in plan.disclosures()), *plan_handles(plan, "input")):
        if not text.isprintable() or len(text) > LONGEST_SHOWN:
            raise PlanError(
                f"{text!a:.80} is the name of a plan, or of what it reads or reveals, which people read "
                f"before they sign: write it in up to {LONGEST_SHOWN} printable characters"
            )
    return plan


def check_counts(entry: Entry, found: Review, symbols: Mapping[str, int]) -> None:
    """Raise ConsentError if a join or filter leaves fewer rows than an owner wants figures to rest on."""
    least = Rules.from_bytes(entry.rules).least
    says = f"{entry.owner} lets figures of {entry.name!r} rest on no fewer than {least} rows, and "
    if min(symbols.values(), default=least) < least:
        raise ConsentError(f"{says}a join has less")
    for symbol, rows in found.kept.items():
        if 0 < rows - symbols.get(symbol, rows) < least:
            raise ConsentError(f"{says}a filter leaves less than that out")
    for symbol, rows in found.unmatched.items():
        if rows - symbols.get(symbol, rows) < least:
            raise ConsentError(f"{says}less than that match")
