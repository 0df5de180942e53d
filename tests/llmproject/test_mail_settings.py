"""How mail goes out, from one URL."""

from __future__ import annotations

import environ
import pytest

from llmproject.env import EnvReader

CONSOLE = "django.core.mail.backends.console.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


def email_of(monkeypatch: pytest.MonkeyPatch, value: str) -> tuple[dict[str, object], list[str]]:
    monkeypatch.setattr(environ.Env, "ENVIRON", {"EMAIL_URL": value})
    reader = EnvReader()
    return reader.email("EMAIL_URL", "consolemail://"), reader.problems


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://host", ("host", 25, None, None, False, False)),
        ("smtp://host:2525/", ("host", 2525, None, None, False, False)),
        ("smtp+tls://user:secret@host", ("host", 587, "user", "secret", True, False)),
        ("smtps://user:secret@host", ("host", 587, "user", "secret", True, False)),
        ("smtp+ssl://user:secret@host", ("host", 465, "user", "secret", False, True)),
        ("smtp+tls://me%40acme:p%2F%3F%23%40+%25@host:2587", ("host", 2587, "me@acme", "p/?#@+%", True, False)),
        ("smtp://[::1]:25", ("::1", 25, None, None, False, False)),
    ],
)
def test_a_mail_server(monkeypatch: pytest.MonkeyPatch, url: str, expected: tuple[object, ...]) -> None:
    found, problems = email_of(monkeypatch, url)
    named = [found[f"EMAIL_{name}"] for name in ("HOST", "PORT", "HOST_USER", "HOST_PASSWORD")]
    assert (*named, found.get("EMAIL_USE_TLS", False), found.get("EMAIL_USE_SSL", False)) == expected
    assert found["EMAIL_BACKEND"] == SMTP
    assert problems == []
    assert all(name.startswith("EMAIL_") for name in found)


@pytest.mark.parametrize("value", ["", "consolemail://"])
def test_without_a_server_mail_is_written_to_the_console(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    found, problems = email_of(monkeypatch, value)
    assert (found["EMAIL_BACKEND"], problems) == (CONSOLE, [])


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "smtp://",
        "smtp://:25",
        "http://user:hunter2@host",
        "smtp://user:hunter2@host:99999",
        "smtp://user:hunter2@host:port",
        "smtp://user:hunter2@[host",
        # Each would be taken for the server "user", port 12.
        "smtp://user:12/hunter2@host:25",
        "smtp://user:12?hunter2@host:25",
        "smtp://user:12#hunter2@host:25",
        "smtp://host?timeout=5",
    ],
)
def test_what_is_no_mail_server_is_one_sentence_without_the_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    found, problems = email_of(monkeypatch, url)
    assert found["EMAIL_BACKEND"] == CONSOLE
    assert problems == ["EMAIL_URL must be smtp+tls://user:password@host:port or consolemail://."]
