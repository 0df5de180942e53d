"""What strangers cause in the log."""

from __future__ import annotations

import logging

import pytest

from llmproject.logging import logging_settings
from llmproject.quietlogs import Seldom, StrangersFilter


def record(name: str, *, status_code: int | None = None) -> logging.LogRecord:
    error = ValueError("inner")
    exc_info = (type(error), error, None)
    made = logging.LogRecord(name, logging.ERROR, "file", 1, "wrong %s", ("x" * 1000,), exc_info)
    if status_code is not None:
        made.status_code = status_code
    return made


@pytest.mark.parametrize(
    ("name", "status_code"),
    [("django.security.DisallowedHost", None), ("django.security.csrf", 403), ("django.request", 400)],
)
def test_a_strangers_line_is_a_short_warning_without_a_traceback(name: str, status_code: int | None) -> None:
    line = record(name, status_code=status_code)
    assert StrangersFilter().filter(line)
    assert (line.levelno, line.levelname, line.exc_info) == (logging.WARNING, "WARNING", None)
    assert line.getMessage() == "wrong " + "x" * 294


@pytest.mark.parametrize(("name", "status_code"), [("django.request", 500), ("django.request", None), ("llm", None)])
def test_our_own_errors_stay(name: str, status_code: int | None) -> None:
    line = record(name, status_code=status_code)
    assert StrangersFilter().filter(line)
    assert line.levelno == logging.ERROR
    assert line.exc_info is not None


KINDS = [
    *((f"django.security.{name}", None) for name in ("DisallowedHost", "csrf", "SuspiciousSession")),
    ("django.security.csrf", 403),
    *(("django.request", status) for status in (400, 401, 403, 404, 405, 413, 429)),
]


@pytest.mark.parametrize(("name", "status_code"), KINDS)
def test_of_each_kind_one_line_a_minute_that_counts_the_rest(
    name: str, status_code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("llmproject.quietlogs.monotonic", lambda: now)
    strangers = StrangersFilter()
    lines = [record(name, status_code=status_code) for _ in range(1000)]
    assert [strangers.filter(line) for line in lines].count(True) == 1
    now += 60
    later = record(name, status_code=status_code)
    assert strangers.filter(later)
    assert (vars(lines[0])["left_out"], vars(later)["left_out"]) == (0, 999)
    assert not strangers.filter(record(name, status_code=status_code))


def test_no_kind_takes_the_line_of_another_and_none_that_of_our_errors() -> None:
    strangers = StrangersFilter()
    assert all(strangers.filter(record(name, status_code=status)) for name, status in KINDS)
    assert [strangers.filter(record("django.request", status_code=500)) for _ in range(3)] == [True] * 3


def test_no_other_logger_has_a_way_past_the_filter() -> None:
    """Whatever a library logs reaches standard output by the one handler that has it."""
    assert [handler.name for handler in logging.getLogger().handlers if handler.name == "stdout"] == ["stdout"]
    settings = logging_settings(level="INFO", log_format="json")
    assert all("strangers" in handler["filters"] for handler in settings["handlers"].values())
    assert settings["root"]["handlers"] == ["stdout"]
    assert [name for name, each in settings["loggers"].items() if each.get("handlers")] == []


def test_seldom_counts_by_kind_and_from_anew() -> None:
    seldom = Seldom(3600)
    assert [seldom.left_out("a"), seldom.left_out("a"), seldom.left_out("b")] == [0, None, 0]
    seldom.forget()
    assert seldom.left_out("a") == 0
