"""The thread that writes the books, and what waits for it."""
