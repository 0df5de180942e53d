import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.utils import display_for_field
from django.core import serializers
from django.core.exceptions import FieldError, ValidationError
from django.db import OperationalError, connection, models, transaction
from django.db.models import Avg, F, Q
from hypothesis import given
from hypothesis import strategies as st

from llm.enums import CallOutcome, Dialect, UsageStatus
from llm.fields import AmountField, ExactDecimalField, ExactSum, PriceField, _decode, _encode
from llm.models import Account, ApiKey, Usage

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LARGEST = Decimal("9223372.036854775807")


def record_usage(*, cost: Decimal | None, model: str = "m", prompt_tokens: int = 0) -> Usage:
    row = unsaved_usage(cost=cost, model=model, prompt_tokens=prompt_tokens).stamp_digest()
    row.save(force_insert=True)
    return row


def unsaved_usage(*, cost: Decimal | None, model: str = "m", prompt_tokens: int = 0) -> Usage:
    account, _ = Account.objects.get_or_create(name="acme")
    key = ApiKey.objects.filter(account=account).first() or ApiKey.objects.create(account=account, digest=b"d" * 32)
    return Usage(
        id=uuid.uuid4(),
        request_id=uuid.uuid4(),
        process_id=uuid.uuid4(),
        account=account,
        api_key=key,
        model=model,
        dialect=Dialect.OPENAI_CHAT,
        status=UsageStatus.SETTLED,
        outcome=CallOutcome.OK,
        opened_at=NOW,
        closed_at=NOW,
        recorded_at=NOW,
        local_day=date(2026, 11, 1),
        prompt_tokens=prompt_tokens,
        cost=cost,
    )


def stored_cost(usage: Usage) -> object:
    with connection.cursor() as cursor:
        cursor.execute("SELECT cost FROM llm_usage")
        ((stored,),) = cursor.fetchall()
    return stored


@pytest.mark.django_db
def test_an_amount_is_stored_as_whole_pico_units_and_read_as_decimal() -> None:
    usage = record_usage(cost=Decimal("0.000000000001"))

    usage.refresh_from_db()

    assert stored_cost(usage) == 1
    assert usage.cost == Decimal("0.000000000001")


@pytest.mark.django_db
def test_the_largest_amount_survives() -> None:
    usage = record_usage(cost=LARGEST)

    usage.refresh_from_db()

    assert stored_cost(usage) == 2**63 - 1
    assert usage.cost == LARGEST


@pytest.mark.django_db
@pytest.mark.parametrize("cost", [0.1, 0.0, 1, True, "0.1", 2_500_000])
def test_floats_bare_numbers_and_text_are_refused(cost: Any) -> None:
    with pytest.raises(TypeError, match="takes Decimal USD"), transaction.atomic():
        unsaved_usage(cost=cost).save(force_insert=True)
    assert not Usage.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("cost", "complaint"), [("1e-13", "12 decimals"), ("9223372.036854775808", "can hold"), ("NaN", "finite")]
)
def test_what_the_column_cannot_hold_exactly_is_refused(cost: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint), transaction.atomic():
        unsaved_usage(cost=Decimal(cost)).save(force_insert=True)
    assert not Usage.objects.exists()


@pytest.mark.django_db
def test_lookups_compare_amounts() -> None:
    for cost in (Decimal("0.10"), Decimal("0.20"), None):
        record_usage(cost=cost)

    assert Usage.objects.filter(cost=Decimal("0.1")).count() == 1
    assert Usage.objects.filter(cost__gt=Decimal("0.1")).count() == 1
    assert Usage.objects.filter(cost__in=[Decimal("0.1"), Decimal("0.2")]).count() == 2
    assert Usage.objects.filter(cost__range=(0, Decimal("0.15"))).count() == 1
    assert Usage.objects.filter(cost__isnull=True).count() == 1
    assert Usage.objects.exclude(cost=None).order_by("-cost").first().cost == Decimal("0.2")  # type: ignore[union-attr]


@pytest.mark.django_db
def test_a_float_in_a_lookup_is_refused() -> None:
    with pytest.raises(TypeError, match="takes Decimal USD"):
        Usage.objects.filter(cost__gt=0.1).exists()


@pytest.mark.django_db
def test_arithmetic_that_would_lose_the_unit_is_refused() -> None:
    record_usage(cost=Decimal("0.1"))

    with pytest.raises(FieldError):
        Usage.objects.annotate(twice=F("cost") + F("cost")).first()


@pytest.mark.django_db
def test_an_average_is_refused_rather_than_rounded() -> None:
    record_usage(cost=Decimal("0.000000000001"))
    record_usage(cost=Decimal("0.000000000002"))

    with pytest.raises(TypeError, match="whole number of units"):
        Usage.objects.aggregate(mean=Avg("cost"))


@pytest.mark.django_db
def test_sums_beyond_64_bits_are_exact() -> None:
    for _ in range(3):
        record_usage(cost=LARGEST, prompt_tokens=2**63 - 1)

    sums = Usage.objects.aggregate(cost=ExactSum("cost"), tokens=ExactSum("prompt_tokens"))

    assert sums == {"cost": Decimal("27670116.110564327421"), "tokens": 3 * (2**63 - 1)}
    assert type(sums["tokens"]) is int


