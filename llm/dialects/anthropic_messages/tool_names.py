"""Tool ids and names as Anthropic accepts them: letters, digits, `_` and `-`, at most 128.

Other providers write ids such as `functions.get:0` and callers name tools `mcp.files.read`. A conversation with one of
these would be refused from then on. A rewritten name ends in a digest of the original, so that two never collide.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from llm.types import ChatRequest

_MAX_LENGTH = 128
_MARK_LENGTH = 8
_ALLOWED = re.compile(rf"[a-zA-Z0-9_-]{{1,{_MAX_LENGTH}}}")
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_-]")


def allowed_name(name: str) -> str:
    """The id or name itself if allowed, otherwise a rewritten one, always the same for the same original."""
    if _ALLOWED.fullmatch(name):
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_LENGTH]
    return f"{_NOT_ALLOWED.sub('_', name)[: _MAX_LENGTH - _MARK_LENGTH - 1]}_{mark}"


def original_names(request: ChatRequest) -> Mapping[str, str]:
    """Rewritten name -> the caller's, for tools that have another name upstream."""
    return {allowed_name(name): name for name in _names(request) if allowed_name(name) != name}


def _names(request: ChatRequest) -> Iterable[str]:
    return (tool.name for tool in request.tools)
