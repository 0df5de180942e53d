"""OpenAI's responses: requests, replies, streams."""
