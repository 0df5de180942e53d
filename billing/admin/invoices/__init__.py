"""Invoices in the admin: the list, the page, and the steps."""
