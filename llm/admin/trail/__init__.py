"""The audit log's page, and what requests add to it."""
