import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from llm.models import CatalogVersion, Price
from llm.prices.catalog import load_catalog

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("import_prices", *arguments, stdout=output)
    return output.getvalue()


def test_the_summary_counts_what_was_done() -> None:
    first = run("-v", "2")
    prices = Price.objects.count()
    version = CatalogVersion.current()

    second = run()

    models = Price.objects.exclude(provider="echo").values("provider", "model").distinct().count()
    assert first.startswith(f"Prices: {models} models, {prices - 1} new prices, 0 models unchanged, 0 rounded, ")
    assert "No token price is listed for " in first
    assert second.startswith(f"Prices: {models} models, 0 new prices, {models} models unchanged, 0 rounded, ")
    assert "No token price" not in second
    assert (Price.objects.count(), CatalogVersion.current()) == (prices, version)


def test_one_provider_can_be_chosen() -> None:
    run("--provider", "anthropic")
    assert set(Price.objects.values_list("provider", flat=True)) == {"anthropic", "echo"}


@pytest.mark.parametrize("arguments", [("--provider", "echo"), ("--effective-from", "tomorrow")])
def test_wrong_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
    assert not Price.objects.exists()


@pytest.mark.processes
def test_genai_prices_is_not_loaded_by_those_who_only_set_prices() -> None:
    """Its data takes tens of megabytes in every process."""
    code = "import django; django.setup(); import llm.prices.importing, sys; print('genai_prices' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_echo_has_its_price_after_the_documented_commands() -> None:
    """`migrate`, then `import_prices`, as docs/operations.md says: without `bootstrap`."""
    run()
    price = load_catalog().price_for("echo", "any-name", at=datetime.now(UTC))
    assert price is not None
    assert price.is_free
    run()
    assert Price.objects.filter(provider="echo").count() == 1
