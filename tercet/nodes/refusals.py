"""Refusals in the audit log: each member's are written down, up to so many an hour, and each is short.

What members ask for is theirs to word and to repeat, and the log is everybody's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tercet.members.audit import AuditLog

logger = logging.getLogger(__name__)

MOST_REFUSALS = 1000
"""Lines in the audit log for refusals of one member, in an hour."""
LONGEST = 500
"""Characters of a sentence or name in the audit log."""
MOST_LISTED = 32


def cut(text: str) -> str:
    """A text as the log has it."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def shortened(listed: Sequence[str]) -> list[str]:
    """A list as the log has it: how many more there are tells the last item."""
    more = len(listed) - MOST_LISTED
    return [*map(cut, listed[:MOST_LISTED]), *([f"{more} more"] if more > 0 else [])]


class Refusals:
    """Writes down what was refused to whom."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._hour = 0
        self._counts: dict[str, int] = {}

    def write(self, caller: str, request: str, why: str, facts: Mapping[str, Any]) -> None:
        """Something was refused. Raises StorageError if the log cannot be written."""
        hour = int(time.time() // 3600)
        if hour != self._hour:
            self._hour, self._counts = hour, {}
        count = self._counts[caller] = self._counts.get(caller, 0) + 1
        if count > MOST_REFUSALS:
            logger.warning("%s was refused a %r request: %s", caller, cut(request), cut(why))
            return
        more = ""
        if count == MOST_REFUSALS:
            more = f"; more of {caller} in this hour are only in the node's log"
        self._audit.append("refused", caller=caller, request=cut(request), why=cut(why) + more, **facts)
