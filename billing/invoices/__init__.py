"""Invoices and credit notes: drafted from usage, reviewed, issued, corrected."""
