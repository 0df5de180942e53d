"""Large JSON is parsed in a separate process. See docs/decisions/0021."""
