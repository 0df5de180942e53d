"""What every long-running process does before it starts: refuse what is wrong, in plain sentences."""

from __future__ import annotations

import sys
from typing import NoReturn

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from llmproject.ports import port_problem


def problems_at_start() -> list[str]:
    """Why we can't start: one sentence for each error found by a system check."""
    found = [*checks.run_checks(), *checks.run_checks(tags=[checks.Tags.database], databases=["default"])]
    errors = [message for message in found if message.is_serious() and not message.is_silenced()]
    # Django runs its checks in no particular order.
    return [_sentence(error) for error in sorted(errors, key=lambda error: (str(error.id), str(error.msg)))]


def refuse_wrong_settings() -> None:
    """Ends the process if a system check finds an error."""
    if problems := problems_at_start():
        refuse("\n".join(problems))


def refuse_used_port() -> None:
    if problem := port_problem(settings.WEB_HOST, settings.WEB_PORT):
        refuse(problem)


def refuse(sentences: str) -> NoReturn:
    """Ends the process with status 1, saying why."""
    sys.stderr.write(f"{sentences}\n")
    sys.stderr.flush()
    sys.exit(1)


def warn_of_settings() -> None:
    """Logs the warnings of the gateway's own checks."""
    for message in checks.run_checks(tags=["llm"], databases=["default"]):
        if not message.is_serious() and not message.is_silenced():
            sys.stderr.write(f"Warning: {_sentence(message)}\n")
    sys.stderr.flush()


def _sentence(message: CheckMessage) -> str:
    return f"{message.msg} {message.hint}" if message.hint else str(message.msg)
