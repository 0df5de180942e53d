"""The gateway: what was called, and what it cost us."""
