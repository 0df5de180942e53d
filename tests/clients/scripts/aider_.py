"""aider, which speaks to both of the gateway's dialects through LiteLLM."""

import os
import subprocess

from checking import HELLO, KEY, MODEL, SAID, URL, run

QUIET = (
    *("--no-git", "--no-check-update", "--no-analytics", "--no-show-model-warnings", "--no-show-release-notes"),
    *("--yes-always", "--no-pretty", "--no-suggest-shell-commands", "--edit-format", "ask"),
)
# It looks for prices at GitHub otherwise.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _aider(model, *arguments, **environment):
    done = subprocess.run(
        ["aider", "--model", model, *QUIET, *arguments, "--message", HELLO],
        env={**os.environ, **OFFLINE, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert SAID in printed, printed[-1500:]


def _openai(*arguments):
    _aider(f"openai/{MODEL}", *arguments, OPENAI_API_BASE=f"{URL}/v1", OPENAI_API_KEY=KEY)


def chat():
    _openai("--no-stream")


def stream():
    _openai()


def messages():
    # LiteLLM knows no other models as Anthropic's; the gateway may well have something else behind such a name.
    _aider("anthropic/claude-sonnet-4-5", ANTHROPIC_API_BASE=URL, ANTHROPIC_API_KEY=KEY)


run(chat, stream, messages)
