"""The document as a page of its own: it links one style sheet and holds neither style nor script."""

from __future__ import annotations

from django.template.loader import render_to_string

from billing.documents.context import invoice_context
from billing.documents.document import LANGUAGE
from billing.models import Invoice


def render_html(invoice: Invoice) -> str:
    return render_to_string("billing/invoice.html", {"document": invoice_context(invoice), "language": LANGUAGE})
