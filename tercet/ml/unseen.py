"""Characters that nobody can see or tell from others, which stand in no name of a column and in no label.

Control characters and line breaks would end lines of messages and files; format characters such as those that
turn the direction of text, those that show nothing, and spaces other than the plain one, make different texts
look alike.
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing, besides those whose category says so."""


def unseen_in(text: str) -> str | None:
    """The first such character of a text, by its name and number; None if there is none."""
    found = next(filter(_is_hidden, text), None)
    return found and f"{unicodedata.name(found, 'a control character')} (U+{ord(found):04X})"


def _is_hidden(char: str) -> bool:
    # Not unassigned ones (Cn): a later Python knows more of them, and owners and nodes have to agree.
    invisible = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs") and char != " "
    return invisible or _UNSEEN.match(char) is not None
