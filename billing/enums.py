"""The closed vocabularies of billing, as stored in the database and used in exports and proofs."""

from django.db import models


class InvoiceKind(models.TextChoices):
    """regular: a period's usage, and late usage of earlier ones. supplement: late usage that no regular invoice will
    take.
    """

    REGULAR = "regular", "invoice"
    SUPPLEMENT = "supplement", "supplement"
    CREDIT_NOTE = "credit_note", "credit note"


class CreditKind(models.TextChoices):
    """What a credit note is.

    correction: the credited lines are billed again by the next draft. goodwill: money back; the usage stays billed and
    is never charged again. reduction: drafted automatically when an issued month costs less than was charged.
    """

    CORRECTION = "correction", "correction"
    GOODWILL = "goodwill", "goodwill"
    REDUCTION = "reduction", "reduction"


class InvoiceState(models.TextChoices):
    """Moves forward, except back to `draft` from `in_review` and `approved`. Nothing changes from `issued` on."""

    DRAFT = "draft", "draft"
    IN_REVIEW = "in_review", "in review"
    APPROVED = "approved", "approved"
    ISSUED = "issued", "issued"
    PAID = "paid", "paid"
    VOID = "void", "void"


class LineKind(models.TextChoices):
    """In the order of the lines on an invoice."""

    USAGE = "usage", "usage"
    ALLOWANCE = "allowance", "included allowance"
    DISCOUNT = "discount", "discount"
    FLAT_FEE = "flat_fee", "flat fee"
    COMMITMENT = "commitment", "minimum commitment"
    ONE_OFF = "one_off", "one-off line"
    GOODWILL = "goodwill", "goodwill already credited"


class TierMode(models.TextChoices):
    """graduated: each tier prices the units within it. volume: the tier that is reached prices all units."""

    GRADUATED = "graduated", "graduated"
    VOLUME = "volume", "volume"


class InvoiceAction(models.TextChoices):
    DRAFT = "draft", "drafted"
    RECOMPUTE = "recompute", "recalculated"
    ADD_LINE = "add_line", "given a one-off line"
    REMOVE_LINE = "remove_line", "cleared of a one-off line"
    SUBMIT = "submit", "submitted for review"
    SEND_BACK = "send_back", "sent back"
    APPROVE = "approve", "approved"
    ISSUE = "issue", "issued"
    PAY = "pay", "marked as paid"
    UNPAY = "unpay", "cleared of a payment"
    VOID = "void", "voided"
    MAIL = "mail", "queued for mail"
    REMIND = "remind", "reminded of by mail"
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


class BooksJobKind(models.TextChoices):
    RERATE = "rerate", "price correction"
    IMPORT_PRICES = "import_prices", "price import"
    IMPORT_COSTS = "import_costs", "import of a provider's report"
    VERIFY = "verify", "ledger audit"


class TokenScope(models.TextChoices):
    """What a staff token may do at most. Each scope beyond reading is one kind of action that the API can start."""

    READ = "read", "read"
    EXPORT = "export", "start exports"
    PREPARE = "prepare", "add and remove one-off lines of drafts"
    CREDIT = "credit", "credit invoices"
    PAY = "pay", "record payments"
    DECIDE = "decide", "decide on lost and disputed calls"
