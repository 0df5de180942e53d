"""Calls in the admin, with their corrections."""
