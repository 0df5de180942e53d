"""`manage.py set_limit`: whom it means, what it takes, and what it says."""

from __future__ import annotations

import threading
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from llm.keys import create_key, get_or_create_account
from llm.models import ApiKey, Limit

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("set_limit", *arguments, stdout=output)
    return output.getvalue()


def refusal_of(*arguments: str) -> str:
    before = list(Limit.objects.order_by("pk").values())
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert list(Limit.objects.order_by("pk").values()) == before
    return str(caught.value)


def a_key(account: str = "acme", *, prefix: str = "", name: str = "production") -> ApiKey:
    key = create_key(get_or_create_account(account), name=name)[0]
    if prefix:
        ApiKey.objects.filter(pk=key.pk).update(prefix=prefix)
        key.refresh_from_db()
    return key


def limits() -> list[tuple[int, int | None, bool]]:
    """Amount, soft threshold and whether it is in force, the oldest first."""
    return [(limit.amount, limit.soft_percent, limit.archived_at is None) for limit in Limit.objects.order_by("pk")]


def test_a_limit_for_each_end_user_is_another_one() -> None:
    get_or_create_account("acme")
    run("acme", "requests", "day", "9", "--soft", "80")
    assert run("acme", "requests", "day", "3", "--each-end-user") == (
        "acme: 3 requests per day for each end user (set).\n"
    )
    assert run("acme", "requests", "day", "4", "--each-end-user", "--soft", "70").endswith("alert at 70 % (changed).\n")
    assert limits() == [(9, 80, True), (4, 70, True)]
    assert "no longer limited to 4 requests per day for each end user" in run(
        "acme", "requests", "day", "none", "--each-end-user"
    )
    assert limits() == [(9, 80, True), (4, 70, False)]


# --- Amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "per", "amount", "units", "said"),
    [
        ("requests", "minute", "60", 60, "60 requests per minute"),
        ("tokens", "month", "1,000,000", 1_000_000, "1,000,000 tokens per month"),
        ("cost", "day", "$12.50", 12_500_000, "$12.50 per day"),
        ("cost", "total", "0", 0, "$0.00 in total"),
    ],
)
def test_an_account_gets_a_limit(metric: str, per: str, amount: str, units: int, said: str) -> None:
    account = get_or_create_account("acme")
    assert run("acme", metric, per, amount) == f"acme: {said} (set).\n"
    limit = Limit.objects.get()
    assert (limit.account, limit.api_key, limit.metric, limit.per, limit.amount) == (account, None, metric, per, units)
    assert limit.soft_percent is None


@pytest.mark.parametrize(
    ("metric", "amount", "sentence"),
    [
        ("requests", "1.5", "“1.5” is not a whole number such as 60 or 1,000,000."),
        ("requests", "lots", "“lots” is not a whole number such as 60 or 1,000,000."),
        ("requests", "-5", "“-5” is not a whole number such as 60 or 1,000,000."),
        ("cost", "5 EUR", "“5 EUR” is not an amount in USD such as 12.50."),
        ("cost", "0.0000001", "“0.0000001” has more than 6 decimals."),
        ("tokens", "10,000,000,000,000,000", "is higher than a limit can be; omit the limit instead."),
        ("tokens", "", "“” is not a whole number such as 60 or 1,000,000."),
    ],
)
def test_a_wrong_amount_is_refused_in_a_sentence(metric: str, amount: str, sentence: str) -> None:
    get_or_create_account("acme")
    assert refusal_of("acme", metric, "month", amount).endswith(sentence)


@pytest.mark.parametrize("arguments", [("acme", "calls", "month", "1"), ("acme", "tokens", "fortnight", "1")])
def test_unknown_metrics_and_periods_are_refused(arguments: tuple[str, ...]) -> None:
    get_or_create_account("acme")
    assert "invalid choice" in refusal_of(*arguments)


def test_a_limit_is_changed() -> None:
    get_or_create_account("acme")
    run("acme", "tokens", "month", "100")
    assert run("acme", "tokens", "month", "200") == "acme: 200 tokens per month (changed).\n"
    assert limits() == [(200, None, True)]


def test_none_ends_a_limit_and_another_may_follow() -> None:
    get_or_create_account("acme")
    run("acme", "tokens", "month", "100")
    assert run("acme", "tokens", "month", "None") == "acme: no longer limited to 100 tokens per month.\n"
    assert limits() == [(100, None, False)]
    assert run("acme", "tokens", "month", "200") == "acme: 200 tokens per month (set).\n"
    assert limits() == [(100, None, False), (200, None, True)]


def test_where_there_is_no_limit_none_can_end() -> None:
    get_or_create_account("acme")
    run("acme", "tokens", "month", "100")
    assert refusal_of("acme", "tokens", "day", "none") == "acme has no such limit."


# --- The soft threshold -----------------------------------------------------------------------------------------------


