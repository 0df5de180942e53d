"""`verify_export.py` as shipped in an export: one self-contained file, assembled from its parts."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

NAME = "verify_export.py"
_PARTS = ("verify_reading.py", "verify_formats.py", NAME)
"""Each uses only the ones before it."""


@cache
def script() -> bytes:
    head, *_ = _docstring_and_rest(NAME)
    parts = [_docstring_and_rest(name)[1].strip("\n") for name in _PARTS]
    return "\n\n\n".join((f"{head}\n\nfrom __future__ import annotations", *parts, "")).rstrip("\n").encode() + b"\n"


def _docstring_and_rest(name: str) -> tuple[str, str]:
    """The text up to the end of the docstring, and the rest without imports of the parts."""
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
