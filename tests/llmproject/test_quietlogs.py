"""What strangers cause in the log."""

from __future__ import annotations

import logging

import pytest

from llmproject.quietlogs import StrangersFilter


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


def test_only_so_many_lines_a_minute() -> None:
    strangers = StrangersFilter()
    passed = [strangers.filter(record("django.security.DisallowedHost")) for _ in range(1000)]
    assert passed.count(True) == 20
    assert strangers.filter(record("django.request", status_code=404))
    assert strangers.filter(record("django.request", status_code=500))
