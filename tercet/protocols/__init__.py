"""Share arithmetic: what secret-sharing protocols do, without any I/O. Start at `tercet.protocols.base`."""
