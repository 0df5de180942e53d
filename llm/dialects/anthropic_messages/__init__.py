"""Anthropic's messages: requests, replies, streams, errors."""
