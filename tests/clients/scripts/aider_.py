"""aider, which speaks to both of the gateway's dialects through LiteLLM."""

import os
import subprocess

from checking import HELLO, KEY, MODEL, SAID, URL, run

QUIET = ("--no-git", "--no-check-update", "--no-analytics", "--no-show-model-warnings", "--no-show-release-notes")


def _aider(model, *arguments, **environment):
    command = ["aider", "--model", model, *QUIET, "--yes-always", "--no-pretty", "--edit-format", "ask", *arguments]
    done = subprocess.run(
        [*command, "--message", HELLO], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    printed = done.stdout + done.stderr
    assert SAID in printed, printed[-1500:]
    assert "Error" not in printed, printed[-1500:]


def _openai(*arguments):
    _aider(f"openai/{MODEL}", *arguments, OPENAI_API_BASE=f"{URL}/v1", OPENAI_API_KEY=KEY)


def chat():
    _openai("--no-stream")


def stream():
    _openai()


def messages():
    _aider(f"anthropic/{MODEL}", ANTHROPIC_API_BASE=URL, ANTHROPIC_API_KEY=KEY)


run(chat, stream, messages)
