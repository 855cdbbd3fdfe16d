"""How edgekit compares: scripts that measure, and what they measured (``results/``)."""
