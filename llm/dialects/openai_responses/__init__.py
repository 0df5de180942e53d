"""OpenAI's responses: as callers send them, and as providers answer them."""
