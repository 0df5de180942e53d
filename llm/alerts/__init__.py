"""Alerts for customers and staff: an outbox of messages, sent as mails and webhooks."""
