"""The path of a call: resolved, opened, sent, settled, answered. docs/architecture.md shows it."""
