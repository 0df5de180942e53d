"""A database as an earlier version left it, upgraded by the present one: see README.md."""
