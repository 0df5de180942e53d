"""Runs one client's script against one gateway, and holds the books against the upstream's ledger."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.clients.catalog import Client
from tests.clients.environments import SCRIPTS, command_for, node_folder, programs_of
from tests.clients.stage import MODELS, Booked, Place, clean_environment

_SECONDS = 300
_SHOWN_CHARACTERS = 2000
REFUSED = "refused: "
"""How the error of a check begins that the gateway refuses as it is documented."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a script has tried. error: None if it worked; "refused: ..." is what the documents promise to refuse."""

    name: str
    error: str | None

    @property
    def is_refused(self) -> bool:
        return (self.error or "").startswith(REFUSED)


def try_client(client: Client, place: Place) -> list[Check]:
    """All of the client's checks, and whether the books are right afterwards."""
    place.upstream.reset()
    before = place.booked()
    with TemporaryDirectory(prefix="llm-client-") as home:
        done = _run(client, place, Path(home))
    checks = [Check(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    if done.returncode or not checks:
        checks.append(Check("script", f"exit {done.returncode}: {done.stderr[-_SHOWN_CHARACTERS:]}"))
    return [*checks, Check("books", _wrong_with_the_books(place, before))]


def _run(client: Client, place: Place, home: Path) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {
        "BEHIND": place.behind,
        "GATEWAY_KEY": place.key,
        "GATEWAY_URL": place.url,
        "HOME": str(home),
        "MODEL": MODELS[place.behind],
        "NO_COLOR": "1",
        "PATH": os.pathsep.join([str(programs_of(client)), str(node_folder()), os.environ["PATH"]]),
        "PYTHONPATH": str(SCRIPTS),
    }
    try:
        return subprocess.run(
            command_for(client),
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        printed = (expired.stdout or b"").decode() if isinstance(expired.stdout, bytes) else ""
        return subprocess.CompletedProcess(expired.args, 1, printed, f"not done within {_SECONDS} s")


def _wrong_with_the_books(place: Place, before: Booked) -> str | None:
    after = place.booked()
    served = [entry.counts for entry in place.upstream.ledger.entries() if entry.finished and entry.has_sent_usage]
    expected = sum(counts.prompt_tokens for counts in served), sum(counts.completion_tokens for counts in served)
    booked = after.prompt_tokens - before.prompt_tokens, after.completion_tokens - before.completion_tokens
    if after.open_calls:
        return f"{after.open_calls} calls are still open"
    return None if booked == expected else f"prompt and completion tokens {booked}, the upstream served {expected}"
