"""The document of an invoice, as a page and as a PDF."""

from __future__ import annotations

import gc

from billing.documents.context import invoice_context, pdf_file_name, render_html
from billing.documents.document import InvoiceDocument
from billing.models import Invoice

__all__ = ("InvoiceDocument", "invoice_context", "pdf_file_name", "render_html", "render_pdf")


def render_pdf(invoice: Invoice) -> bytes:
    """Characters that the font lacks are replaced by a visible sign; see `typesetting.printable`."""
    # Not above: with fpdf2 and the font tools behind it a web worker is 19 MB larger, and may never show a PDF.
    from billing.documents.pdf import write_pdf

    pdf = write_pdf(invoice_context(invoice))
    # The fonts that were read hold each other, 5 MB, and the collector of a web process comes by rarely.
    gc.collect(1)
    return pdf
