"""Usage of some days, in records that never change: by day, model, account and key, and as the usage explorer asks.

Days come from the rollups, and what those don't hold yet from the calls since; what no day is summed up by is read from
the calls themselves (`explorer`).
"""

from billing.usage_reports.days import (
    DayUsage,
    IdUsage,
    ModelUsage,
    UsageMeasures,
    UsageQuestion,
    UsageReport,
    by_account,
    by_key,
    rolled_up_to,
    usage_report,
)
from billing.usage_reports.explorer import Exploration, Group, explore
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

__all__ = (
    "MAX_DAYS_OF_CALLS",
    "Bucket",
    "DayUsage",
    "Dimension",
    "Exploration",
    "Filters",
    "Group",
    "IdUsage",
    "Measure",
    "ModelUsage",
    "Question",
    "TooMuchUsageError",
    "Unit",
    "UsageMeasures",
    "UsageQuestion",
    "UsageReport",
    "by_account",
    "by_key",
    "explore",
    "rolled_up_to",
    "usage_report",
)
