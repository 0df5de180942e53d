"""The document of an invoice, as a page and as a PDF."""

from billing.documents.context import invoice_context, pdf_file_name
from billing.documents.document import InvoiceDocument
from billing.documents.html import render_html
from billing.documents.pdf import render_pdf

__all__ = ("InvoiceDocument", "invoice_context", "pdf_file_name", "render_html", "render_pdf")
