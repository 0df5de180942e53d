"""OpenAI's older completions, of a text instead of messages: passed through to whoever serves them."""
