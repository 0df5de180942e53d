"""One JSON object a line, whichever way it was logged, and no secret in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management.utils import get_random_secret_key

from llmproject.logging import LogRedactor
from tests.llmproject.commands import PEPPER, ROOT, SECRET_KEY, environment_of, python_command

OUR_KEY = "llm_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZab"
THEIR_KEY = "sk-ant-api03_0123456789-abcdef"
CONFIGURED_KEY = "upstream key of an odd form"
METRICS_TOKEN = "token-of-the-metrics"
SECRETS = (OUR_KEY, THEIR_KEY, CONFIGURED_KEY, METRICS_TOKEN, SECRET_KEY, PEPPER)

LOG_EVERYTHING = """
import logging, sys
import django, structlog
django.setup()
secrets = sys.argv[1:]
ours, theirs = structlog.get_logger("llm.calls"), logging.getLogger("some.library")
for secret in secrets:
    ours.info("call", nested={"list": [secret]}, text=f"<{secret}>", data=secret.encode())
    theirs.warning("key %s", secret, extra={"header": secret})
    try:
        raise ValueError(secret)
    except ValueError:
        ours.exception("failed")
        theirs.exception("failed")
ours.info("two\\nlines", surrogate="\\udcff", number=2**70)
theirs.info("two\\nlines \\udcff")
ours.debug("unseen")
theirs.debug("unseen")
"""


def log_everything(folder: Path, **environment: str) -> list[str]:
    ended = subprocess.run(
        python_command("-c", LOG_EVERYTHING, *SECRETS),
        cwd=ROOT,
        env=environment_of(
            folder,
            DJANGO_SETTINGS_MODULE="llmproject.settings",
            OPENAI_API_KEY=CONFIGURED_KEY,
            LLM_METRICS_TOKEN=METRICS_TOKEN,
            **environment,
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


@pytest.mark.processes
def test_every_line_is_one_json_object_without_a_secret(tmp_path: Path) -> None:
    lines = log_everything(tmp_path)
    events: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert len(events) == 4 * len(SECRETS) + 2
    assert [secret for secret in SECRETS if secret in "\n".join(lines)] == []
    assert {(event["logger"], event["level"]) for event in events} == {
        ("llm.calls", "info"),
        ("llm.calls", "error"),
        ("some.library", "warning"),
        ("some.library", "error"),
        ("some.library", "info"),
    }
    call, warning, failed, failed_too = events[:4]
    assert (call["nested"], call["text"]) == ({"list": ["[redacted]"]}, "<[redacted]>")
    assert (warning["event"], warning["header"]) == ("key [redacted]", "[redacted]")
    for event in (failed, failed_too):
        assert event["event"] == "failed"
        assert (event["error"], event["causes"], "exception" in event) == ("ValueError", [], False)
        assert event["where"] == ["<string>:11 <module>"]
    assert (events[-2]["event"], events[-2]["surrogate"], events[-2]["number"]) == ("two\nlines", "?", 2**70)
    assert events[-1]["event"] == "two\nlines ?"


@pytest.mark.processes
def test_the_console_shows_no_secret_either(tmp_path: Path) -> None:
    text = "\n".join(log_everything(tmp_path, LLM_LOG_FORMAT="console"))
    assert [secret for secret in SECRETS if secret in text] == []
    assert text.count("[redacted]") >= 5 * len(SECRETS)


LOG_FAILURES = """
import logging, sys
import django
django.setup()
from llmproject.celery import app
log = logging.getLogger("some.library")
try:
    try:
        raise KeyError("a prompt")
    except KeyError as error:
        raise ValueError("a row: a prompt") from error
except ValueError as error:
    log.error("failed: %s", error, exc_info=True)
    log.error("failed", exc_info=error)
    logging.getLogger("asyncio").error("never retrieved", exc_info=error)
    logging.getLogger("django.request").error("%s: %s", "Internal Server Error", "/admin/", exc_info=error,
        extra={"status_code": 500})
@app.task
def fails():
    raise ValueError("a row: a prompt")
fails.apply()
"""


@pytest.mark.processes
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_line_tells_the_text_of_an_exception(tmp_path: Path, log_format: str) -> None:
    """Of a library's, Django's or Celery's: it may hold a prompt, or a row of the database."""
    ended = subprocess.run(
        python_command("-c", LOG_FAILURES),
        cwd=ROOT,
        env=environment_of(tmp_path, DJANGO_SETTINGS_MODULE="llmproject.settings", LLM_LOG_FORMAT=log_format),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    output = ended.stdout + ended.stderr
    assert "a prompt" not in output
    assert output.count("ValueError") >= 5
    for told in ("Internal Server Error: /admin/", "fails", "never retrieved"):
        assert told in output


@pytest.mark.parametrize(
    ("line", "redacted"),
    [
        (f'{{"key": "{OUR_KEY}"}}', '{"key": "[redacted]"}'),
        (f"Bearer {THEIR_KEY}, and {THEIR_KEY}", "Bearer [redacted], and [redacted]"),
        ("llm_open_rows 3", "llm_open_rows 3"),
        ("task-sk-1, sk-short, disk-0123456789abcdef0", "task-sk-1, sk-short, disk-0123456789abcdef0"),
    ],
)
def test_keys_are_known_by_their_form(line: str, redacted: str) -> None:
    assert LogRedactor().redact(line.encode()).decode() == redacted


@pytest.mark.parametrize("secret", ['quote " backslash \\', "tab\tnewline\n", "schlüssel€", "$(.*)[a-z]+"])
def test_a_secret_is_found_in_json_whatever_its_letters(secret: str) -> None:
    redactor = LogRedactor()
    redactor.learn([secret, get_random_secret_key()])
    assert redactor.redact(orjson.dumps({"text": f"a {secret} b"})) == b'{"text":"a [redacted] b"}'
    assert redactor.redact(f"a {secret} b".encode()) == b"a [redacted] b"


def test_a_short_value_is_no_secret() -> None:
    redactor = LogRedactor()
    redactor.learn(["ollama", ""])
    assert redactor.redact(b"ollama answers") == b"ollama answers"


def test_a_secret_within_another_leaves_no_rest() -> None:
    redactor = LogRedactor()
    redactor.learn(["0123456789", "0123456789-and-more"])
    assert redactor.redact(b"<0123456789-and-more>") == b"<[redacted]>"
