"""Ids and names of tools as Anthropic takes them: letters, digits, `_` and `-`, at most 128.

Other providers write ids such as `functions.get:0` and callers name tools `mcp.files.read`. A conversation that has one
would be refused to its end. What is rewritten gets a mark of what it was, so that two never become one.
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
    """The id or name itself where it is allowed; always the same one for the same other."""
    if _ALLOWED.fullmatch(name):
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_LENGTH]
    return f"{_NOT_ALLOWED.sub('_', name)[: _MAX_LENGTH - _MARK_LENGTH - 1]}_{mark}"


def original_names(request: ChatRequest) -> Mapping[str, str]:
    """Rewritten name -> the caller's, of the tools that are called otherwise upstream."""
    return {allowed_name(name): name for name in _names(request) if allowed_name(name) != name}


def _names(request: ChatRequest) -> Iterable[str]:
    return (tool.name for tool in request.tools)
