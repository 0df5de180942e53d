"""One batch of operations, written in one transaction."""
