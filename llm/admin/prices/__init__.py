"""Routes, prices and re-ratings in the admin."""
