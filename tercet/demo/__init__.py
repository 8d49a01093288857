"""The demonstration behind `tercet demo`: a hospital and an insurer link their tables and train a model.

It plays every role on one machine, on real data, and holds the result against scikit-learn's on the same rows
in the clear. `data` prepares what the owners have, `script` is the one that an analyst would write, `check`
is the comparison, `show` and `plot` present it.
"""

from tercet.demo.script import PHASES, Cost, Report, Settings, Watcher, run

__all__ = ["PHASES", "Cost", "Report", "Settings", "Watcher", "run"]
