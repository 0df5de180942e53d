"""The management API, below /api/v1/: usage, calls, invoices and exports, for staff and for customers' own keys."""
