"""The command line of `manage.py`: an unavailable database ends a command with one sentence and status 1."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence

from django.core.management import execute_from_command_line
from django.db import Error

_SERVERS = frozenset({"serve", "up", "runserver", "test"})
"""What these do for others isn't done by whoever started them."""


def run_command(arguments: Sequence[str]) -> None:
    """With `--traceback`, Django's own option, exceptions are shown in full."""
    _note_actor(arguments)
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


def _note_actor(arguments: Sequence[str]) -> None:
    """For the audit log: the user of this machine, and the command."""
    if len(arguments) < 2 or arguments[1] in _SERVERS:
        return
    from llm.trail.actor import Actor, set_actor

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        user = ""
    actor = Actor(actor=user, via=f"manage.py {arguments[1]}")
    set_actor(lambda: actor)


def _sentence_for(error: Error) -> str | None:
    # Imported late: enumerations there need Django's settings.
    from llm.db.outages import outage_of, sentence_for_operators

    outage = outage_of(error)
    return None if outage is None else sentence_for_operators(outage)
