"""The fields of a messages request: the known ones, those that choose who serves, and those that name stored objects.

The provider knows one organisation, the gateway's: another account could ask for a stored object by its id. The gateway
doesn't record yet who created what, so such ids are refused by name.

Sources, read 2026-11: anthropic 2.12, `types/message_create_params.py`, `types/beta/message_create_params.py` and what
they import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llm.dialects.anthropic_messages.blocks import blocks_of
from llm.dialects.anthropic_messages.errors import NO_THREADS
from llm.dialects.kept_objects import kept_files
from llm.dialects.openai_chat.fields import FEE_FIELDS, ROUTING_FIELDS
from llm.dialects.request_fields import Shape, shape
from llm.errors import InvalidRequest

_FIELDS = (
    *("billing_policy", "cache_control", "compaction", "container", "context_management", "fallback_credit_token"),
    *("inference_geo", "max_tokens", "model", "output_config", "output_format", "service_tier", "speed"),
    *("stop_sequences", "stream", "temperature", "thread", "top_k", "top_p"),
)
_IN_BLOCKS = {"source": shape("type", "media_type", "data", "url", "file_id", "content")}
_BLOCK = Shape(
    frozenset(
        (
            *("type", "text", "id", "name", "input", "tool_use_id", "content", "is_error", "cache_control", "thinking"),
            *("signature", "data", "source", "file_id"),
        )
    ),
    _IN_BLOCKS,
)
# Results of tools contain blocks too.
_IN_BLOCKS["content"] = _BLOCK
_TOOL = shape(
    *("type", "name", "description", "input_schema", "cache_control", "strict", "model", "max_uses", "max_tokens")
)
REQUEST = Shape(
    frozenset((*_FIELDS, *ROUTING_FIELDS, *FEE_FIELDS)),
    {
        "messages": shape("role", content=_BLOCK),
        "system": shape("type", "text", "cache_control"),
        "tools": _TOOL,
        "tool_choice": shape("type", "name", "disable_parallel_tool_use"),
        "thinking": shape("type", "budget_tokens", "display"),
        "metadata": shape("user_id"),
        "container": shape("id", "skills"),
        "diagnostics": shape("previous_message_id"),
        "mcp_servers": shape("type", "name", "url", "authorization_token"),
    },
)

_MAY_NAME_FILES = frozenset(
    (
        # Its input is whatever the model has written.
        *("tool_use", "server_tool_use", "mcp_tool_use"),
        # Results that a reply contained: the files are in its container, whose id is refused.
        *("code_execution_output", "bash_code_execution_output", "text_editor_code_execution_tool_result"),
    )
)


def refuse_kept_at_provider(raw: bytes, body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for the id of an object stored at the provider, and for a field naming another payer.

    raw: the bytes of `body`.
    """
    policy = body.get("billing_policy")
    if policy is not None and not (isinstance(policy, dict) and policy.get("bill_to", "self") == "self"):
        raise InvalidRequest("'billing_policy' must not name another payer.", param="billing_policy")
    for kept in (*_kept_fields(body), *_kept_files(body), *_other_files(raw, body)):
        raise InvalidRequest(
            f"'{kept.field}' refers to {kept.what}, stored by the provider. This gateway can't tell whose it is, so "
            f"the request was not sent. {kept.instead}",
            param=kept.field,
            code=kept.code,
        )


class _Kept(NamedTuple):
    field: str
    what: str
    instead: str
    code: str | None = None


def _kept_fields(body: Mapping[str, Any]) -> Iterator[_Kept]:
    if _names_container(body.get("container")):
        yield _Kept(
            "container", "a container or a custom skill", "Omit it: each request then starts in a new container."
        )
    if body.get("thread") is not None:
        yield _Kept("thread", "a conversation", "Send its messages.", NO_THREADS)
    if body.get("fallback_credit_token") is not None:
        yield _Kept("fallback_credit_token", "a credit of the gateway's account", "Omit it.")
    diagnostics = body.get("diagnostics")
    if isinstance(diagnostics, dict) and diagnostics.get("previous_message_id") is not None:
        yield _Kept("diagnostics.previous_message_id", "an earlier message", "Omit it.")


def _kept_files(body: Mapping[str, Any]) -> Iterator[_Kept]:
    for path, block in blocks_of(body):
        source = block.get("source")
        if isinstance(source, dict) and (source.get("type") == "file" or source.get("file_id") is not None):
            yield _Kept(f"{path}.source.file_id", "a file", "Send its content, as base64 or by a URL.")
        if block.get("type") == "container_upload":
            yield _Kept(f"{path}.file_id", "a file", "Send its content in a message.")


def _other_files(raw: bytes, body: Mapping[str, Any]) -> Iterator[_Kept]:
    """Named by a field or a block that we don't know."""
    for path in kept_files(raw, body, ignored=_MAY_NAME_FILES):
        yield _Kept(path, "a file", "Send its content.")


def _names_container(container: Any) -> bool:
    """Anthropic's own skills are public, and a container without an id is a new one."""
    if container is None:
        return False
    if not isinstance(container, dict) or container.get("id") is not None:
        return True
    skills = container.get("skills") or []
    return not isinstance(skills, list) or not all(
        isinstance(skill, dict) and skill.get("type") == "anthropic" for skill in skills
    )
