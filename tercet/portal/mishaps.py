"""What becomes of errors that nobody has foreseen: a portal goes on, says so on its page, and shows how.

Tasks of a portal go on beside its pages, and one that fails would end it. What nodes tell them is checked,
and refused in a sentence; this is for what is left.
"""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def unforeseen(what: str, error: Exception) -> str:
    """A sentence on what has failed; the terminal shows where."""
    logger.error("%s failed in an unforeseen way", what, exc_info=error)
    return f"{what} failed in an unforeseen way ({type(error).__name__}); the portal's terminal shows where"
