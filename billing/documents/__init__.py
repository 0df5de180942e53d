"""The document of an invoice, as a page and as a PDF."""

from __future__ import annotations

import gc

from billing.documents.context import invoice_context, pdf_file_name, render_html
from billing.documents.document import InvoiceDocument
from billing.models import Invoice

__all__ = ("InvoiceDocument", "invoice_context", "pdf_file_name", "render_html", "render_pdf")


def render_pdf(invoice: Invoice) -> bytes:
    """Characters that the font lacks are replaced by a visible sign; see `typesetting.printable`."""
    # Imported late: fpdf2 and its font tools add 19 MB to a web worker that may never render a PDF.
    from billing.documents.pdf import write_pdf

    pdf = write_pdf(invoice_context(invoice))
    # The parsed fonts, 5 MB, are in reference cycles, and the garbage collector of a web process rarely runs.
    gc.collect(1)
    return pdf
