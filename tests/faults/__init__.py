"""Faults while calls are under way, and whether the books are still exact afterwards.

`python -m tests.faults.run` runs a campaign: load, faults by seed, then a verdict that holds the fake upstream's own
ledger against the usage rows. `test_faults.py` runs short ones in the suite.
"""
