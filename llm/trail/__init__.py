"""The audit log: whose changes are being written, which tables are watched, and events without a row of their own."""
