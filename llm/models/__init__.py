"""The gateway's tables. Import models from here."""

from llm.models.accounts import Account, ApiKey
from llm.models.catalog import CatalogVersion, ModelRoute, Price, Rate, RateSet, RouteTarget
from llm.models.corrections import BooksCheck, CheckedDay, Redaction, RefusedWrite, ReratingRun, UsageAdjustment
from llm.models.endusers import EndUser, EndUserKey
from llm.models.idempotency import IdempotencyKey, KeptReply
from llm.models.limits import Limit, LimitWindow
from llm.models.outbox import Outbox
from llm.models.processes import Process, ReaperState, ScheduledTask
from llm.models.refusals import RefusedRequests
from llm.models.second_factor import SecondFactorGroup
from llm.models.signins import SignInCount
from llm.models.trail import AuditEntry, FailedSignIns
from llm.models.usage import OpenCall, Usage
from llm.models.used_forms import UsedForm

__all__ = (
    "Account",
    "ApiKey",
    "AuditEntry",
    "BooksCheck",
    "CatalogVersion",
    "CheckedDay",
    "EndUser",
    "EndUserKey",
    "FailedSignIns",
    "IdempotencyKey",
    "KeptReply",
    "Limit",
    "LimitWindow",
    "ModelRoute",
    "OpenCall",
    "Outbox",
    "Price",
    "Process",
    "Rate",
    "RateSet",
    "ReaperState",
    "Redaction",
    "RefusedRequests",
    "RefusedWrite",
    "ReratingRun",
    "RouteTarget",
    "ScheduledTask",
    "SecondFactorGroup",
    "SignInCount",
    "Usage",
    "UsageAdjustment",
    "UsedForm",
)
