"""Usage by day in the admin."""
