"""Many keys on small budgets, all at once, through real gateways: nothing is overspent, nothing refused that fits."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from llm.enums import LimitMetric
from llm.models import LimitWindow, Usage
from tests.fakes import FakeUpstream, Script
from tests.faults.accounts import make_key
from tests.faults.budgets import Budgets, Caller, Units, units_of
from tests.faults.calls import Call
from tests.faults.campaign import ENVIRONMENT
from tests.faults.commands import own_database_url, run_commands
from tests.faults.kills import Kills, killed
from tests.faults.limit_watch import LimitWatch
from tests.faults.load import Outcome, make
from tests.faults.sites import Site
from tests.faults.stage import Stage

# What a call uses is near to what it asks for, so that several fit into a small budget at a time.
_SERVED = Script(header_delay_s=0.02, chunks=60, event_delay_s=0.0005)
MAX_OUTPUT_TOKENS = 60
_MAX_IN_FLIGHT = 200
# A call that a slow machine lets time out uses something else than the others.
_PATIENT = dict.fromkeys(("LLM_FIRST_BYTE_TIMEOUT_SECONDS", "LLM_IDLE_TIMEOUT_SECONDS"), "60") | {
    "LLM_TOTAL_TIMEOUT_SECONDS": "120"
}
_PATIENCE_S = 600.0
_SHORTEST_S, _LONGEST_S = 0.02, 0.2


@dataclass(frozen=True)
class LimitsGoal:
    """callers: parallel ones of each key. kills: of workers meanwhile; what they lose is counted as used."""

    seed: int = 1
    keys: int = 250
    callers: int = 4
    workers: int = 2
    sites: int = 2
    kills: int = 0


@dataclass
class LimitsReport:
    """expected, admitted: calls, of the keys that were not at the mercy of kills.

    refused_that_fitted: calls that budgets had room for when their callers were told that they are spent.
    """

    watch: LimitWatch
    statuses: Counter[str]
    kills: int
    expected: int
    admitted: int
    refused_that_fitted: int
    seconds: float
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.watch.problems or self.problems or self.refused_that_fitted)


def run(goal: LimitsGoal, *, folder: Path, upstream: FakeUpstream) -> LimitsReport:
    """On the database that Django is configured for, which must hold nothing but a price. folder: the gateways' own."""
    started = time.monotonic()
    upstream.set_default(_SERVED)
    environment = {
        **ENVIRONMENT,
        **_PATIENT,
        "LLM_OPENAI_BASE_URL": upstream.openai_base_url,
        "DATABASE_URL": own_database_url(),
    }
    with ExitStack() as stack:
        sites = [Site(folder / f"site{n}", environment, workers=goal.workers) for n in range(goal.sites)]
        for site in sites:
            stack.enter_context(site)
        ports = [site.port for site in sites]
        budgets = Budgets(_probe(ports), keys=goal.keys, seed=goal.seed)
        stage = Stage(sites, upstream)
        with LimitWatch() as watch:
            outcomes = _call(goal, budgets, stage)
            for site in sites:
                site.stop()
            commands = (("reap", "--now"), ("verify_books",)) if stage.happened else (("verify_books",),)
            problems = run_commands(*commands, environment=sites[0].environment)
    admitted = Usage.objects.exclude(status="void").exclude(api_key__account__name="probes").count()
    expected = sum(budgets.expected(account_id) for account_id in budgets.account_ids)
    return LimitsReport(
        watch=watch,
        statuses=Counter(str(outcome.status or outcome.error) for outcome in outcomes),
        kills=killed(stage.happened),
        expected=expected,
        admitted=admitted,
        refused_that_fitted=0 if stage.happened else _refused_that_fitted(budgets),
        seconds=time.monotonic() - started,
        problems=[*problems, *([] if stage.happened else _problems(budgets, upstream))],
    )


def _probe(ports: Sequence[int]) -> Mapping[bool, Mapping[LimitMetric, Units]]:
    """What a call asks for and uses: of a key with ample limits, streamed or not."""
    secret = make_key("probes")
    found = {}
    for is_stream in (False, True):
        call = Call(model=f"m-{int(is_stream):08d}", is_stream=is_stream)
        outcome = asyncio.run(make(call, port=ports[0], key=secret, max_tokens=MAX_OUTPUT_TOKENS))
        row = Usage.objects.get(model=call.model)
        if not outcome.is_complete or row.status != "settled":
            raise RuntimeError(f"the probe failed: {outcome}, {row.status}")
        limits = {window.pk: window.governing_limit for window in LimitWindow.objects.select_related("limit")}
        found[is_stream] = units_of(row, limits)
    return found


# --- Calls ------------------------------------------------------------------------------------------------------------


def _call(goal: LimitsGoal, budgets: Budgets, stage: Stage) -> list[Outcome]:
    is_over = threading.Event()
    site_kills = [Kills(stage, site, random.Random(goal.seed)) for site in stage.sites]

    def kill() -> None:
        while killed(stage.happened) < goal.kills and not is_over.is_set():
            for kills in site_kills:
                kills.kill_worker()

    killer = threading.Thread(target=kill, name="killer")
    killer.start()
    try:
        return asyncio.run(_call_all(goal, budgets.callers, [site.port for site in stage.sites]))
    finally:
        is_over.set()
        killer.join()


async def _call_all(goal: LimitsGoal, callers: Sequence[Caller], ports: Sequence[int]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    draw = random.Random(goal.seed)
    room = asyncio.Semaphore(_MAX_IN_FLIGHT)

    async def call_until_spent(caller: Caller) -> None:
        while True:
            async with room:
                port = ports[len(outcomes) % len(ports)]
                outcome = await make(caller.call, port=port, key=caller.secret, max_tokens=MAX_OUTPUT_TOKENS)
            outcomes.append(outcome)
            if outcome.status == 429 and not outcome.may_retry:
                return
            if outcome.status != 200:
                await asyncio.sleep(draw.uniform(_SHORTEST_S, _LONGEST_S))

    async with asyncio.timeout(_PATIENCE_S), asyncio.TaskGroup() as group:
        for caller in draw.sample(callers, len(callers)):
            for _ in range(goal.callers):
                group.create_task(call_until_spent(caller))
    return outcomes


# --- What came of it --------------------------------------------------------------------------------------------------


def _calls_of(**whose: int) -> int:
    return Usage.objects.exclude(status="void").filter(**whose).count()


def _refused_that_fitted(budgets: Budgets) -> int:
    return sum(
        max(0, budgets.expected(account_id) - _calls_of(account_id=account_id)) for account_id in budgets.account_ids
    )


def _problems(budgets: Budgets, upstream: FakeUpstream) -> list[str]:
    """Where more calls were let in than fit, of a key or an account, or others than the upstream has served."""
    served = Counter(entry.model for entry in upstream.ledger.entries() if entry.status == 200)
    problems = []
    for caller in budgets.callers:
        calls, most = _calls_of(api_key_id=caller.api_key_id), budgets.of_key(caller.api_key_id).calls
        if calls > most or calls != served[caller.call.model]:
            problems.append(f"{caller.call.model}: {calls} calls, {served[caller.call.model]} served, {most} fit")
    problems += [
        f"account {account_id}: {calls} calls, {budgets.expected(account_id)} fit"
        for account_id in budgets.account_ids
        if (calls := _calls_of(account_id=account_id)) > budgets.expected(account_id)
    ]
    leaked = LimitWindow.objects.exclude(held=0).count()
    return [*problems, f"{leaked} windows hold something"] if leaked else problems
