"""Usage of some days, in records that never change, as the usage explorer asks for it.

Days come from the rollups, and what those don't hold yet from the calls since; what no day is summed up by is read from
the calls themselves. A day is an account's own.
"""

from billing.usage_reports.explorer import Exploration, Group, explore
from billing.usage_reports.measures import UsageMeasures, rolled_up_to
from billing.usage_reports.questions import (
    MAX_DAYS_OF_CALLS,
    Bucket,
    Dimension,
    Filters,
    Measure,
    Question,
    TooMuchUsageError,
    Unit,
)
from billing.usage_reports.refused import RefusedCounts, count_refused
from billing.usage_reports.sources import REST

__all__ = (
    "MAX_DAYS_OF_CALLS",
    "REST",
    "Bucket",
    "Dimension",
    "Exploration",
    "Filters",
    "Group",
    "Measure",
    "Question",
    "RefusedCounts",
    "TooMuchUsageError",
    "Unit",
    "UsageMeasures",
    "count_refused",
    "explore",
    "rolled_up_to",
)
