"""The customer's side: plans, invoices, exports."""
