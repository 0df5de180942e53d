"""Log events are stable keys, each of which docs/operations.md explains to whoever alerts on them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import ROOT

CODE = sorted(path for folder in ("llm", "billing", "llmproject") for path in (ROOT / folder).rglob("*.py"))
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
ROW = re.compile(r"^\| (.*?) \| ((?:critical|error|warning|info)(?:, info)?) \| .* \|$", re.MULTILINE)
KEY = re.compile(r"`([a-z_]+\.[a-z_]+)`")


def calls_of(tree: ast.Module) -> Iterator[ast.Call]:
    """Of `log.warning(...)` and `_log.warning(...)`, also where the method was chosen before."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id="log" | "_log"), attr=attr) if attr in LEVELS:
                yield node
            case ast.Name(id="log" | "_log"):
                yield node


def logged_events(path: Path) -> Iterator[str]:
    text = path.read_text()
    if "structlog.get_logger" not in text:
        return
    for call in calls_of(ast.parse(text)):
        match call.args:
            case [ast.Constant(value=str(event))]:
                yield event
            case _:
                raise AssertionError(f"{path}:{call.lineno} logs something other than a key and fields.")


def test_each_event_is_a_key_that_is_explained_and_nothing_else_is() -> None:
    logged = {event for path in CODE for event in logged_events(path)}
    page = (ROOT / "docs" / "operations.md").read_text()
    explained = [key for cell, _ in ROW.findall(page) for key in KEY.findall(cell)]
    assert sorted(explained) == sorted(logged)
