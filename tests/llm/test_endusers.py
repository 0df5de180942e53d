"""End users: a keyed hash on the books, a name beside them that can be deleted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from llm.calls import end_user_names
from llm.calls.end_user_names import EndUserNames
from llm.endusers import NamedEndUser, account_key, find_hashes, hash_end_user, write_names
from llm.errors import BooksUnavailable
from llm.ids import first_id_at
from llm.keys import create_key, load_caller, reload_caller
from llm.models import Account, EndUser, EndUserKey, KeptReply, Usage
from tests.llm.admin.factories import make_account, make_key, save, usage_row
from tests.threads import to_thread

pytestmark = pytest.mark.django_db

KEY = bytes(range(32))
ALICE = "alice@example.org"


@pytest.fixture
def acme() -> Account:
    account = make_account()
    EndUserKey.objects.create(account=account, key=KEY)
    return account


def name_of(account: Account, name: str) -> EndUser:
    return EndUser.objects.create(account=account, end_user=hash_end_user(name, KEY), name=name)


def forget(*arguments: str) -> str:
    out = StringIO()
    call_command("forget_end_user", *arguments, stdout=out)
    return out.getvalue()


def test_a_hash_has_32_digits_and_never_changes(settings: Settings) -> None:
    settings.LLM_KEY_PEPPER = "pepper"
    assert hash_end_user(ALICE, KEY) == "e417d3f86a2e7faf5868dda9ce98b786"


def test_a_hash_depends_on_name_key_and_pepper(settings: Settings) -> None:
    hashes = {hash_end_user(ALICE, KEY), hash_end_user(ALICE.upper(), KEY), hash_end_user(ALICE, KEY[::-1])}
    settings.LLM_KEY_PEPPER = "another"
    assert len(hashes | {hash_end_user(ALICE, KEY)}) == 4


def test_forgetting_a_name_leaves_others_and_the_books(acme: Account) -> None:
    alice, bob = name_of(acme, ALICE), name_of(acme, "bob")
    [row] = save(usage_row(make_key(acme), end_user=alice.end_user))
    assert forget("Acme", ALICE) == "Names deleted: 1.\n"
    assert list(EndUser.objects.all()) == [bob]
    stored = Usage.objects.get()
    assert (stored.end_user, stored.digest, stored.is_as_written) == (alice.end_user, row.digest, True)
    assert EndUserKey.objects.filter(account=acme).exists()


def test_an_end_user_is_forgotten_by_hash_too(acme: Account) -> None:
    alice = name_of(acme, ALICE)
    assert forget("Acme", "--hash", alice.end_user.upper()) == "Names deleted: 1.\n"
    assert not EndUser.objects.exists()


def test_all_end_users_of_one_account_are_forgotten_with_their_key(acme: Account) -> None:
    name_of(acme, ALICE)
    name_of(acme, "bob")
    other = make_account("Other")
    EndUserKey.objects.create(account=other, key=KEY)
    kept = name_of(other, ALICE)
    assert forget("Acme", "--all") == "Names deleted: 2.\n"
    assert list(EndUser.objects.all()) == [kept]
    assert list(EndUserKey.objects.values_list("account", flat=True)) == [other.pk]
    assert forget("Acme", "--all") == "Names deleted: 0.\n"


def a_kept_reply(account: Account, end_user: str, *, days_ago: int = 0) -> KeptReply:
    """Of a call that was opened so long ago; its request has had an attempt before."""
    opened_at = timezone.now() - timedelta(days=days_ago)
    [row] = save(usage_row(make_key(account), end_user=end_user, opened_at=opened_at, id=first_id_at(opened_at)))
    return KeptReply.objects.create(request_id=row.request_id, sealed=b"x", kept_at=opened_at)


def test_replies_that_may_repeat_a_name_go_with_it(acme: Account) -> None:
    other = make_account("Other")
    alice, bob = (hash_end_user(name, KEY) for name in (ALICE, "bob"))
    a_kept_reply(acme, alice)
    kept = [a_kept_reply(acme, bob), a_kept_reply(acme, ""), a_kept_reply(other, alice)]
    # The name itself was deleted before.
    assert forget("Acme", ALICE) == "Names deleted: 0. Kept replies deleted: 1.\n"
    assert set(KeptReply.objects.all()) == set(kept)
    assert forget("Acme", "--all") == "Names deleted: 0. Kept replies deleted: 1.\n"
    assert set(KeptReply.objects.all()) == set(kept[1:])


@pytest.mark.parametrize(
    "arguments",
    [
        ("Acme", "carol"),
        ("Acme", "--hash", "0" * 32),
        ("Acme", "--hash", ""),
        ("Acme", ""),
        ("Acme", "\udcff"),
        ("Acme", "a" * 300),
    ],
)
def test_who_is_unknown_is_said_to_be(acme: Account, arguments: tuple[str, ...]) -> None:
    name_of(acme, ALICE)
    save(usage_row(make_key(acme), end_user=hash_end_user(ALICE, KEY)))
    with pytest.raises(CommandError, match="has no such end user, or the name was already deleted"):
        forget(*arguments)
    assert EndUser.objects.count() == 1


def test_a_name_is_found_as_calls_are_recorded_with_it(acme: Account) -> None:
    name_of(acme, "anne b")
    assert forget("Acme", "an\x00ne\u200b b") == "Names deleted: 1.\n"
    name_of(acme, "user_0f_account_1")
    assert forget("Acme", "user_0f_account_1_session_2") == "Names deleted: 1.\n"


def test_an_account_without_end_users_has_none_to_forget() -> None:
    make_account()
    with pytest.raises(CommandError, match="has no such end user"):
        forget("Acme", ALICE)
    with pytest.raises(CommandError, match="There is no account “Nobody”"):
        forget("Nobody", ALICE)


# --- The account's key ------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
async def test_the_key_is_made_once_however_many_need_it_at_once() -> None:
    account = await to_thread(make_account)
    keys = await asyncio.gather(*(to_thread(account_key, account.pk) for _ in range(8)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    assert await to_thread(account_key, account.pk) == keys[0]


def test_the_key_is_known_with_the_caller_and_never_shown(acme: Account) -> None:
    _, secret = create_key(acme, name="tests")
    caller = load_caller(secret)
    assert caller.end_user_key == reload_caller(caller).end_user_key == KEY
    assert "end_user_key" not in repr(caller)
    other = make_account("Other", records_end_users=False)
    theirs = load_caller(create_key(other, name="tests")[1])
    assert (theirs.end_user_key, theirs.records_end_users) == (b"", False)


# --- Names ------------------------------------------------------------------------------------------------------------


def named(account: Account, name: str, key: bytes = KEY) -> NamedEndUser:
    return NamedEndUser(account.pk, hash_end_user(name, key), name, key)


def test_names_are_written_once(acme: Account) -> None:
    write_names([named(acme, ALICE), named(acme, "bob")])
    write_names([named(acme, ALICE)])
    assert sorted(EndUser.objects.values_list("name", flat=True)) == [ALICE, "bob"]


def test_a_name_under_a_key_that_is_gone_is_not_written(acme: Account) -> None:
    other = make_account("Other")
    write_names([named(acme, ALICE, KEY[::-1]), named(acme, "bob"), named(other, "carol")])
    assert list(EndUser.objects.values_list("name", flat=True)) == ["bob"]


def test_an_account_keeps_so_many_names_and_no_more(settings: Settings, acme: Account) -> None:
    settings.LLM_END_USER_NAMES = 3
    other = make_account("Other")
    EndUserKey.objects.create(account=other, key=KEY)
    write_names([named(acme, "u1"), named(other, "u1")])
    for name in ("u2", "u3"):
        write_names([named(acme, name)])
    write_names([named(acme, "u2"), named(acme, "u4"), named(acme, "u5")])
    assert set(EndUser.objects.filter(account=acme).values_list("name", flat=True)) == {"u3", "u4", "u5"}
    assert EndUser.objects.filter(account=other).count() == 1
    # The name of one who calls again comes back.
    write_names([named(acme, "u1")])
    assert set(EndUser.objects.filter(account=acme).values_list("name", flat=True)) == {"u1", "u4", "u5"}


def test_a_bound_that_is_lowered_is_reached_piece_by_piece(
    settings: Settings, acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm.endusers._MAX_EVICTED", 4)
    write_names([named(acme, f"u{number}") for number in range(8)])
    settings.LLM_END_USER_NAMES = 2
    left = []
    for _ in range(3):
        write_names([named(acme, "u7")])
        left.append(EndUser.objects.count())
    assert left == [4, 2, 2]


@pytest.mark.django_db(transaction=True)
async def test_the_same_names_are_written_at_once() -> None:
    account = await to_thread(make_account)
    key = await to_thread(account_key, account.pk)
    names = [named(account, f"u{number}", key) for number in range(50)]
    await asyncio.gather(*(to_thread(write_names, batch) for batch in (names, names[::-1], names[10:], names[:40])))
    assert await to_thread(EndUser.objects.count) == 50


def test_an_end_user_is_found_by_name_and_by_hash(acme: Account) -> None:
    alice = hash_end_user(ALICE, KEY)
    assert find_hashes(ALICE, acme.pk) == {alice}
    assert find_hashes(alice.upper(), None) == {alice}
    assert find_hashes(alice, acme.pk) == {alice, hash_end_user(alice, KEY)}
    assert find_hashes(ALICE, None) == find_hashes(ALICE, make_account("Other").pk) == frozenset()
    for nobody in ("", "\x00", "a" * 257):
        assert find_hashes(nobody, acme.pk) == frozenset()


class Writing:
    """Stands for a lane of the runtime. failures: how often it fails first."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.goes_on = asyncio.Event()
        self._failures = failures

    async def run(self, write: Any) -> None:
        [batch] = write.args
        await self.goes_on.wait()
        if self._failures:
            self._failures -= 1
            raise BooksUnavailable("The database is away.")
        self.batches.append([each.name for each in batch])