@pytest.mark.django_db
def test_a_sum_of_nothing_is_none() -> None:
    record_usage(cost=None)

    assert Usage.objects.aggregate(cost=ExactSum("cost")) == {"cost": None}
    assert Usage.objects.none().aggregate(cost=ExactSum("cost")) == {"cost": None}


@pytest.mark.django_db
def test_groups_can_be_filtered_and_ordered_by_their_sum() -> None:
    for model, cost, count in (("small", Decimal(9), 1), ("middle", Decimal(10), 1), ("large", LARGEST, 3)):
        for _ in range(count):
            record_usage(cost=cost, model=model)
    totals = Usage.objects.values("model").annotate(total=ExactSum("cost"))

    ordered = [row["model"] for row in totals.order_by("-total")]
    above = {row["model"] for row in totals.filter(total__gt=LARGEST * 2)}
    exact = {row["model"] for row in totals.filter(total=Decimal(10))}

    assert ordered == ["large", "middle", "small"]
    assert above == {"large"}
    assert exact == {"middle"}


@pytest.mark.django_db
def test_sums_take_filters_and_can_be_summed_again() -> None:
    for model, cost in (("a", LARGEST), ("a", LARGEST), ("b", LARGEST)):
        record_usage(cost=cost, model=model)

    only_a = Usage.objects.aggregate(total=ExactSum("cost", filter=Q(model="a")))
    of_sums = Usage.objects.values("model").annotate(total=ExactSum("cost")).aggregate(all=ExactSum("total"))

    assert only_a == {"total": LARGEST * 2}
    assert of_sums == {"all": LARGEST * 3}


@pytest.mark.django_db
def test_a_sum_of_what_is_no_exact_number_is_refused() -> None:
    with pytest.raises(FieldError, match="can't sum a CharField"):
        Usage.objects.aggregate(total=ExactSum("model"))


@pytest.mark.django_db
def test_a_comparison_of_a_sum_with_a_float_is_refused() -> None:
    totals = Usage.objects.values("model").annotate(total=ExactSum("cost"))
    with pytest.raises(TypeError, match="compared with this sum exactly"):
        list(totals.filter(total__gt=1.5))


@pytest.mark.django_db
@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="only SQLite makes floats of integers")
def test_a_float_inside_a_sum_is_refused() -> None:
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT LLM_EXACT_SUM(0.5)")


def test_a_sum_has_no_default() -> None:
    with pytest.raises(TypeError, match="no default"):
        ExactSum("cost", default=0)


@given(st.lists(st.integers(min_value=-(10**38) + 1, max_value=10**38 - 1), min_size=2))
def test_the_text_of_a_sum_sorts_as_the_number_does(numbers: list[int]) -> None:
    assert [_decode(text) for text in sorted(map(_encode, numbers))] == sorted(numbers)


def test_a_sum_of_more_than_38_digits_is_refused() -> None:
    with pytest.raises(OverflowError):
        _encode(10**38)


def test_forms_and_fixtures_read_text() -> None:
    field: PriceField[Any, Any] = PriceField()
    assert field.to_python("2.50") == Decimal("2.5")
    assert field.to_python(None) is None
    for bad in ("1e-7", "abc", "NaN", 2.5):
        with pytest.raises(ValidationError):
            field.to_python(bad)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("1.50", "1.50"),
        ("1.5", "1.50"),
        ("1E+2", "100.00"),
        ("0", "0.00"),
        ("-0.00", "0.00"),
        (f"-{'9' * 36}.99", f"-{'9' * 36}.99"),
    ],
)
def test_an_exact_decimal_has_all_of_its_decimals(text: str, kept: str) -> None:
    field: ExactDecimalField[Any, Any] = ExactDecimalField(decimals=2)

    assert str(field.to_python(text)) == str(field.get_prep_value(Decimal(text))) == kept


@pytest.mark.parametrize("bad", ["1.005", f"1{'0' * 36}.00", "NaN", "-sNaN", "Infinity"])
def test_what_an_exact_decimal_cannot_hold_is_refused(bad: str) -> None:
    field: ExactDecimalField[Any, Any] = ExactDecimalField(decimals=2)

    with pytest.raises(ValidationError):
        field.to_python(bad)
    with pytest.raises(ValueError, match=r"decimals|digits|finite"):
        field.get_prep_value(Decimal(bad))


def test_the_form_field_bounds_the_decimals() -> None:
    field: PriceField[Any, Any] = PriceField()
    with pytest.raises(ValidationError):
        field.formfield().clean("0.0000001")
    assert field.formfield().clean("0.000001") == Decimal("0.000001")


def test_the_admin_shows_amounts_without_exponent() -> None:
    assert display_for_field(Decimal("1.5E-7"), AmountField(), "-") == "0.00000015"
    assert display_for_field(None, AmountField(), "-") == "-"


@pytest.mark.django_db
def test_fixtures_keep_amounts_exactly() -> None:
    usage = record_usage(cost=Decimal("0.000000150000"))

    (copy,) = serializers.deserialize("json", serializers.serialize("json", [usage]))

    assert isinstance(copy.object, Usage)
    assert copy.object.cost == Decimal("0.00000015")
    assert Usage._meta.get_field("cost").value_to_string(usage) == "0.00000015"


def test_a_migration_can_rebuild_the_field() -> None:
    field: AmountField[Any, Any] = AmountField(null=True)
    _, path, args, kwargs = field.deconstruct()
    assert (path, args, kwargs) == ("llm.fields.AmountField", [], {"null": True})
    assert isinstance(field, models.Field)
