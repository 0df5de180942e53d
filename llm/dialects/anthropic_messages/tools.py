"""Who runs a tool, and what its use costs beside tokens.

Sources, read 2026-11: anthropic 2.12 (`types/beta/beta_tool_union_param.py`) and platform.claude.com, "Pricing":
- The caller runs `bash_*`, `text_editor_*`, `computer_*`, `browser_toolset_*`, `memory_*` and tools with a schema.
- Searches are charged by number, reported in `usage.server_tool_use`. Fetches, tool searches and MCP cost only tokens.
- Code execution is charged by the running time of its container, which no reply reports; beside a web search or fetch
from
  2026 on it is free. An advisor (`advisor_*`) is another model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm.dialects.anthropic_messages.blocks import listed
from llm.dialects.usage_figures import UNREPORTED_TOOLS

_CALLERS_OWN = ("bash_", "text_editor_", "computer_", "browser_toolset_", "memory_")
_TOOL_KEYS = frozenset(
    (
        *("type", "name", "description", "input_schema", "cache_control", "strict", "defer_loading"),
        *("allowed_callers", "eager_input_streaming", "input_examples"),
    )
)
_WITHOUT_A_FEE = ("web_search_", "web_fetch_", "tool_search_tool_", "mcp_toolset", "advisor_")
"""The provider's tools whose fee is reported, or that have none."""
_WITH_FREE_CODE = ("web_search_2026", "web_fetch_2026")
_CODE = "code_execution_"

_SEARCH = "web_search"
_REPORTED_USES = (_SEARCH, "web_fetch", "advisor")
_FREE_USES = ("tool_search_tool_", "mcp_")


def is_callers_own(tool: Any) -> bool:
    """A tool with a schema must have no unknown members: one may make it a tool that the provider runs."""
    kind = _kind_of(tool)
    if kind not in ("", "custom"):
        return kind.startswith(_CALLERS_OWN)
    return isinstance(tool, dict) and tool.keys() <= _TOOL_KEYS


def tool_meters(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The extra meters of tools that the provider runs without reporting their cost."""
    kinds = [_kind_of(tool) for tool in listed(body.get("tools")) if not is_callers_own(tool)]
    is_code_free = any(kind.startswith(_WITH_FREE_CODE) for kind in kinds)
    unreported = [kind for kind in kinds if not kind.startswith(_WITHOUT_A_FEE)]
    if is_code_free:
        unreported = [kind for kind in unreported if not kind.startswith(_CODE)]
    skills = body.get("container") is not None
    return (UNREPORTED_TOOLS,) if unreported or skills else ()


class UsesOfTools:
    """The provider's own tools used in a reply: blocks `server_tool_use`, each with the tool's name.

    are_none: there are none.
    """

    def __init__(self, blocks: Iterable[Any] = ()) -> None:
        self.are_none = True
        self._searches = 0
        self._has_unreported = False
        for block in blocks:
            self.note(block)

    def note(self, block: Any) -> None:
        if not isinstance(block, dict) or block.get("type") != "server_tool_use":
            return
        self.are_none = False
        name = str(block.get("name"))
        self._searches += name == _SEARCH
        self._has_unreported |= name not in _REPORTED_USES and not name.startswith(_FREE_USES)

    @property
    def are_reported(self) -> bool:
        """Whether their whole cost is known: no tool has run whose cost no usage reports."""
        return not self._has_unreported

    def with_searches(self, usage: Any) -> Any:
        """The usage, with the searches seen in the reply if it doesn't report them, as when the reply was cut."""
        if not self._searches or not isinstance(usage, dict) or usage.get("server_tool_use") is not None:
            return usage
        return {**usage, "server_tool_use": {"web_search_requests": self._searches}}


def _kind_of(tool: Any) -> str:
    """Its type; "" for a tool with a schema, as the caller's own are."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return "" if kind is None else str(kind)
