"""What a node keeps across restarts: shares as encrypted files, and a catalog of what they mean."""
