"""Large JSON is read in a process of its own. See docs/decisions/0021."""
