"""`verify_export.py` as it lies in an export: one file that needs nothing else, put together from its parts here."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

NAME = "verify_export.py"
_PARTS = ("verify_reading.py", "verify_formats.py", NAME)
"""Each uses only what comes before it."""


@cache
def script() -> bytes:
    head, *_ = _docstring_and_rest(NAME)
    parts = [_docstring_and_rest(name)[1].strip("\n") for name in _PARTS]
    return "\n\n\n".join((f"{head}\n\nfrom __future__ import annotations", *parts, "")).rstrip("\n").encode() + b"\n"


def _docstring_and_rest(name: str) -> tuple[str, str]:
    """Up to the docstring's end; and what comes after it, without imports of the parts."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    lines = text.splitlines()
    docstring, *rest = ast.parse(text).body
    end = docstring.end_lineno or 0
    gone = {
        number
        for node in rest
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("__future__", "billing")
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    kept = [line for number, line in enumerate(lines, start=1) if number > end and number not in gone]
    return "\n".join(lines[:end]), "\n".join(kept)
