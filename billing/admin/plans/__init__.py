"""Plans in the admin."""