def test_the_soft_threshold_is_set_kept_changed_and_taken_away() -> None:
    get_or_create_account("acme")
    month = ("acme", "tokens", "month")
    assert run(*month, "100", "--soft", "80") == "acme: 100 tokens per month, alert at 80 % (set).\n"
    assert run(*month, "200") == "acme: 200 tokens per month, alert at 80 % (changed).\n"
    assert run(*month, "200", "--soft", "90%") == "acme: 200 tokens per month, alert at 90 % (changed).\n"
    assert limits() == [(200, 90, True)]
    assert run(*month, "200", "--soft", "none") == "acme: 200 tokens per month (changed).\n"
    assert limits() == [(200, None, True)]


@pytest.mark.parametrize("soft", ["0", "101", "-1", "half", "80.5", "", "%"])
def test_a_wrong_soft_threshold_is_refused(soft: str) -> None:
    get_or_create_account("acme")
    sentence = refusal_of("acme", "tokens", "month", "100", f"--soft={soft}")
    assert sentence == f"--soft must be between 1 and 100, or none, not “{soft}”."


# --- Whose ------------------------------------------------------------------------------------------------------------


def test_a_key_gets_a_limit_by_how_it_begins() -> None:
    key = a_key(prefix="llm_Abcdefgh")
    a_key(prefix="llm_Abcdxxxx")
    said = run("llm_Abcde", "tokens", "month", "100")
    assert said == f"acme, key production (llm_Abcdefgh…{key.last_four}): 100 tokens per month (set).\n"
    limit = Limit.objects.get()
    assert (limit.account, limit.api_key) == (key.account, key)
    assert run("llm_Abcdefgh", "tokens", "month", "none").endswith(": no longer limited to 100 tokens per month.\n")
    assert limits() == [(100, None, False)]


def test_a_prefix_of_several_keys_is_refused_and_names_them() -> None:
    keys = [a_key(account, prefix=f"llm_Abcdef{account}") for account in ("g1", "h2")]
    sentence = refusal_of("llm_Abcdef", "tokens", "month", "100")
    assert sentence.startswith("2 keys begin with “llm_Abcdef”: ")
    assert sentence.endswith(". Give more characters of the one you mean.")
    for key in keys:
        assert f"{key.masked} of {key.account}" in sentence


def test_a_prefix_of_very_many_keys_names_a_few() -> None:
    for _ in range(7):
        a_key()
    sentence = refusal_of("llm_", "tokens", "month", "100")
    assert sentence.startswith("7 keys begin with “llm_”: ")
    assert sentence.endswith(" and 2 more. Give more characters of the one you mean.")
    assert sentence.count(" of acme") == 5


@pytest.mark.parametrize("text", ["LLM_ABCDEFGH", "llm_abcdefgh", "llm%", "llmXAbcd", "_", ""])
def test_a_prefix_is_meant_literally(text: str) -> None:
    a_key(prefix="llm_Abcdefgh")
    assert refusal_of(text, "tokens", "month", "1") == f"No account is named “{text}”, and no key starts with it."


def test_a_whole_key_is_not_repeated() -> None:
    get_or_create_account("acme")
    secret = create_key(get_or_create_account("acme"), name="production")[1]
    sentence = refusal_of(secret, "tokens", "month", "100")
    assert sentence == f"No account is named “{secret[:12]}…”, and no key starts with it."


def test_an_account_goes_before_a_key() -> None:
    a_key(prefix="llm_Abcdefgh")
    named_so = get_or_create_account("llm_Abcd")
    run("llm_Abcd", "tokens", "month", "100")
    assert (Limit.objects.get().account, Limit.objects.get().api_key) == (named_so, None)


# --- Two at once ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_at_once_lose_nothing_of_each_other() -> None:
    """One changes the amount, the other one the threshold too: who comes second keeps the first one's threshold."""
    get_or_create_account("acme")
    run("acme", "tokens", "month", "100")
    begin = threading.Barrier(2)
    said: list[str] = []

    def change(*arguments: str) -> None:
        begin.wait(10)
        said.append(run("acme", "tokens", "month", *arguments))
        connection.close()

    threads = [threading.Thread(target=change, args=each) for each in (("200",), ("300", "--soft", "80"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(said) == 2
    assert limits() in ([(200, 80, True)], [(300, 80, True)])


@pytest.mark.django_db(transaction=True)
def test_two_who_make_the_same_limit_at_once_make_one() -> None:
    key = a_key(prefix="llm_Abcdefgh")
    begin = threading.Barrier(2)
    said: list[str] = []

    def make(amount: str) -> None:
        begin.wait(10)
        said.append(run("llm_Abcdefgh", "cost", "day", amount).rpartition("(")[2])
        connection.close()

    threads = [threading.Thread(target=make, args=(amount,)) for amount in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(said) == ["changed).\n", "set).\n"]
    assert Limit.objects.get(api_key=key).amount in (1_000_000, 2_000_000)
