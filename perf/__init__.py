"""Benchmarks, run as `python -m perf NAME`: what Tercet costs, as commands that print JSON.

Every figure is a median of repeated runs of real parties, one operating-system process each, and stands
beside something measured in the same run: the speed of memory, the same work in the clear, another system. So
a figure can be read on any machine. `docs/benchmarks/README.md` says what each means.
"""
