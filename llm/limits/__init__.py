"""Limits: their amounts, their periods, what a call reserves of them, and why one is refused."""
