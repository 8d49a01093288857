"""Names by which parties and clients are called in certificates, addresses and messages."""

from __future__ import annotations


def party_name(index: int) -> str:
    """How a party is called in certificates, addresses and messages."""
    return f"party {index}"


def is_party(name: str) -> bool:
    """Whether a name is one that parties have, so that nobody else may."""
    word, _, number = name.partition(" ")
    return word == "party" and number.isdecimal()


def worker_name(index: int, number: int) -> str:
    """How a worker of a party is called."""
    return f"worker {number} of party {index}"


CLIENT = "client"

FOREMAN = "foreman"
"""How the node of a party is called by its own workers."""
