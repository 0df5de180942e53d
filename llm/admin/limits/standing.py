"""What is used of limits in their current periods: read for many limits at once, for lists and pages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F, Q, QuerySet
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.format import badge, moment
from llm.enums import LimitMetric
from llm.limits.amounts import amount_digits, describe_limit, format_limit_amount
from llm.limits.changes import fullest_end_users
from llm.limits.periods import period_of
from llm.models import Limit, LimitWindow
from llm.models.limits import LimitQuerySet

NEARLY_FULL_PERCENT = 80


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """used, held: units of the limit's metric; of a limit for each end user, the most of one of them. resets_at: None
    for a limit in all.
    """

    limit: Limit
    used: int
    held: int
    resets_at: datetime | None

    @property
    def percent(self) -> int:
        """Used and held together as a percentage of the amount, rounded down; 100 for a limit of zero."""
        return (self.used + self.held) * 100 // self.limit.amount if self.limit.amount else 100

    @property
    def description(self) -> str:
        return describe_limit(self.limit)

    @property
    def fill(self) -> SafeString:
        """A bar and the percentage, with the figures below."""
        return format_html(
            '<meter min="0" max="100" low="{}" high="99" optimum="0" value="{}" aria-hidden="true"></meter> '
            '<span class="gw-num">{} %</span><span class="gw-hint gw-below gw-num">{}</span>',
            NEARLY_FULL_PERCENT - 1,
            min(self.percent, 100),
            self.percent,
            f"{self._amount(self.used)} used"
            + (f", {self._amount(self.held)} reserved" if self.held else "")
            + (" at most by one end user" if self.limit.is_per_end_user else ""),
        )

    @property
    def resets(self) -> SafeString | str:
        return moment(self.resets_at) if self.resets_at else "never"

    @property
    def threshold(self) -> str:
        return f"{self.limit.soft_percent} %" if self.limit.soft_percent else "none"

    def _amount(self, units: int) -> str:
        """Without the unit, which is shown beside it; a cost keeps its dollar sign."""
        is_cost = self.limit.metric == LimitMetric.COST
        return format_limit_amount(self.limit.metric, units) if is_cost else amount_digits(self.limit.metric, units)


def limit_state(limit: Limit) -> SafeString:
    return badge("ended" if limit.archived_at else "in force")


def load_standings(limits: Iterable[Limit], now: datetime) -> list[LimitStanding]:
    """In the order of `limits`, whose accounts are loaded; one query for the windows of all, and one more if some are
    for each end user.
    """
    periods = {limit: period_of(limit.per, limit.account.time_zone, now) for limit in limits}
    windows = {
        (window.limit_id, window.starts_at): window
        for window in LimitWindow.objects.filter(
            limit__in=list(periods), starts_at__in={period.starts_at for period in periods.values()}
        ).order_by()
    }
    fullest = fullest_end_users(
        {limit.pk: period.starts_at for limit, period in periods.items() if limit.is_per_end_user}
    )
    standings = []
    for limit, period in periods.items():
        window = windows.get((limit.pk, period.starts_at))
        used, held = (window.used, window.held) if window else fullest.get(limit.pk, (0, 0))
        standings.append(LimitStanding(limit, used, held, period.ends_at))
    return standings


def nearly_full(now: datetime, percent: int = NEARLY_FULL_PERCENT) -> LimitQuerySet:
    """Limits in force with this share of their current period used and held, of a limit for each end user by one of
    them. Limits of zero are left out.
    """
    full = [_fullest(name, now, percent).values(name) for name in ("limit", "end_user_limit")]
    return Limit.objects.in_force().filter(Q(pk__in=full[0]) | Q(pk__in=full[1]))


def _fullest(limit: str, now: datetime, percent: int) -> QuerySet[LimitWindow]:
    """limit: the name of the column that a window has its limit in."""
    windows = LimitWindow.objects.annotate(scaled=(F("used") + F("held")) * 100).order_by()
    return windows.filter(
        _are_current(now, limit), **{f"{limit}__amount__gt": 0, "scaled__gte": F(f"{limit}__amount") * percent}
    )


def _are_current(now: datetime, limit: str) -> Q:
    """Windows of the current periods. Few conditions for many time zones: most of their periods start together."""
    zones: dict[tuple[str, datetime], list[str]] = defaultdict(list)
    pairs = Limit.objects.in_force().order_by().values_list("per", "account__time_zone").distinct()
    for per, zone in pairs:
        zones[per, period_of(per, zone, now).starts_at].append(zone)
    current = Q(pk__in=())
    for (per, starts_at), names in zones.items():
        current |= Q(**{f"{limit}__per": per, "starts_at": starts_at, f"{limit}__account__time_zone__in": names})
    return current


def attach_standings(limits: Sequence[Limit], now: datetime) -> None:
    """Sets `standing` on each limit of a page."""
    for standing in load_standings(limits, now):
        standing.limit.standing = standing  # type: ignore[attr-defined]
