from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, call_command

from llm.models import Price, Rate

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@time_machine.travel(NOW, tick=False)
def run(*arguments: str) -> str:
    output = StringIO()
    call_command("set_price", *arguments, stdout=output)
    return output.getvalue()


def rates_of(price: Price) -> dict[str, Decimal]:
    return dict(Rate.objects.filter(rate_set__price=price).values_list("meter", "amount"))


def test_a_price_holds_from_now_on_and_the_command_says_so() -> None:
    output = run("openai", "gpt-4o", "--input", "2.50", "--output", "10", "--note", "list price")

    price = Price.objects.get()
    assert (price.effective_from, price.note, price.source) == (NOW, "list price", "staff")
    assert rates_of(price) == {"input": Decimal("2.5"), "output": Decimal(10)}
    assert output == (
        "openai gpt-4o, from 2026-11-20 12:00:00Z until you set another price:\n  standard: input 2.50, output 10.00\n"
    )


def test_every_meter_has_an_option() -> None:
    run(
        *("anthropic", "claude-opus-5", "--input=1", "--output=2", "--cache-read=3", "--cache-write=4"),
        *("--cache-write-1h=5", "--audio-input=6", "--audio-output=7", "--reasoning=8"),
    )
    assert rates_of(Price.objects.get()) == {
        "input": Decimal(1),
        "output": Decimal(2),
        "cache_read": Decimal(3),
        "cache_write_5m": Decimal(4),
        "cache_write_1h": Decimal(5),
        "audio_input": Decimal(6),
        "audio_output": Decimal(7),
        "reasoning": Decimal(8),
    }


@pytest.mark.parametrize("moment", ["2026-12-01T00:00Z", "2026-12-01", "2026-12-01T05:45+05:45"])
def test_a_price_can_start_later(moment: str) -> None:
    output = run("openai", "gpt-4o", "--input", "1", "--from", moment)
    assert Price.objects.get().effective_from == datetime(2026, 12, 1, tzinfo=UTC)
    assert "has passed" not in output


def test_a_price_from_the_past_leaves_recorded_calls_alone_and_says_so() -> None:
    run("openai", "gpt-4o", "--free", "--from", "2026-11-10")

    output = run("openai", "gpt-4o", "--input", "1", "--from", "2026-11-01T00:00Z")

    assert output == (
        "openai gpt-4o, from 2026-11-01 00:00:00Z until 2026-11-10 00:00:00Z:\n"
        "  standard: input 1.00\n"
        "That time has passed: calls already recorded keep their price.\n"
    )


def test_a_model_can_be_declared_free() -> None:
    output = run("openai_compatible", "llama3.2", "--free")
    price = Price.objects.get()
    assert price.is_free
    assert rates_of(price) == {}
    assert output.endswith(":\n  free\n")


def test_rates_end_that_a_model_is_free() -> None:
    run("openai", "gpt-4o", "--free", "--from", "2026-11-10")

    output = run("openai", "gpt-4o", "--input", "2.50")

    price = Price.objects.latest("id")
    assert not price.is_free
    assert rates_of(price) == {"input": Decimal("2.5")}
    assert output.endswith(":\n  standard: input 2.50\n")


def test_a_service_tier_stands_beside_the_standard_price() -> None:
    run("openai", "gpt-4o", "--input", "1", "--from", "2026-11-01")

    output = run("openai", "gpt-4o", "--input", "2", "--service-tier", "priority")

    assert output.splitlines()[1:] == ["  standard: input 1.00", "  priority: input 2.00"]


def test_so_does_a_price_of_a_speed_and_a_place() -> None:
    run("anthropic", "claude-x", "--input", "1", "--from", "2026-11-01")
    run("anthropic", "claude-x", "--input", "6", "--speed", "fast", "--from", "2026-11-02")

    output = run("anthropic", "claude-x", "--input", "6.6", "--speed", "fast", "--inference-geo", "us")

    assert output.splitlines()[1:] == ["  standard: input 1.00", "  fast: input 6.00", "  fast, us: input 6.60"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("openai", "gpt-4o"), "Give an input or output token rate"),
        (("openai", "gpt-4o", "--free", "--input", "1"), "either rates or “free”"),
        (("openai", "gpt-4o", "--input=-1"), "--input: “-1” is negative"),
        (("openai", "gpt-4o", "--input", "NaN"), "--input: “NaN” is not a plain number"),
        (("openai", "gpt-4o", "--output", "0.0000001"), "--output: “0.0000001” has more than 6 decimals"),
        (("openai", "gpt-4o", "--cache-write-1h", "1e3", "--input", "1"), "--cache-write-1h: “1e3” is not a plain"),
        (("nobody", "gpt-4o", "--input", "1"), "“nobody” is not a provider"),
        (("openai", "gpt-4o", "--input", "1", "--from", "soon"), "“soon” is not a valid time, e.g."),
        (("openai", "gpt-4o", "--input", "1", "--service-tier", "flex"), "Set the standard price first"),
    ],
)
def test_a_bad_price_is_refused_and_nothing_is_written(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        run(*arguments)
    assert not Price.objects.exists()


def test_the_same_moment_twice_is_refused() -> None:
    run("openai", "gpt-4o", "--input", "1")
    with pytest.raises(CommandError, match="a price can't be changed"):
        run("openai", "gpt-4o", "--input", "2")
    assert Price.objects.count() == 1


def test_units_beside_tokens_are_priced_and_carry_over() -> None:
    run("openai", "m", "--input=1", "--per-thousand", "web_searches=25", "--per-thousand", "unreported_tools=0")
    later = run("openai", "m", "--input=2", "--from", "2026-12-01", "--per-thousand=unreported_tools=3")
    assert "unreported_tools 3.00 per 1000" in later
    assert rates_of(Price.objects.order_by("effective_from").last()) == {  # type: ignore[arg-type]
        "input": Decimal(2),
        "web_searches": Decimal(25),
        "unreported_tools": Decimal(3),
    }


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("web_searches", "is not a plain number"),
        ("web_searches=-1", "negative"),
        ("Web Searches=1", "is not a valid name for non-token units"),
        ("input=1", "is not a valid name for non-token units"),
    ],
)
def test_units_that_cannot_be_priced_are_refused(argument: str, complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        run("openai", "m", "--input=1", f"--per-thousand={argument}")
    assert not Price.objects.exists()


def test_a_free_price_has_no_units() -> None:
    with pytest.raises(CommandError, match="either rates or “free”"):
        run("openai", "m", "--free", "--per-thousand=web_searches=1")
