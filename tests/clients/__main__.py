"""Tries clients in front of the gateway: `python -m tests.clients [--only NAME ...] [--record]`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from tests.clients.catalog import CLIENTS, NODE, Client
from tests.clients.environments import set_up, versions_of
from tests.clients.results import record
from tests.clients.stage import MODELS, Place, running_place
from tests.clients.trying import Check, try_client


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    clients = [client for client in CLIENTS if not options.only or client.name in options.only]
    for client in (NODE, *clients):
        print(f"{client.name}: installing", file=sys.stderr)
        set_up(client, upgrade=options.upgrade)
    failures = 0
    with _places(options.behind) as places:
        for client in clients:
            outcomes = {place.behind: _tried(client, place) for place in places}
            failures += sum(_is_failure(check) for checks in outcomes.values() for check in checks)
            if options.record:
                record(client, versions_of(client), datetime.now(UTC).date().isoformat(), outcomes)
    return 1 if failures else 0


@contextlib.contextmanager
def _places(behind: Sequence[str]) -> Iterator[list[Place]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running_place(name)) for name in behind]


def _tried(client: Client, place: Place) -> list[Check]:
    checks = try_client(client, place)
    for check in checks:
        print(f"{client.name}, behind {place.behind}, {check.name}: {check.error or 'ok'}", flush=True)
    return checks


def _is_failure(check: Check) -> bool:
    return check.error is not None and not check.is_refused


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[client.name for client in CLIENTS], metavar="NAME")
    parser.add_argument("--behind", nargs="+", choices=MODELS, default=list(MODELS), help="what the gateway calls")
    parser.add_argument("--upgrade", action="store_true", help="install the newest versions, not those that are there")
    parser.add_argument("--record", action="store_true", help="write the results into docs/clients.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
