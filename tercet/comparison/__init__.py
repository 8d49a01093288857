"""Comparison studies: one plan under several protocols and networks, measured and predicted."""

from tercet.comparison.report import markdown, plot, write
from tercet.comparison.study import NETWORKS, Measurement, Network, compare, network, protocol_of
from tercet.comparison.workloads import WORKLOADS, find

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
