"""How often a password may be tried: one place for every door, with counters that all processes share.

An attempt is counted before the password is looked at, so that guesses sent at once are no cheaper than one after
another, and taken back where it was right. By address, and by account and address together, attempts are refused once
there were too many. Of an account alone they only become slower: otherwise a stranger could lock its owner out.
"""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar

import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F, Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from llm import metrics
from llm.models import SignInCount
from llmproject.clientaddress import client_address
from llmproject.holdback import hold_back
from llmproject.quietlogs import Seldom

WINDOW = timedelta(minutes=15)
MAX_OF_ADDRESS = 20
MAX_OF_ACCOUNT_AND_ADDRESS = 5
SLOWER_FROM = ((100, 4.0), (30, 2.0), (10, 1.0))
"""Attempts on one account, from wherever, and by how many seconds each further one is delayed."""
MAX_SLOWED = 256
"""Attempts that a process delays at a time: each has an answer that waits."""
MAX_COUNTS = 10_000

_BUSY = timedelta(seconds=5)
_T = TypeVar("_T")
_log = structlog.get_logger("llm.signin")
_told = Seldom()


class SignInRefused(Exception):
    """Too many attempts; retry_at: when the next one will be looked at."""

    def __init__(self, retry_at: datetime) -> None:
        super().__init__(f"Too many sign-in attempts; try again from {retry_at.isoformat()}.")
        self.retry_at = retry_at


@dataclass(frozen=True, slots=True)
class _Attempt:
    """account: its digest. failed: attempts on that account within the window, before this one."""

    account: str
    address: str
    failed: int


class StaffBackend(ModelBackend):
    """Django's own users and passwords. Nobody signs in who isn't staff: there are no pages for others."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        """Raises SignInRefused. Without a request (a command, a test) nobody is counted."""
        if username is None or password is None:
            return None
        if request is None:
            return super().authenticate(request, username=username, password=password, **kwargs)

        def check() -> Any:
            user = super(StaffBackend, self).authenticate(request, username=username, password=password, **kwargs)
            return user if user is not None and getattr(user, "is_staff", False) else None

        return try_password(request, username, check)

    async def aauthenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        """Django's own would go past the counters."""
        return await sync_to_async(self.authenticate)(request, username, password, **kwargs)


def is_own_password(request: HttpRequest, user: User, password: str) -> bool:
    """For pages that ask signed-in people for their password again: a session may be stolen. Raises SignInRefused."""
    return bool(try_password(request, user.get_username(), lambda: user.check_password(password) or None))


def try_password(request: HttpRequest, username: str, check: Callable[[], _T | None]) -> _T | None:
    """What `check` finds. Raises SignInRefused, before it costs a hash, after too many attempts that found nothing.

    A slowed one is looked at as soon as any other, but its answer comes later.
    """
    try:
        attempt = _begin(_digest(username), address_of(request))
        _slow_down(attempt.failed)
    except SignInRefused:
        metrics.count_sign_in("refused")
        raise
    found = check()
    metrics.count_sign_in("failed" if found is None else "ok")
    if found is not None:
        _take_back(attempt)
    return found


def address_of(request: HttpRequest) -> str:
    meta = request.META
    return client_address(
        meta.get("REMOTE_ADDR") or "", meta.get("HTTP_X_FORWARDED_FOR") or "", settings.TRUSTED_PROXIES
    )


def unlock(*, address: str = "", user: str = "") -> int:
    """Forget the attempts from an address and those on an account; without either, all. How many counts those were."""
    counts = SignInCount.objects.all()
    if address or user:
        of_address = Q(address=client_address(address, "", ())) if address else Q(pk__in=())
        of_user = Q(account=_digest(user)) if user else Q(pk__in=())
        counts = counts.filter(of_address | of_user)
    return counts.delete()[0]


def forget_sign_ins() -> None:
    """What this process remembers of its own: which answers it holds back, and what it has told."""
    _delays.forget()
    _told.forget()


def prune_sign_in_counts() -> int:
    """Counts of windows that are over."""
    return SignInCount.objects.filter(window_ends_at__lte=timezone.now()).delete()[0]


