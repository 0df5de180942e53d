"""Codex without a terminal: an answer, and a command that it runs with a tool of its own."""

import json
import os
import subprocess
from pathlib import Path

from checking import BEHIND, HELLO, KEY, MODEL, URL, run

SETTINGS = f"""
model = "{MODEL}"
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{URL}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
"""
# Providers of other dialects have no search of their own.
NO_SEARCH = 'web_search = "disabled"\n'


def _codex(prompt):
    command = ["codex", "exec", "--json", "--skip-git-repo-check", "--sandbox", "danger-full-access", prompt]
    done = subprocess.run(
        command,
        env={**os.environ, "GATEWAY_KEY": KEY},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _items(events):
    return [event["item"] for event in events if event["type"] == "item.completed"]


def stream():
    events = _codex(HELLO)
    [message] = [item for item in _items(events) if item["type"] == "agent_message"]
    assert HELLO in message["text"], message
    assert events[-1]["usage"]["output_tokens"] > 0, events[-1]


def tools():
    items = _items(_codex('Call the tool exec_command {"cmd": "echo sunny"}'))
    [ran] = [item for item in items if item["type"] == "command_execution"]
    assert "sunny" in ran["aggregated_output"], ran


folder = Path(os.environ["HOME"]) / ".codex"
folder.mkdir()
(folder / "config.toml").write_text(SETTINGS if BEHIND == "openai" else NO_SEARCH + SETTINGS)
run(stream, tools)
