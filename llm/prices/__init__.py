"""Writing prices: from genai-prices (`import_prices`) and by staff (`set_price`).

genai-prices itself is imported only while it is read: its data takes tens of megabytes and the web needs none of it.
"""

from llm.prices.importing import ImportSummary, import_prices
from llm.prices.staff import PriceRefusedError, option_for, set_price

__all__ = ("ImportSummary", "PriceRefusedError", "import_prices", "option_for", "set_price")
