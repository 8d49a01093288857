"""The errors of Tercet: one tree, so that a caller can catch all of them or just one kind.

Every message is a sentence that says what happened, to which party, table, column or plan node, and what to
do. Errors cross the wire by name and text (see `to_wire`), never as pickles, so each class is built from its
message plus the few public attributes that it declares. One that a party has from another says whose word it
is (see `TercetError.heard`): a party that is corrupt may tell anything, and about anybody.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

LONGEST_SENTENCE = 1 << 13
"""Characters of an error from elsewhere that are kept."""
LONGEST_NAME = 128
"""Characters of the name of whom it is about."""


class TercetError(Exception):
    """Base class of every error that Tercet raises on purpose."""

    extra: ClassVar[tuple[str, ...]] = ()
    said_by: str = ""
    """The party whose word it is, for instance "party 1"; empty for what was found here."""
    passed_on_by: str = ""
    """The party that says so, if that is another one."""

    @property
    def sentence(self) -> str:
        """What it says, without whose word that is."""
        return super().__str__()

    def __str__(self) -> str:
        """The sentence, and before it whose word it is, if that is not in it already."""
        if self.passed_on_by:
            return f"{self.passed_on_by} passes on that {self.said_by} says: {self.sentence}"
        if self.said_by and not self.sentence.startswith(f"{self.said_by}: "):
            return f"{self.said_by} says: {self.sentence}"
        return self.sentence

    def heard(self, teller: str) -> Self:
        """The same, as what a party has told: its own word, or that of another party, as it says.

        However often an error is passed on, it names whose word it is, and who was the last to pass it on.
        """
        if self.said_by in ("", teller):
            self.said_by = teller
        else:
            self.passed_on_by = teller
        return self

    def to_keep(self) -> TercetError:
        """The same without the frames that it has come through, which hold all that a run held."""
        return from_wire(self.to_wire())

    def to_wire(self) -> dict[str, object]:
        """The error as plain values for msgpack: class name, message and declared attributes."""
        return {
            "error": type(self).__name__,
            "message": self.sentence,
            **({"said_by": self.said_by} if self.said_by else {}),
            **({"passed_on_by": self.passed_on_by} if self.passed_on_by else {}),
            **{name: getattr(self, name) for name in self.extra},
        }


class PlanError(TercetError):
    """A plan is not well formed, or could overflow; the message names the node."""


class SpentError(PlanError):
    """A run was interrupted and may not go on under its name, so it has to be submitted anew.

    A node had come to its end, or lets it begin no more.
    """


class MissingAttribute(PlanError, AttributeError):
    """A model does not have what was asked for, or not yet: it is not fitted, or keeps it secret."""


class SchemaError(TercetError):
    """A table does not fit its schema or a request; the message names table, column and row."""


class TransportError(TercetError):
    """A link broke its contract: a malformed frame, a failed handshake, a closed channel."""


class PeerLost(TransportError):
    """A party died, fell silent for longer than the time-out, or closed its link.

    `peer` names the party that was lost, for instance "party 1".
    """

    extra = ("peer",)

    def __init__(self, message: str, *, peer: str) -> None:
        super().__init__(message)
        self.peer = peer


class ProtocolError(TercetError):
    """A protocol or a peer deviated from what was declared: wrong shapes, rounds, bytes or digests."""


class PrivacyError(TercetError):
    """Something would have been disclosed that the plan does not declare."""


class ConfigError(TercetError):
    """A configuration file, a key or a certificate is missing, malformed or does not fit the others."""


class StorageError(TercetError):
    """Something stored is missing, damaged or cannot be written; the message names table or file.

    `party` is the node whose disk it is, for instance "party 1", or the worker, once the error has left it.
    """

    extra = ("party",)

    def __init__(self, message: str, *, party: str | None = None) -> None:
        super().__init__(message)
        self.party = party

    def at(self, party: str) -> StorageError:
        """The same with the party's name, unless it has one: peers pass it on."""
        return self if self.party else StorageError(f"{party}: {self}", party=party)


class ConsentError(TercetError):
    """Someone asked for what its owner has not agreed to."""


class QuotaError(ConsentError):
    """A member would have more at a node than its operator lets each of them have."""


class ConvergenceWarning(UserWarning):
    """A fit ended before its coefficients settled; the message says what helps."""


class PrecisionWarning(UserWarning):
    """Numbers are stored with fewer digits than models need; the message names the column."""


class FewMatchesWarning(UserWarning):
    """A join matches no rows, or hardly any; the message says what the keys' types suggest."""


class KeyWarning(UserWarning):
    """Keys of a table differ in ways that may not be meant; told to its owner, before it is uploaded."""


class UndefinedMetricWarning(UserWarning):
    """A score is not defined in some fold; the message names the folds, and says what helps."""


def _classes() -> dict[str, type[TercetError]]:
    found: dict[str, type[TercetError]] = {}
    stack: list[type[TercetError]] = [TercetError]
    while stack:
        cls = stack.pop()
        found[cls.__name__] = cls
        stack.extend(cls.__subclasses__())
    return found


def from_wire(fields: dict[str, object]) -> TercetError:
    """Rebuild the error that `to_wire` described; an unknown class becomes a plain `TercetError`."""
    cls = _classes().get(str(fields.get("error")), TercetError)
    kwargs: dict[str, Any] = {name: _name(fields.get(name)) for name in cls.extra}
    error = cls(_sentence(fields.get("message")), **kwargs)
    error.said_by, error.passed_on_by = _party(fields.get("said_by")), _party(fields.get("passed_on_by"))
    return error


def _sentence(message: object) -> str:
    """What somebody else says, on one line, so that none of it reads as another's word, and not too long."""
    text = message[:LONGEST_SENTENCE] if isinstance(message, str) else ""
    return (
        text if text.isprintable() else " ".join("".join(c if c.isprintable() else " " for c in text).split())
    )


def _name(name: object) -> str | None:
    """Who an error is about; nothing for what is no name."""
    if name is None:
        return None
    return name if isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_NAME else ""


def _party(name: object) -> str:
    """The name of a party from the wire; nothing for what is none."""
    return name if isinstance(name, str) and re.fullmatch(r"party [0-9]{1,3}", name) else ""
