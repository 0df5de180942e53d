"""Jobs that take longer than a request may: exports, closings and checks of a month."""