def a_name(name: str, account_id: int = 1) -> NamedEndUser:
    return NamedEndUser(account_id, hash_end_user(name, KEY), name, KEY)


async def test_no_call_waits_for_a_name_and_each_is_written_once() -> None:
    writing = Writing()
    keeper = EndUserNames(writing.run)
    keeper.note(a_name("u1"))
    await asyncio.sleep(0)
    for name in ("u2", "u1", "u3", "u2"):
        keeper.note(a_name(name))
    writing.goes_on.set()
    await keeper.finish(within_s=5)
    keeper.note(a_name("u3"))
    await keeper.finish(within_s=5)
    assert writing.batches == [["u1"], ["u2", "u3"]]


async def test_a_name_that_could_not_be_written_is_tried_again_with_the_next_call() -> None:
    writing = Writing(failures=1)
    writing.goes_on.set()
    keeper = EndUserNames(writing.run)
    for _ in range(3):
        keeper.note(a_name("u1"))
        await keeper.finish(within_s=5)
    assert writing.batches == [["u1"]]


async def test_names_take_a_bounded_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_user_names, "MAX_WAITING", 5)
    monkeypatch.setattr(end_user_names, "MAX_REMEMBERED", 3)
    monkeypatch.setattr(end_user_names, "MAX_AT_A_TIME", 2)
    writing = Writing()
    keeper = EndUserNames(writing.run)
    for number in range(9):
        keeper.note(a_name(f"u{number}"))
    writing.goes_on.set()
    await keeper.finish(within_s=5)
    assert writing.batches == [["u0", "u1"], ["u2", "u3"], ["u4"]]
    # The oldest are no longer remembered, so they are written once more; what is there stays.
    for name in ("u4", "u0"):
        keeper.note(a_name(name))
    await keeper.finish(within_s=5)
    assert writing.batches[3:] == [["u0"]]
