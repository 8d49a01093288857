"""Other systems, doing the work that `perf.peers` measures. Each module is a program of its own.

They may be run by another interpreter, in whose environment the system is installed, so they import nothing
of Tercet. A program gets the paths of a request (an .npz with the data) and of an answer, and prints one JSON
object.
"""
