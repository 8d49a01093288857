"""What runs at a member: lakes, what drives computations, retries, bars, clusters on this machine."""
