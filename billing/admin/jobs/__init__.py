"""Exports, closings and checks in the admin."""
