"""The portal: pages for owners, analysts, auditors and operators, on the member's own machine."""
