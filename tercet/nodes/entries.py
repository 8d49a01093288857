"""Entries of the catalog as members see and ask for them: names that nobody mistakes, sizes nobody minds.

Names are labels for people and decide nothing at a node, which goes by identities. But people go by them, so
a name is printable, in one script, and does not look like another member's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tercet.errors import ConsentError, ProtocolError
from tercet.members.rules import LATEST, MODEL, NUMBER, TABLE, Rules
from tercet.storage.catalog import Entry, Label

LONGEST_NAME = 256
MOST_BODY = 1 << 22
"""Bytes of a description: room for the columns and categories of a wide table."""
MOST_RULES = 1 << 16
MOST_VALUES = 4096
"""Values of one entry."""
GONE = "(a table that is gone)"


def read_entry(caller: str, fields: Mapping[str, Any]) -> Entry:
    """An entry from the wire. Raises ProtocolError or ConsentError."""
    match fields:
        case {
            "kind": str(kind),
            "name": str(name),
            "body": bytes(body),
            "rules": bytes(rules),
            "handles": list(handles),
            "fingerprint": bytes(fingerprint),
            "expires": float() | None as expires,
        } if kind in (TABLE, MODEL, NUMBER) and 0 < len(name) <= LONGEST_NAME and _is_time(expires):
            if (
                max(len(body) - MOST_BODY, len(rules) - MOST_RULES, len(handles) - MOST_VALUES) > 0
                or len(fingerprint) > 64
            ):
                raise ConsentError(
                    f"{kind} {name!r} is described in {len(body)} bytes, with rules of {len(rules)} and "
                    f"{len(handles)} values; nodes take {MOST_BODY}, {MOST_RULES} and {MOST_VALUES}"
                )
            Rules.from_bytes(rules)
            names = tuple(dict.fromkeys(str(handle) for handle in handles))
            return Entry(kind, name, caller, body, rules, names, fingerprint=fingerprint, expires=expires)
    raise ProtocolError(f"{caller} asked to keep something in a way that nodes do not know")


def _is_time(expires: float | None) -> bool:
    return expires is None or 0 < expires < LATEST


def require_name(entry: Entry, known: Sequence[Label]) -> None:
    """Raise ConsentError for a name that people could mistake. Takes long where many are known."""
    name = entry.name
    if not name.isprintable() or name != unicodedata.normalize("NFC", name) or name != name.strip():
        raise ConsentError(f"{name!r:.80} is no name that people can read; take printable letters and digits")
    scripts = sorted({script for script in map(_script, name) if script})
    if len(scripts) > 1:
        raise ConsentError(f"{name!r:.80} mixes letters of {' and '.join(scripts)}; take those of one script")
    looks = _looks(name)
    for other in known:
        if other.owner != entry.owner and other.name != name and _looks(other.name) == looks:
            raise ConsentError(
                f"{name!r:.80} looks like {other.name!r:.80}, which is {other.owner}'s; take another name"
            )


_LOOKALIKES = str.maketrans("аеорсухіјѕԁɡһӏνοΑΒΕΖΗΙΚΜΝΟΡΤΥΧ0lI|", "aeopcyxijsdghlvoabezhikmnoptyxoiii")
"""Letters of other scripts, and digits, that are drawn as a Latin letter is."""


def _looks(name: str) -> str:
    """What a name looks like: spelled with the plainest letters that are drawn alike."""
    drawn = unicodedata.normalize("NFKD", name.translate(_LOOKALIKES)).casefold()
    plain = (letter for letter in drawn if not unicodedata.combining(letter))
    return "".join("_" if letter in "-_ ." else letter for letter in plain).translate(_LOOKALIKES)


def _script(letter: str) -> str:
    """The script of a letter, as Unicode names it; nothing for what is no letter."""
    if not letter.isalpha():
        return ""
    script = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if script in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO") else script


def shown(entries: Sequence[Entry], known: Sequence[Label]) -> list[dict[str, Any]]:
    """Entries as members see them. What they were made from comes by name; identities stay at the node."""
    names = {one.identity: one.name for one in known if one.kind == TABLE}
    return [_shown(entry, names) for entry in entries]


def _shown(entry: Entry, names: Mapping[str, str]) -> dict[str, Any]:
    found = attrs.asdict(entry)
    del found["identity"], found["rows"], found["orders"]
    sources = sorted({names.get(source, GONE) for source in entry.sources})
    return found | {"handles": list(entry.handles), "sources": sources}
