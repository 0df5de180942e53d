"""An SDK's client that nobody closes leaves sockets to the collector, which complains in whatever test runs then."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_CLIENTS = {"OpenAI", "AsyncOpenAI", "Anthropic", "AsyncAnthropic"}


def unclosed_clients(source: str) -> Iterator[int]:
    """The lines that make a client which neither is given its HTTP client nor is closed by a `with`."""
    tree = ast.parse(source)
    contexts = {ast.unparse(item.context_expr) for node in ast.walk(tree) for item in getattr(node, "items", ())}
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.stmt)):
        values = [node.value] if isinstance(node, ast.Assign | ast.Return) else []
        names = [ast.unparse(target) for target in getattr(node, "targets", ())]
        if any(is_client(value) for value in values) and not contexts.intersection(names):
            yield node.lineno


def is_client(made: ast.expr | None) -> bool:
    """Whether this expression makes an SDK's client with an HTTP client of its own."""
    return (
        isinstance(made, ast.Call)
        and isinstance(made.func, ast.Attribute)
        and made.func.attr in _CLIENTS
        and all(keyword.arg != "http_client" for keyword in made.keywords)
    )


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("sdk = openai.OpenAI(api_key='x')\n", [1]),
        ("def make():\n    return anthropic.AsyncAnthropic()\n", [2]),
        ("sdk = openai.OpenAI(http_client=http)\n", []),
        ("with openai.OpenAI() as sdk:\n    pass\n", []),
        ("sdk = openai.OpenAI()\nwith sdk, other:\n    pass\n", []),
    ],
)
def test_unclosed_clients_are_found(source: str, lines: list[int]) -> None:
    assert list(unclosed_clients(source)) == lines


def test_each_client_is_closed() -> None:
    found = [
        f"{path.relative_to(_TESTS)}:{line}"
        for path in _TESTS.rglob("*.py")
        for line in unclosed_clients(path.read_text())
    ]
    assert found == []
