"""Comparison studies: plans under several protocols and networks, measured, predicted and printed."""

from tercet.comparison.measurements import Measurement, Origin, Run, Spread
from tercet.comparison.networks import NETWORKS, Network, network
from tercet.comparison.outcome import Comparison, load
from tercet.comparison.study import compare, protocol_of
from tercet.comparison.workloads import WORKLOADS, find

__all__ = [
    "NETWORKS",
    "WORKLOADS",
    "Comparison",
    "Measurement",
    "Network",
    "Origin",
    "Run",
    "Spread",
    "compare",
    "find",
    "load",
    "network",
    "protocol_of",
]
