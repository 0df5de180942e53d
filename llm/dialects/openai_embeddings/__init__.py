"""OpenAI's embeddings: passed through to whoever serves them."""
