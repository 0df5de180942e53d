"""Writing prices: from genai-prices (`import_prices`) and by staff (`set_price`).

genai-prices itself is imported only while it is read: its data takes tens of megabytes and the web needs none of it.
"""

from llm.prices.builtin import ensure_builtin_prices
from llm.prices.importing import ImportSummary, import_prices
from llm.prices.staff import PriceRefusedError, set_price

__all__ = ("ImportSummary", "PriceRefusedError", "ensure_builtin_prices", "import_prices", "set_price")
