"""Claude Code without a terminal: an answer, a stream, and a file that it reads with a tool of its own."""

import json
import os
import subprocess
from pathlib import Path

from checking import HELLO, KEY, MODEL, URL, equal, run

OURS = {
    "ANTHROPIC_BASE_URL": URL,
    "ANTHROPIC_AUTH_TOKEN": KEY,
    "ANTHROPIC_MODEL": MODEL,
    "ANTHROPIC_SMALL_FAST_MODEL": MODEL,
    "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL,
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
}


def _claude(*arguments):
    command = ["claude", "--print", *arguments]
    done = subprocess.run(command, env={**os.environ, **OURS}, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout


def chat():
    result = json.loads(_claude(HELLO, "--output-format", "json"))
    assert HELLO in result["result"], result
    assert result["usage"]["output_tokens"] > 0, result


def stream():
    printed = _claude(HELLO, "--output-format", "stream-json", "--include-partial-messages", "--verbose")
    events = [json.loads(line) for line in printed.splitlines()]
    kinds = {event["event"]["type"] for event in events if event["type"] == "stream_event"}
    assert {"message_start", "content_block_delta", "message_stop"} <= kinds, kinds


def tools():
    file = Path("note.txt")
    file.write_text("the weather is sunny\n")
    wish = json.dumps({"file_path": str(file.resolve())})
    printed = _claude(
        f"Call the tool Read {wish}", "--output-format", "stream-json", "--verbose", "--allowedTools", "Read"
    )
    events = [json.loads(line) for line in printed.splitlines()]
    results = [event for event in events if event["type"] == "user"]
    assert "the weather is sunny" in json.dumps(results), printed[-1500:]
    equal(events[-1]["subtype"], "success")


run(chat, stream, tools)
