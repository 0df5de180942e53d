"""Whether a JSON document is an error instead of an answer, in any of the forms that servers use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAX_FAILURE_CHARACTERS = 50

_NOT_IN_A_CODE = re.compile(r"[^a-z0-9_.-]")
_WORDS = ("detail", "message", "msg", "errors", "error_message", "error_msg")


def says_error(document: Mapping[str, Any]) -> bool:
    """OpenAI's and Anthropic's, `{"error": "text"}` (Ollama), `{"detail": ...}` (FastAPI), `{"message": "text"}`."""
    if document.get("error") or document.get("object") == "error" or document.get("type") == "error":
        return True
    if document.get("choices") or document.get("content") or document.get("object") or document.get("type"):
        return False
    return any(_is_said(document.get(name)) for name in _WORDS)


def _is_said(value: object) -> bool:
    """Text, or a list of texts; an object called `message` is an answer."""
    return isinstance(value, str | list) and bool(value)


def failure_name(kind: object) -> str:
    """The type of an error event, cleaned, since an upstream wrote it."""
    return _NOT_IN_A_CODE.sub("", str(kind).lower())[:MAX_FAILURE_CHARACTERS] or "error"
