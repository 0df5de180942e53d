"""Settlements that aren't in the database yet: kept on disk, and replayed."""
