"""What the scripts in Python share. It runs in the clients' environments, so it needs nothing but Python."""

import asyncio
import inspect
import json
import os
import sys
import traceback

URL = os.environ["GATEWAY_URL"]
KEY = os.environ["GATEWAY_KEY"]
MODEL = os.environ["MODEL"]
BEHIND = os.environ["BEHIND"]
HELLO = "hello there"
SAID = "You said: hello there"


class Refused(Exception):
    """The gateway refused something by name that it documents to refuse."""


def run(*checks):
    """Run them one after the other, and print what became of each as a line of JSON."""
    for check in checks:
        name, error = check.__name__, None
        try:
            outcome = check()
            if inspect.isawaitable(outcome):
                asyncio.run(_awaited(outcome))
        except Refused as refusal:
            error = f"refused: {refusal}"
        except BaseException as failure:  # noqa: BLE001  # whatever it is, it is the result
            traceback.print_exc(file=sys.stderr)
            error = f"{type(failure).__name__}: {failure}"[:600]
        print(json.dumps({"name": name, "error": error}), flush=True)


async def _awaited(outcome):
    return await outcome


def equal(found, expected):
    """Raises AssertionError with both where they differ."""
    assert found == expected, f"{found!r} instead of {expected!r}"


def raised(kind, function, *arguments):
    """The exception of that class which the call must raise."""
    try:
        function(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")
