"""Which clients there are, what each is installed from, and which script drives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """name: also that of its folder and, in `tests/clients/scripts/`, of its script.

    packages: as pip or npm is told them; the first one's version stands in the results. is_npm: from npm,
    else from PyPI.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    script: str
    is_npm: bool = False

    @property
    def main_package(self) -> str:
        return self.packages[0].partition("[")[0]


NODE = Client("node", "Node.js", ("node@22",), "", is_npm=True)
"""What the clients from npm run with."""

CLIENTS = (
    Client("openai-node", "OpenAI's SDK for Node", ("openai", "zod"), "openai_node.mjs", is_npm=True),
    Client(
        "anthropic-node", "Anthropic's SDK for Node", ("@anthropic-ai/sdk", "zod"), "anthropic_node.mjs", is_npm=True
    ),
    Client("langchain-openai", "LangChain, OpenAI", ("langchain-openai",), "langchain_openai_.py"),
    Client("langchain-anthropic", "LangChain, Anthropic", ("langchain-anthropic",), "langchain_anthropic_.py"),
    Client("pydantic-ai", "Pydantic AI", ("pydantic-ai-slim[openai,anthropic]",), "pydantic_ai_.py"),
    Client("instructor", "Instructor", ("instructor", "anthropic"), "instructor_.py"),
    Client("openai-agents", "OpenAI's Agents SDK", ("openai-agents",), "openai_agents.py"),
    Client("llm", "llm", ("llm",), "llm_.py"),
    Client("aider", "aider", ("aider-chat",), "aider_.py"),
    Client(
        "vercel-ai",
        "Vercel's AI SDK",
        ("ai", "@ai-sdk/openai", "@ai-sdk/anthropic", "@ai-sdk/openai-compatible", "zod"),
        "vercel_ai.mjs",
        is_npm=True,
    ),
    Client("claude-code", "Claude Code", ("@anthropic-ai/claude-code",), "claude_code.py", is_npm=True),
    Client("codex", "Codex", ("@openai/codex",), "codex.py", is_npm=True),
)
