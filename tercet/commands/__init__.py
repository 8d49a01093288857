"""The subcommands of `tercet` for those who run nodes, own data and analyse them."""
