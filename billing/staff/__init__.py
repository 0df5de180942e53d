"""What staff may do: roles, and tokens of the management API."""
