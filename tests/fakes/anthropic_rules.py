"""What the real Messages API refuses, by model: written from its documentation, not from the gateway's code.

Sources, read 2026-11, at platform.claude.com/docs: "Messages API", "Errors", "Effort", "Thinking", "Adaptive thinking",
"Structured outputs", "Prompt caching", "Vision", "Tool use", and the migration guides from Claude 4.5 to Haiku 5.5.
"""

import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.ledger import JSON
from tests.fakes.wire import BadRequestError

MAX_CACHE_HINTS = 4
LEAST_BUDGET = 1024
IMAGE_TYPES = {"image/jpeg", "image/png", "image/gif", "image/webp"}

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_PERSON = re.compile(r"@|^\+?[0-9][0-9 ()-]{6,}$")
_MODEL = re.compile(r"claude-(opus|sonnet|haiku|fable|mythos)-(\d+)(?:-(\d{1,2}))?(?!\d)")

_Version = tuple[int, int]


def check_rules(body: JSON) -> None:
    """Raises BadRequestError."""
    for problem in _problems(body, list(_blocks(body))):
        raise BadRequestError(problem)


def _problems(body: JSON, blocks: list[JSON]) -> Iterator[str]:
    yield from _problems_of_turns(body["messages"])
    yield from (problem for block in blocks for problem in _problems_of_block(block))
    yield from _problems_of_tools(body)
    if sum("cache_control" in each for each in [*blocks, *body.get("tools", ())]) > MAX_CACHE_HINTS:
        yield "A maximum of 4 blocks with cache_control may be provided."
    if any(not stop.strip() for stop in body.get("stop_sequences", ())):
        yield "stop_sequences: each stop sequence must contain non-whitespace"
    if _PERSON.search(str((body.get("metadata") or {}).get("user_id", ""))):
        yield "metadata.user_id: user_id appears to contain an email address or a phone number"
    if schema := ((body.get("output_config") or {}).get("format") or {}).get("schema"):
        yield from _open_objects(schema, "output_config.format.schema")
    if found := _MODEL.search(str(body["model"])):
        yield from _problems_of_model(body, found[1], (int(found[2]), int(found[3] or 0)))


def _blocks(body: JSON) -> Iterator[JSON]:
    for content in (body.get("system"), *(message.get("content") for message in body["messages"])):
        for block in content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []:
            yield block
            inner = block.get("content")
            yield from inner if isinstance(inner, list) else ()


def _problems_of_turns(messages: list[JSON]) -> Iterator[str]:
    called: set[str] = set()
    for number, message in enumerate(messages):
        content = message.get("content")
        if not content and number < len(messages) - 1:
            yield f"messages.{number}: all messages must have non-empty content"
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        for part in parts:
            if part["type"] == "tool_result" and part["tool_use_id"] not in called:
                yield f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks"
        called = {part["id"] for part in parts if part["type"] == "tool_use"}
    last = messages[-1]
    texts = [last["content"]] if isinstance(last["content"], str) else [each.get("text") for each in last["content"]]
    if last.get("role") == "assistant" and texts and texts[-1] and texts[-1] != texts[-1].rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"


def _problems_of_block(block: JSON) -> Iterator[str]:
    kind, source = block.get("type"), block.get("source") or {}
    if kind == "text" and not str(block["text"]).strip():
        yield "messages: text content blocks must contain non-whitespace text"
    for name, pattern in (("id", _ID), ("tool_use_id", _ID), ("name", _NAME)):
        if kind in ("tool_use", "tool_result") and name in block and not pattern.fullmatch(block[name]):
            yield f"messages: {kind}.{name}: String should match pattern '^[a-zA-Z0-9_-]+$'"
    if kind == "image" and source.get("type") == "base64" and source.get("media_type") not in IMAGE_TYPES:
        yield "messages: image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', ..."
    if source.get("type") == "url" and not str(source.get("url")).startswith("https://"):
        yield "messages: Only HTTPS URLs are supported."


def _problems_of_tools(body: JSON) -> Iterator[str]:
    for number, tool in enumerate(body.get("tools", ())):
        if not _NAME.fullmatch(tool["name"]):
            yield f"tools.{number}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if tool.get("strict"):
            yield from _open_objects(tool["input_schema"], f"tools.{number}.input_schema")


def _open_objects(schema: Any, path: str) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _open_objects(each, path)
    if isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            yield f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false"
        for each in schema.values():
            yield from _open_objects(each, path)


def _problems_of_model(body: JSON, family: str, version: _Version) -> Iterator[str]:
    thinking, effort = body.get("thinking") or {}, (body.get("output_config") or {}).get("effort")
    kind = thinking.get("type")
    always = family in ("fable", "mythos") or (family == "opus" and version >= (5, 5))
    yield from _problems_of_samplers(body, version, thinks=kind in ("adaptive", "enabled"))
    if kind not in _kinds(family, version, always=always):
        yield f'"thinking.type.{kind}" is not supported for this model.'
    if kind == "enabled" and not LEAST_BUDGET <= thinking["budget_tokens"] < body["max_tokens"]:
        yield "thinking.budget_tokens: must be at least 1024 and below `max_tokens`"
    if effort is not None and effort not in _efforts(family, version):
        yield f"output_config.effort: this model does not support `{effort}`"
    if version >= (5, 0) and kind in ("disabled", "between_tools") and effort in ("xhigh", "max"):
        yield f"thinking can't be off at the effort `{effort}`"
    is_forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    if is_forced and version >= ((5, 1) if family in ("fable", "mythos") else (5, 5)) and family != "haiku":
        yield "tool_choice: forced tool use is not supported for this model."
    if is_forced and kind in ("adaptive", "enabled"):
        yield "Thinking may not be enabled when tool_choice forces tool use."
    if body["messages"][-1].get("role") == "assistant":
        if version >= (4, 6):
            yield "This model does not support assistant message prefill."
        if kind == "enabled":
            yield "When thinking is enabled, the conversation must end with a user message."


def _problems_of_samplers(body: JSON, version: _Version, *, thinks: bool) -> Iterator[str]:
    given = {name for name in ("temperature", "top_p", "top_k") if body.get(name) is not None}
    if given and version >= (4, 7):
        yield f"`{min(given)}` is deprecated for this model."
    if {"temperature", "top_p"} <= given and version >= (4, 1):
        yield "`temperature` and `top_p` cannot both be specified for this model."
    if thinks and (body.get("temperature", 1) != 1 or "top_k" in given or not 0.95 <= body.get("top_p", 1) <= 1):
        yield "`temperature` may only be set to 1 when thinking is enabled."


def _kinds(family: str, version: _Version, *, always: bool) -> set[str | None]:
    if always:
        return {None, "adaptive"}
    if family == "sonnet" and version >= (5, 5):
        return {None, "adaptive", "between_tools"}
    if version >= ((5, 5) if family == "haiku" else (4, 7)):
        return {None, "adaptive", "disabled"}
    both = {"adaptive", "enabled"} if family != "haiku" and version >= (4, 6) else {"enabled"}
    return {None, "disabled", *both}


def _efforts(family: str, version: _Version) -> set[str]:
    first = {"opus": (4, 5), "sonnet": (4, 6), "haiku": (5, 5)}.get(family, (5, 0))
    if version < first:
        return set()
    found = {"low", "medium", "high"}
    found |= {"max"} if version >= (4, 6) else set()
    return found | ({"xhigh"} if version >= (4, 7) else set())
