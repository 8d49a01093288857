"""Normalising keys: what is written in several ways becomes one text, at its owner, before it is hashed.

Two owners' keys match if their bytes do. What they agree to do with them stands in the schemas of their
tables, so that a join can see whether both have done the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from tercet.errors import SchemaError
from tercet.ml.row_keys import Text
from tercet.ml.schema import NORMALISING

_LEADING = re.compile(r"^0+(?=[0-9]+$)")
_NORMALISE: Mapping[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "strip": str.strip,
    "case": lambda text: unicodedata.normalize("NFC", text.casefold()),
    "zeros": lambda text: _LEADING.sub("", text),
}
"""Accents composed with their letters, no space at either end, no difference of case, no zeros that lead
what is digits alone."""


DIFFERENCES = {
    "nfc": "the Unicode form of accents",
    "strip": "blanks at either end",
    "case": "case",
    "zeros": "leading zeros",
}
"""What keys do not differ by any more, once that is done to them."""


def check_normalise(given: object, where: str) -> tuple[str, ...]:
    """Names of what is done to keys, in the order in which it is. Raises SchemaError for others."""
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else None
    if names is None or any(not isinstance(name, str) or name not in NORMALISING for name in names):
        raise SchemaError(
            f"{where} has normalise={given!r:.80}; it names some of {', '.join(NORMALISING)}, as in "
            "normalise=['strip', 'case']"
        )
    return tuple(name for name in NORMALISING if name in names)


def normalised(keys: Text, names: Sequence[str]) -> Text:
    """Keys after all that was agreed on."""
    texts = keys.strings()
    for name in names:
        texts = list(map(_NORMALISE[name], texts))
    return Text.of(texts)
