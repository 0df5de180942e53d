"""OpenAI's embeddings: `/v1/embeddings`; the vectors are a digest of the text, the tokens its words."""

import base64
import hashlib
import struct

import orjson

from tests.fakes import openai_wire
from tests.fakes.ledger import JSON, Counts
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, BadRequestError, Content, Prompt, Reply, count_tokens

DIALECT = "openai.embeddings"
DEFAULT_DIMENSIONS = 1536
MAX_DIMENSIONS = 4096

error_body = openai_wire.error_body
error_event = openai_wire.error_event
reply_headers = openai_wire.reply_headers


def read_prompt(body: JSON) -> Prompt:
    inputs = _inputs(body)
    return Prompt(tokens=sum(count_tokens(text) if isinstance(text, str) else len(text) for text in inputs))


def _inputs(body: JSON) -> list[str | list[int]]:
    """The request's inputs, each a text or a list of token numbers."""
    asked = body.get("input")
    if not asked or not isinstance(asked, str | list):
        raise BadRequestError("'$.input' is invalid. Please check the API reference.")
    return [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counts = Counts(prompt_tokens=prompt.tokens)
    reported = {"prompt_tokens": prompt.tokens, "total_tokens": prompt.tokens}
    usage = None if script.omits_usage else dict(script.usage) if script.usage is not None else reported
    dimensions = asked.body.get("dimensions") or DEFAULT_DIMENSIONS
    if dimensions > MAX_DIMENSIONS:
        raise BadRequestError(f"This model does not support {dimensions} dimensions.")
    vectors = [vector_of(text, dimensions) for text in _inputs(asked.body)]
    if asked.body.get("encoding_format") == "base64":
        shown: list[object] = [base64.b64encode(struct.pack(f"<{dimensions}f", *v)).decode() for v in vectors]
    else:
        shown = list(vectors)
    items = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)]
    body = {"object": "list", "data": items, "model": asked.model} | ({} if usage is None else {"usage": usage})
    # No id stands in this reply; the ledger's is the request's, which goes out as a header.
    return Reply(f"req_{call_id}", counts, usage, body=orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")


def vector_of(text: str | list[int], dimensions: int) -> list[float]:
    """Numbers in [-1, 1) that depend on the text alone."""
    digest = hashlib.sha256(str(text).encode()).digest()
    numbers = [byte / 128 - 1 for byte in digest]
    return (numbers * (dimensions // len(numbers) + 1))[:dimensions]
