"""What clients are tried against: a fake upstream, and a gateway in front of it for each kind of provider."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import Gateway, running_gateway
from tests.clients.environments import ROOT
from tests.fakes import FakeUpstream

_SETTLED_WITHIN_S = 60.0
_UPSTREAM_KEY = "sk-clients-0123456789abcdefghijklmnopqrstuvwxyz0123456789"
_OF_THE_SHELL = ("OPENAI_", "ANTHROPIC_", "LLM_", "BILLING_", "CLAUDE", "CODEX")

MODELS = {"openai": "gpt-4o", "claude": "claude-sonnet-4-5", "compatible": "llama3.1:8b"}
"""What stands behind the gateway, and a model of it."""


_BOOKED = """
    SELECT (SELECT count(*) FROM llm_opencall),
        coalesce(sum(CASE WHEN outcome = 'ok' THEN prompt_tokens END), 0),
        coalesce(sum(CASE WHEN outcome = 'ok' THEN completion_tokens END), 0)
    FROM llm_usage
"""


@dataclass(frozen=True, slots=True)
class Booked:
    """Tokens are those of calls that went well: of others the gateway may know no more than an estimate."""

    open_calls: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway with its own books. behind: which of MODELS."""

    behind: str
    gateway: Gateway
    key: str
    database: Path
    log: Path
    upstream: FakeUpstream

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def booked(self) -> Booked:
        """What is on the books so far. Waits until no call is open."""
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while True:
            with contextlib.closing(sqlite3.connect(self.database)) as connection:
                booked = Booked(*connection.execute(_BOOKED).fetchone())
            if not booked.open_calls or time.monotonic() > deadline:
                return booked
            time.sleep(0.1)


@contextlib.contextmanager
def running_place(behind: str, *, base_url: str | None = None, models: Sequence[str] = ()) -> Iterator[Place]:
    """A gateway that is started for it, and stopped afterwards.

    base_url: of OpenAI, if it isn't the fake upstream. models: that get a price, so that they are listed.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=f"llm-clients-{behind}-")))
        upstream = stack.enter_context(FakeUpstream())
        environment = _environment(behind, folder, upstream)
        environment["LLM_OPENAI_BASE_URL"] = base_url or upstream.openai_base_url
        _manage(environment, "migrate", "--verbosity", "0")
        for model in models:
            _manage(environment, "set_price", "openai", model, "--free")
        key = _manage(environment, "create_api_key", "clients").strip()
        log = folder / "gateway.log"
        gateway = stack.enter_context(running_gateway(environment, workers=1, log=log))
        yield Place(behind, gateway, key, folder / "db.sqlite3", log, upstream)


def clean_environment() -> dict[str, str]:
    """The shell's, without what would configure a client or a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_SHELL)}


def _environment(behind: str, folder: Path, upstream: FakeUpstream) -> dict[str, str]:
    providers = {"openai": "openai", "claude": "anthropic", "compatible": "openai_compatible"}
    return clean_environment() | {
        "ANTHROPIC_API_KEY": _UPSTREAM_KEY,
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "HTTPS": "false",
        "LLM_ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
        "LLM_BASE_URL": upstream.openai_base_url,
        "LLM_DEFAULT_MODEL": MODELS[behind],
        "LLM_ENV_FILE": "",
        "LLM_KEY_PEPPER": "only-for-clients-0123456789abcdefghijkl",
        "LLM_PROVIDER": providers[behind],
        "LLM_SECRETS_KEY": "only-for-clients-too-0123456789-abcdefghijklmnop",
        "LLM_UNPRICED_MODELS": "flag",
        "OPENAI_API_KEY": _UPSTREAM_KEY,
        "SECRET_KEY": "only-for-clients-0123456789-abcdefghijklmnopqrstuvwxyz",
        "VAR_DIR": str(folder / "var"),
    }


def _manage(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