def _begin(account: str, address: str) -> _Attempt:
    now = timezone.now()
    _refuse_if_full(account, address, now)
    with transaction.atomic():
        # One order for everybody, so that two attempts never wait for each other.
        of_address = _locked("", address, now)
        of_account = _locked(account, "", now)
        of_both = _locked(account, address, now)
        # Once more, now that nobody else can count on.
        _refuse_if_full(account, address, now)
        ids = [of_address.pk, of_account.pk, of_both.pk]
        SignInCount.objects.filter(pk__in=ids).update(attempts=F("attempts") + 1)
    _tell_when_full(of_address, MAX_OF_ADDRESS)
    _tell_when_full(of_both, MAX_OF_ACCOUNT_AND_ADDRESS)
    return _Attempt(account, address, of_account.attempts)


def _refuse_if_full(account: str, address: str, now: datetime) -> None:
    """One query, and none of the others once it refuses."""
    full = Q(account="", attempts__gte=MAX_OF_ADDRESS) | Q(account=account, attempts__gte=MAX_OF_ACCOUNT_AND_ADDRESS)
    counts = SignInCount.objects.filter(full, address=address, window_ends_at__gt=now)
    if until := max(counts.values_list("window_ends_at", flat=True), default=None):
        raise SignInRefused(until)


def _locked(account: str, address: str, now: datetime) -> SignInCount:
    """The count of the current window, for the length of this transaction."""
    counts = SignInCount.objects.select_for_update()
    count, is_new = counts.get_or_create(
        account=account, address=address, defaults={"attempts": 0, "window_ends_at": now + WINDOW}
    )
    if is_new:
        _make_room(now)
    elif count.window_ends_at <= now:
        count.attempts, count.window_ends_at = 0, now + WINDOW
        count.save(update_fields=["attempts", "window_ends_at"])
    return count


def _make_room(now: datetime) -> None:
    """However many addresses and names somebody makes up: what ends first goes first."""
    surplus = SignInCount.objects.count() - MAX_COUNTS
    if surplus > 0:
        # Without those that another attempt holds: it would be waited for.
        oldest = SignInCount.objects.select_for_update(skip_locked=True).order_by("window_ends_at", "pk")
        gone = list(oldest.filter(window_ends_at__lt=now + WINDOW).values_list("pk", flat=True)[: surplus + 100])
        SignInCount.objects.filter(pk__in=gone).delete()


def _tell_when_full(count: SignInCount, limit: int) -> None:
    if count.attempts + 1 != limit:
        return
    # Somebody may have addresses without end.
    if (left_out := _told.left_out(limit)) is not None:
        until = count.window_ends_at.isoformat()
        _log.warning("signin.blocked", address=count.address, until=until, left_out=left_out)


def _take_back(attempt: _Attempt) -> None:
    """The right password says nothing about other accounts that the same address has tried."""
    with transaction.atomic():
        both = SignInCount.objects.filter(account__in=("", attempt.account), address__in=("", attempt.address))
        list(both.select_for_update().order_by("account", "address").values_list("pk", flat=True))
        both.filter(attempts__gt=0).update(attempts=F("attempts") - 1)
        both.filter(account=attempt.account, address=attempt.address).delete()


class _Delays:
    """How many answers are held back at the moment. Who hangs up shortens none: it goes by time alone."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._lock = threading.Lock()

    def begin(self, seconds: float) -> bool:
        """False where there are too many."""
        now = monotonic()
        with self._lock:
            self._ends = [end for end in self._ends if end > now]
            if len(self._ends) >= MAX_SLOWED:
                return False
            self._ends.append(now + seconds)
            return True

    def forget(self) -> None:
        with self._lock:
            self._ends.clear()


_delays = _Delays()


def _slow_down(failed: int) -> None:
    seconds = next((seconds for number, seconds in SLOWER_FROM if failed >= number), 0.0)
    if not seconds:
        return
    if not _delays.begin(seconds):
        raise SignInRefused(timezone.now() + _BUSY)
    metrics.count_sign_in("slowed")
    pause(seconds)


def pause(seconds: float) -> None:
    """Before the answer, and out of the way of everybody else where the gate before pages can do it."""
    if hold_back(seconds):
        return
    if not connection.in_atomic_block:
        # Nobody should wait for a connection that only waits itself.
        connection.close()
    time.sleep(seconds)


def _digest(username: str) -> str:
    """The same for names that Django would take for one or that people can't tell apart."""
    plain = unicodedata.normalize("NFKC", username).strip().casefold()
    return salted_hmac("llm.signin", plain, algorithm="sha256").hexdigest()
