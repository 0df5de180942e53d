"""The closed vocabularies of the gateway, as stored in the database and used in logs."""

from django.db import models


class AccountStatus(models.TextChoices):
    ACTIVE = "active", "active"
    SUSPENDED = "suspended", "suspended"
    CLOSED = "closed", "closed"


class UsageStatus(models.TextChoices):
    """Moves forward only: from `open` to one of the others, which are final."""

    OPEN = "open", "open"
    SETTLED = "settled", "settled"
    ESTIMATED = "estimated", "estimated"
    VOID = "void", "void"


class UsageSource(models.TextChoices):
    """Where a row's token figures came from."""

    NONE = "none", "none"
    REPORTED = "reported", "reported by the provider"
    DRAINED = "drained", "reported by the provider after the client had left"
    ESTIMATED = "estimated", "our estimate"


class CallOutcome(models.TextChoices):
    """How an upstream call ended, regardless of its figures."""

    PENDING = "pending", "pending"
    OK = "ok", "ok"
    CLIENT_GONE = "client_gone", "client gone"
    UPSTREAM_REFUSED = "upstream_refused", "refused by the provider"
    UPSTREAM_FAILED = "upstream_failed", "upstream failed"
    UPSTREAM_UNREACHABLE = "upstream_unreachable", "upstream unreachable"
    TIMEOUT = "timeout", "timed out"
    NOT_SENT = "not_sent", "never sent"
    SHUTDOWN = "shutdown", "cut off by our shutdown"
    LOST = "lost", "lost (gateway restarted)"


FAILED_OUTCOMES = (
    CallOutcome.UPSTREAM_REFUSED,
    CallOutcome.UPSTREAM_FAILED,
    CallOutcome.UPSTREAM_UNREACHABLE,
    CallOutcome.TIMEOUT,
    CallOutcome.SHUTDOWN,
    CallOutcome.LOST,
)
"""Ends of a call for which neither the caller nor its leaving is the cause."""


class Dialect(models.TextChoices):
    """A wire format that callers speak."""

    NATIVE = "native", "native"
    OPENAI_CHAT = "openai.chat", "openai.chat"
    OPENAI_RESPONSES = "openai.responses", "openai.responses"
    OPENAI_COMPLETIONS = "openai.completions", "openai.completions"
    OPENAI_EMBEDDINGS = "openai.embeddings", "openai.embeddings"
    ANTHROPIC_MESSAGES = "anthropic.messages", "anthropic.messages"


class Meter(models.TextChoices):
    """What a rate prices. Token meters are disjoint: each token is priced by exactly one of them."""

    INPUT = "input", "input tokens"
    OUTPUT = "output", "output tokens"
    CACHE_READ = "cache_read", "cached input tokens"
    CACHE_WRITE_5M = "cache_write_5m", "input tokens written to the 5 minute cache"
    CACHE_WRITE_1H = "cache_write_1h", "input tokens written to the 1 hour cache"
    AUDIO_INPUT = "audio_input", "audio input tokens"
    AUDIO_OUTPUT = "audio_output", "audio output tokens"
    REASONING = "reasoning", "reasoning tokens, where priced differently from output"


class PriceSource(models.TextChoices):
    IMPORTED = "imported", "imported"
    STAFF = "staff", "set by staff"


class LimitMetric(models.TextChoices):
    """What a limit counts. The units are whole requests, whole tokens, and micro-units of USD, rounded up."""

    REQUESTS = "requests", "requests"
    TOKENS = "tokens", "tokens"
    COST = "cost", "cost"


class LimitPer(models.TextChoices):
    MINUTE = "minute", "per minute"
    HOUR = "hour", "per hour"
    DAY = "day", "per day"
    MONTH = "month", "per month"
    TOTAL = "total", "in total"


class AdjustmentSource(models.TextChoices):
    """Where later knowledge about a closed row came from."""

    SPOOL = "spool", "late settlement"
    DECISION = "decision", "decided by staff"
    PROVIDER = "provider", "the provider's report"
    RERATING = "rerating", "a corrected price"


class CheckScope(models.TextChoices):
    """Which calls an audit of the books reads."""

    ALL = "all", "all calls"
    RECENT = "recent", "new calls, and a tenth of the others"


class OutboxKind(models.TextChoices):
    MAIL = "mail", "email"
    WEBHOOK = "webhook", "webhook"


class AuditAction(models.TextChoices):
    """What an entry of the audit log reports. Rows of the first three are written by the database's triggers."""

    CREATED = "created", "created"
    CHANGED = "changed", "changed"
    DELETED = "deleted", "deleted"
    SIGNED_IN = "signed_in", "signed in"
    SIGNED_OUT = "signed_out", "signed out"
    SIGN_IN_FAILED = "sign_in_failed", "sign-in failed"
    DOWNLOADED = "downloaded", "downloaded"
