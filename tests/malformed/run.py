"""`python -m tests.malformed.run --requests 5000`: malformed bodies and headers, that many for each endpoint.

Ends with status 1 where a reply was a 500 or no error of its dialect, or where the books have a row without a call.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.faults.scratch import scratch_database, set_up_django
from tests.malformed.bodies import VALID_BODIES

if TYPE_CHECKING:
    from tests.fakes import FakeUpstream

PROVIDERS = ("openai", "anthropic")


def main() -> None:
    options = _parser().parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="llm-malformed-")))
        stack.enter_context(scratch_database(options.database_url, folder))
        set_up_django(folder)
        problems = [problem for provider in options.providers for problem in _run(options, provider)]
    sys.exit(1 if problems else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.malformed.run", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first request")
    parser.add_argument("--requests", type=int, default=5000, help="of each endpoint, to each provider")
    parser.add_argument("--paths", nargs="+", default=list(VALID_BODIES), choices=list(VALID_BODIES))
    parser.add_argument("--providers", nargs="+", default=list(PROVIDERS), choices=PROVIDERS)
    parser.add_argument("--database-url", default="", help="a PostgreSQL server; without one, SQLite")
    return parser


def _run(options: argparse.Namespace, provider: str) -> list[str]:
    from llm.keys import create_key, get_or_create_account
    from llm.models import Usage
    from tests.fakes import FakeUpstream
    from tests.gateway_process import Gateway
    from tests.malformed import campaign

    before = Usage.objects.count()
    secret = create_key(get_or_create_account(f"malformed-{provider}"), name="campaign")[1]
    with FakeUpstream() as upstream, Gateway(_environment(upstream, provider)) as gateway:
        numbers = range(options.first, options.first + options.requests)
        verdict = campaign.run(gateway.url, secret, paths=tuple(options.paths), seed=options.seed, numbers=numbers)
        problems = [*verdict.problems, *campaign.find_problems_in_books(upstream, skipped=before)]
    print(f"{provider:10} {verdict.statuses.total()} requests, statuses {dict(verdict.statuses.most_common())}")
    for problem in problems[:100]:
        print(f"  {problem}")
    return problems


def _environment(upstream: FakeUpstream, provider: str) -> dict[str, str]:
    return {
        "LLM_PROVIDER": provider,
        "OPENAI_API_KEY": "sk-campaign-0123456789",
        "ANTHROPIC_API_KEY": "sk-ant-campaign-0123456789",
        "LLM_OPENAI_BASE_URL": upstream.openai_base_url,
        "LLM_ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
        "LLM_UNPRICED_MODELS": "flag",
        "LLM_MAX_RETRIES": "0",
    }


if __name__ == "__main__":
    main()
