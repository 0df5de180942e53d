"""The closed vocabularies of billing, as they stand in the database, in exports and in proofs."""

from django.db import models


class InvoiceKind(models.TextChoices):
    """regular: a period's usage, and what came late for earlier ones. supplement: late usage with no next period."""

    REGULAR = "regular", "invoice"
    SUPPLEMENT = "supplement", "supplement"
    CREDIT_NOTE = "credit_note", "credit note"


class CreditKind(models.TextChoices):
    """What a credit note is.

    correction: what it credits is billed again, by the next draft. goodwill: what it credits stays billed, and is
    never charged again. reduction: an issued month costs less than was charged, which the books found themselves.
    """

    CORRECTION = "correction", "correction"
    GOODWILL = "goodwill", "goodwill"
    REDUCTION = "reduction", "reduction"


class InvoiceState(models.TextChoices):
    """Moves forward, but for `in_review` and `approved` -> `draft` (sent back). From `issued` on nothing changes."""

    DRAFT = "draft", "draft"
    IN_REVIEW = "in_review", "in review"
    APPROVED = "approved", "approved"
    ISSUED = "issued", "issued"
    PAID = "paid", "paid"
    VOID = "void", "void"


class LineKind(models.TextChoices):
    """In the order in which lines stand on an invoice."""

    USAGE = "usage", "usage"
    ALLOWANCE = "allowance", "included allowance"
    DISCOUNT = "discount", "discount"
    FLAT_FEE = "flat_fee", "flat fee"
    COMMITMENT = "commitment", "minimum commitment"
    GOODWILL = "goodwill", "goodwill already credited"


class TierMode(models.TextChoices):
    """graduated: each tier prices the units within it. volume: the tier that is reached prices all units."""

    GRADUATED = "graduated", "graduated"
    VOLUME = "volume", "volume"


class InvoiceAction(models.TextChoices):
    DRAFT = "draft", "drafted"
    RECOMPUTE = "recompute", "recalculated"
    SUBMIT = "submit", "submitted for review"
    SEND_BACK = "send_back", "sent back"
    APPROVE = "approve", "approved"
    ISSUE = "issue", "issued"
    PAY = "pay", "marked as paid"
    VOID = "void", "voided"
    CREDIT = "credit", "credited"
    BILL_AGAIN = "bill_again", "credited, to be billed again"


class JobState(models.TextChoices):
    WAITING = "waiting", "waiting"
    RUNNING = "running", "running"
    DONE = "done", "done"
    FAILED = "failed", "failed"


class MonthJobKind(models.TextChoices):
    CLOSE = "close", "invoice run"
    VERIFY = "verify", "verification"


class TokenScope(models.TextChoices):
    """What a staff token may do at most: each that is more than reading is one thing that the API starts."""

    READ = "read", "read"
    EXPORT = "export", "start exports"
    CREDIT = "credit", "credit invoices"
    DECIDE = "decide", "decide on lost and disputed calls"
