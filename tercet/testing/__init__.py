"""For authors of protocols and transports: suites that check whether yours keeps the promises of its kind."""

from tercet.testing.lockstep import LockstepResult, lockstep, parties, reconstruct, share
from tercet.testing.malicious import check_malicious
from tercet.testing.protocols import check_protocol
from tercet.testing.transports import check_transport

__all__ = [
    "LockstepResult",
    "check_malicious",
    "check_protocol",
    "check_transport",
    "lockstep",
    "parties",
    "reconstruct",
    "share",
]
