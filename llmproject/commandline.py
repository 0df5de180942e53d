"""The command line of `manage.py`: an unavailable database ends a command with one sentence and status 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from django.core.management import execute_from_command_line
from django.db import Error


def run_command(arguments: Sequence[str]) -> None:
    """With `--traceback`, Django's own option, exceptions are shown in full."""
    try:
        execute_from_command_line(list(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except Error as error:
        if "--traceback" in arguments or (sentence := _sentence_for(error)) is None:
            raise
        sys.stdout.flush()
        sys.stderr.write(f"{sentence}\n")
        sys.exit(1)


def _sentence_for(error: Error) -> str | None:
    # Imported late: enumerations there need Django's settings.
    from llm.db.outages import outage_of, sentence_for_operators

    outage = outage_of(error)
    return None if outage is None else sentence_for_operators(outage)
