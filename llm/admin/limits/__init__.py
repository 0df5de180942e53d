"""Limits in the admin."""
