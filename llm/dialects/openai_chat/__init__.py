"""OpenAI's chat completions: as callers send them, and as providers answer them."""
