"""OpenAI's embeddings: passed through to providers that have them."""
