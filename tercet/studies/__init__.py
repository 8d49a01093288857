"""Comparison studies: one plan under several protocols and networks, measured and predicted."""

from tercet.studies.show import markdown, plot, write
from tercet.studies.study import NETWORKS, Measurement, Network, compare, network, protocol_of
from tercet.studies.workloads import WORKLOADS, find

__all__ = [
    "NETWORKS",
    "WORKLOADS",
    "Measurement",
    "Network",
    "compare",
    "find",
    "markdown",
    "network",
    "plot",
    "protocol_of",
    "write",
]
