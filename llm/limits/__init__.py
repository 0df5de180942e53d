"""Limits: their amounts and periods, what a call reserves of them, and the refusals."""
