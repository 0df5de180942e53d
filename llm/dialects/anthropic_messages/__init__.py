"""Anthropic's messages, as providers speak them."""
