"""The actors that run plans: everything that owns a nursery, and what it drives."""
