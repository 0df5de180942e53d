"""What a reply says: a pure function of the prompt and the script, whatever the dialect."""

import json
import re
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from tests.fakes.scripts import Script
from tests.fakes.wire import Content, Prompt, ToolCall, mentions_tool

JSON_TEXT = '{"answer": "yes", "confidence": 1}'
ECHOED_WORDS = 50
SAMPLES: dict[str, Any] = {"string": "sample", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


def compose(prompt: Prompt, script: Script, *, credential: str | None) -> Content:
    """The reply of one choice. Without a script's word on it: a tool call if one is due, JSON if it was asked for,
    else the last user message said back (so that replies which end up with the wrong caller are seen)."""
    if script.huge_event_bytes:
        return Content(("x" * script.huge_event_bytes,))
    if script.echoes_key:
        return _limited(pieces_of(f"Your key is {credential} ."), prompt.max_tokens)
    if script.text is not None:
        return _limited(pieces_of(script.text, script.chunks), prompt.max_tokens)
    if script.chunks is not None:
        return _limited(filler(script.chunks), prompt.max_tokens)
    if prompt.tool is not None:
        return Content(tool=prompt.tool)
    if prompt.wants_json:
        return _limited(pieces_of(JSON_TEXT), prompt.max_tokens)
    said = " ".join(islice(prompt.last_user_text.split(), ECHOED_WORDS))
    return _limited(pieces_of(f"You said: {said}".rstrip()), prompt.max_tokens)


@lru_cache(maxsize=256)
def pieces_of(text: str, chunks: int | None = None) -> tuple[str, ...]:
    """The text word by word, the white space with the word before it; or in at most so many pieces of whole words."""
    words = re.findall(r"\s*\S+\s*", text) or ([text] if text else [])
    if chunks is None or not words:
        return tuple(words)
    size = -(-len(words) // max(chunks, 1))
    return tuple("".join(words[start : start + size]) for start in range(0, len(words), size))


@lru_cache(maxsize=64)
def filler(chunks: int) -> tuple[str, ...]:
    """So many words, one a piece."""
    return tuple(f"word{index} " for index in range(chunks))


def choose_tool(tools: dict[str, Any], *, mode: str, named: str | None, last_user_text: str) -> ToolCall | None:
    """The tool this request makes the reply call, None if none: the named one; the one that the user names, as in
    `tool Bash {"command": "ls"}`; else the first when `mode` is "required", or when it is "auto" and the user speaks
    of a tool.

    tools: the JSON schema of each one's arguments, by name.
    """
    if named is not None:
        return ToolCall(named, sample_arguments(tools.get(named)))
    if mode != "none" and (wished := _wished_tool(tools, last_user_text)) is not None:
        return wished
    is_due = mode == "required" or (mode == "auto" and mentions_tool(last_user_text))
    if not tools or not is_due:
        return None
    name, schema = next(iter(tools.items()))
    return ToolCall(name, sample_arguments(schema))


def _wished_tool(tools: dict[str, Any], said: str) -> ToolCall | None:
    """Coding agents offer dozens of tools: a test says which one is to be called, and with what."""
    wish = re.search(r"\btool (\w+) (?=\{)", said)
    if wish is None or wish[1] not in tools:
        return None
    arguments, _ = json.JSONDecoder().raw_decode(said, wish.end())
    return ToolCall(wish[1], orjson.dumps(arguments).decode())


def sample_arguments(schema: Any) -> str:
    """JSON text with a value for every property that the schema names."""
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    return orjson.dumps({name: _sample(kind) for name, kind in properties.items()}).decode()


def _sample(kind: Any) -> Any:
    if not isinstance(kind, dict):
        return None
    if kind.get("enum"):
        return kind["enum"][0]
    return SAMPLES.get(str(kind.get("type")))


def _limited(pieces: tuple[str, ...], max_tokens: int | None) -> Content:
    """The pieces cut off at the request's limit, as a provider does it."""
    if max_tokens is None:
        return Content(pieces)
    words = pieces if all(len(piece.split()) <= 1 for piece in pieces) else pieces_of("".join(pieces))
    if len(words) <= max_tokens:
        return Content(pieces)
    return Content(words[:max_tokens], is_cut_short=True)
