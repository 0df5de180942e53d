"""Jobs that take longer than a request may: exports, invoice runs and verifications."""
