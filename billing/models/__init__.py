"""Billing's tables. Import models from here."""

from billing.models.archive import ArchivedPdf
from billing.models.invoices import BilledUsage, Invoice, InvoiceEvent, InvoiceLine, InvoiceSeries
from billing.models.jobs import BooksJob, ExportJob, MonthJob
from billing.models.one_offs import OneOffLine
from billing.models.payments import Payment
from billing.models.plans import Plan, PlanRate, PlanVersion
from billing.models.profiles import BillingProfile, ExchangeRate, FormerPlan
from billing.models.reconciliation import CostImport, ProviderCost
from billing.models.rollups import DailyUsage, RollupMark
from billing.models.summaries import AccountDay, KeyDay, KeyThird, ModelDay, StaleDay
from billing.models.tokens import PlainTokenGrace, StaffToken

__all__ = (
    "AccountDay",
    "ArchivedPdf",
    "BilledUsage",
    "BillingProfile",
    "BooksJob",
    "CostImport",
    "DailyUsage",
    "ExchangeRate",
    "ExportJob",
    "FormerPlan",
    "Invoice",
    "InvoiceEvent",
    "InvoiceLine",
    "InvoiceSeries",
    "KeyDay",
    "KeyThird",
    "ModelDay",
    "MonthJob",
    "OneOffLine",
    "Payment",
    "PlainTokenGrace",
    "Plan",
    "PlanRate",
    "PlanVersion",
    "ProviderCost",
    "RollupMark",
    "StaffToken",
    "StaleDay",
)
