"""API keys in the admin."""
