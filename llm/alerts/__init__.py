"""What is told to customers and staff: an outbox of messages, sent as mails and webhooks."""
