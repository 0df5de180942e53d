"""OpenAI's older completions, with a text instead of messages: passed through to providers that have them."""
