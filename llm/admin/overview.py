"""The index page: the day's figures, limited to what its reader may see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.utils import timezone

from llm.admin import usage_summaries
from llm.admin.attention import Attention, attention_for
from llm.admin.keys.state import SOON
from llm.models import ApiKey, Usage
from llm.providers.registry import find_instance, is_configured

CHART_DAYS = 14
TOP = 5
RECENT_CALLS = 10
_WORK_ON_INVOICES = ("billing.prepare_invoice", "billing.approve_invoice", "billing.issue_invoice")


@dataclass(frozen=True, slots=True)
class SystemState:
    """instances: all by name with their providers, where LLM_PROVIDERS names them.

    needs_work: the default provider can't be called as it is configured. is_echo: its calls go nowhere.
    """

    provider: str
    default_model: str
    needs_work: bool
    is_echo: bool
    instances: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class UsageOverview:
    """month_cost: since the first of the month, over the days that are known; is_complete says whether all are.

    former_cost: of as many days of the month before; None while one of them is not known yet.
    Open calls are counted up to `reports.MAX_OPEN_CALLS`.
    """

    today: usage_summaries.DayReport
    month_cost: Decimal
    is_complete: bool
    yesterday: usage_summaries.DayTotals
    former_cost: Decimal | None
    days: tuple[usage_summaries.DayTotals, ...]
    open_calls: int
    recent: tuple[Usage, ...]

    @property
    def top_accounts(self) -> tuple[usage_summaries.NamedTotals, ...]:
        return self.today.accounts[:TOP]

    @property
    def top_models(self) -> tuple[usage_summaries.NamedTotals, ...]:
        return self.today.models[:TOP]

    @property
    def has_too_many_open(self) -> bool:
        return self.open_calls > usage_summaries.MAX_OPEN_CALLS

    @property
    def failed_percent(self) -> str:
        """One decimal, rounded up."""
        whole, tenths = divmod(self.today.total.failed_permille, 10)
        return f"{whole}.{tenths}"

    @property
    def is_first_run(self) -> bool:
        return not self.recent


@dataclass(frozen=True, slots=True)
class Overview:
    """usage is None, and keys are empty, for users who may not see them.

    begins_with_invoices: for those who work on invoices, and don't administer the gateway.
    """

    day: date
    system: SystemState
    usage: UsageOverview | None = None
    expiring_keys: tuple[ApiKey, ...] = field(default=())
    attention: tuple[Attention, ...] = field(default=())
    begins_with_invoices: bool = False


def overview_for(user: PermissionsMixin | AnonymousUser) -> Overview:
    now = timezone.now()
    day = usage_summaries.day_of_most_accounts(now)
    keys = usage_summaries.keys_expiring(now, within=SOON) if user.has_perm("llm.view_apikey") else []
    return Overview(
        day=day,
        system=system_state(),
        usage=usage_overview(day) if user.has_perm("llm.view_usage") else None,
        expiring_keys=tuple(keys),
        attention=attention_for(user, now),
        begins_with_invoices=not user.is_superuser and any(map(user.has_perm, _WORK_ON_INVOICES)),
    )


def usage_overview(day: date) -> UsageOverview:
    this_month, former_month = day.replace(day=1), (day.replace(day=1) - timedelta(days=1)).replace(day=1)
    first = min(former_month, day - timedelta(days=CHART_DAYS - 1))
    today = usage_summaries.day_report(day)
    days = usage_summaries.daily_figures(first, today)
    return UsageOverview(
        today=today,
        month_cost=sum((figures.cost for figures in days if figures.day >= this_month), Decimal(0)),
        is_complete=all(figures.is_known for figures in days if figures.day >= this_month),
        yesterday=days[-2],
        former_cost=_known_cost(each for each in days if each.day < this_month and each.day.day <= day.day),
        days=tuple(days[-CHART_DAYS:]),
        open_calls=usage_summaries.open_calls(),
        recent=tuple(usage_summaries.recent_calls(RECENT_CALLS)),
    )


def _known_cost(days: Iterable[usage_summaries.DayTotals]) -> Decimal | None:
    read = list(days)
    return sum((each.cost for each in read), Decimal(0)) if all(each.is_known for each in read) else None


def system_state() -> SystemState:
    """Only names: credentials never get near a page."""
    return SystemState(
        provider=settings.LLM_PROVIDER,
        default_model=settings.LLM_DEFAULT_MODEL,
        needs_work=not is_configured(settings.LLM_PROVIDER),
        is_echo=(default := find_instance(settings.LLM_PROVIDER)) is not None and default.provider == "echo",
        instances=tuple((each.name, each.provider) for each in settings.LLM_PROVIDERS),
    )
