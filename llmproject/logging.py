"""Logs: one line per event on standard output, as JSON or for people, and never with a secret in it.

`structlog.get_logger("llm.calls")` writes straight to standard output; messages of Django, Celery, granian and
libraries, logged through the standard library, get the same form. An exception is logged as its class and place, never
its text, which may contain a prompt or a row. Secrets are removed from the finished line, so no nesting or message can
hide one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from llm.errors import describe_exception

REDACTED = "[redacted]"
# Keys and tokens that we issue, and those of the providers.
KEY_PATTERNS = (r"llm_[0-9A-Za-z]{38}", r"llmt_[0-9A-Za-z]{48}", r"(?<![0-9A-Za-z])sk-[0-9A-Za-z_-]{16,}")
KEY_MARKS = ("llm_", "llmt_", "sk-")
# A shorter value ("ollama") isn't secret, and removing it would garble the log.
MIN_SECRET_LENGTH = 8
QUIET_LOGGERS = ("aiohttp", "anthropic", "asyncio", "fontTools", "httpcore2", "httpx2", "kombu", "openai")


class LogRedactor:
    """Removes secrets from a finished line."""

    def __init__(self) -> None:
        self.learn(())

    def learn(self, secrets: Iterable[str]) -> None:
        """secrets: values that must not appear; replaces those of an earlier call."""
        known = [secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH]
        escaped = [orjson.dumps(secret)[1:-1].decode() for secret in known]
        literals = sorted({*known, *escaped}, key=len, reverse=True)
        # A plain search for these is many times faster than the pattern, and nearly every line has none.
        self._marks = tuple(mark.encode() for mark in (*KEY_MARKS, *literals))
        pattern = "|".join((*map(re.escape, literals), *KEY_PATTERNS))
        self._pattern = re.compile(pattern.encode())

    def redact(self, line: bytes) -> bytes:
        if any(mark in line for mark in self._marks):
            return self._pattern.sub(REDACTED.encode(), line)
        return line


redactor = LogRedactor()


class StdlibFormatter(structlog.stdlib.ProcessorFormatter):
    """Formats records of the standard library in our form; referred to by its path, so that it can be pickled."""

    def __init__(self, *, log_format: str) -> None:
        super().__init__(
            foreign_pre_chain=[*_describe_event(), structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_render(log_format), _decode],
        )


def logging_settings(*, level: str, log_format: str) -> dict[str, Any]:
    """The LOGGING setting; also used by the web server's main process, which doesn't load Django."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "llmproject.logging.StdlibFormatter", "log_format": log_format}},
        "filters": {
            "strangers": {"()": "llmproject.quietlogs.StrangersFilter"},
            "exceptions": {"()": "llmproject.quietlogs.ExceptionTextFilter"},
        },
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "line",
                "filters": ["strangers", "exceptions"],
            }
        },
        "root": {"handlers": ["stdout"], "level": level},
        "loggers": {
            **{name: {"level": "WARNING"} for name in QUIET_LOGGERS},
            # It would log the server's own text when a form's validation finds the database unavailable; the form fails
            # then too.
            "django.db.models": {"level": "ERROR"},
            **{name: {"handlers": [], "propagate": True} for name in ("django", "django.server", "_granian")},
        },
    }


def configure_structlog(*, level: str, log_format: str, secrets: Iterable[str] = ()) -> None:
    redactor.learn(secrets)
    structlog.configure(
        processors=[*_describe_event(), *_render(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=_open_stdout,
        cache_logger_on_first_use=True,
    )


def _open_stdout(name: str = "llm") -> structlog.BytesLogger:
    # By descriptor: `sys.stdout` may be replaced for a while, but a logger lives as long as the process.
    return structlog.BytesLogger(open(1, "wb", closefd=False), name=name)


def _describe_event() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _render(log_format: str) -> list[Processor]:
    if log_format == "console":
        return [_describe_error, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()), _finish_text]
    return [_describe_error, _finish_json]


def _describe_error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error and not isinstance(error, BaseException):
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event.update(describe_exception(error))
    return event


def _finish_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    try:
        line = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # lone surrogates and very large numbers must not make a call fail
        line = json.dumps(event, default=repr, skipkeys=True, ensure_ascii=False).encode("utf-8", "replace")
    return redactor.redact(line)


def _finish_text(_logger: WrappedLogger, _method: str, line: Any) -> bytes:
    return redactor.redact(line.encode("utf-8", "replace"))


def _decode(_logger: WrappedLogger, _method: str, line: Any) -> str:
    return str(line, "utf-8")
