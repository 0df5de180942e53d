"""Exports, invoice runs and verifications in the admin."""
