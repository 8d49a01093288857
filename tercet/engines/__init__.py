"""Engines that place the workers of a party: what `engine` in `node.toml` names."""
