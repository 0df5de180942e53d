"""How often a password may be tried: one place for every sign-in, with counters shared by all processes.

An attempt is counted before the password is checked, so that concurrent guesses are no cheaper than sequential ones,
and uncounted if it was right. By address, and by account and address together, attempts are refused after too many. For
an account alone they only become slower: otherwise a stranger could lock its owner out.
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
from llm.trail.actor import Actor
from llm.trail.events import record_failed_sign_in, summarize_failed_sign_ins
from llmproject.clientaddress import client_address
from llmproject.holdback import hold_back
from llmproject.quietlogs import Seldom

WINDOW = timedelta(minutes=15)
MAX_OF_ADDRESS = 20
MAX_OF_ACCOUNT_AND_ADDRESS = 5
SLOWER_FROM = ((100, 4.0), (30, 2.0), (10, 1.0))
"""Attempts on one account, from any address, and the delay in seconds of each further one."""
MAX_SLOWED = 256
"""Attempts that a process delays at a time: for each, a response is held back."""
MAX_COUNTS = 10_000

_BUSY = timedelta(seconds=5)
_T = TypeVar("_T")
_log = structlog.get_logger("llm.signin")
_told = Seldom()


class SignInRefused(Exception):
    """Too many attempts; retry_at: when the next one will be considered."""

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
    """Django's own users and passwords. Only staff can sign in: there are no pages for others."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        """Raises SignInRefused. Without a request (a command, a test) attempts aren't counted."""
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
        """Django's own would bypass the counters."""
        return await sync_to_async(self.authenticate)(request, username, password, **kwargs)


def is_own_password(request: HttpRequest, user: User, password: str) -> bool:
    """For pages that ask signed-in users for their password again: a session may be stolen. Raises SignInRefused."""
    return bool(try_password(request, user.get_username(), lambda: user.check_password(password) or None))


def try_password(request: HttpRequest, username: str, check: Callable[[], _T | None]) -> _T | None:
    """Returns the result of `check`. Raises SignInRefused, before the cost of a hash, after too many failed attempts.

    A delayed attempt is checked as soon as any other, but its response comes later.
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
    else:
        record_failed_sign_in("", actor=_known(username, attempt.address))
    return found


def _known(username: str, address: str) -> Actor:
    """Only users that exist are named: a password may have been typed into the wrong field."""
    user = User.objects.filter(username=username).only("pk", "username").first()
    return Actor(address=address) if user is None else Actor(user.pk, user.get_username(), "admin", address)


def address_of(request: HttpRequest) -> str:
    meta = request.META
    return client_address(
        meta.get("REMOTE_ADDR") or "", meta.get("HTTP_X_FORWARDED_FOR") or "", settings.TRUSTED_PROXIES
    )


def unlock(*, address: str = "", user: str = "") -> int:
    """Delete the attempts from an address and those on an account; without either, all. Returns how many counts."""
    counts = SignInCount.objects.all()
    if address or user:
        of_address = Q(address=client_address(address, "", ())) if address else Q(pk__in=())
        of_user = Q(account=_digest(user)) if user else Q(pk__in=())
        counts = counts.filter(of_address | of_user)
    return counts.delete()[0]


def forget_sign_ins() -> None:
    """Forget this process's own state: which responses it holds back, and what it has logged."""
    _delays.forget()
    _told.forget()


def prune_sign_in_counts() -> int:
    """Delete counts of windows that are over; those of failed sign-ins move into the audit log."""
    summarize_failed_sign_ins()
    return SignInCount.objects.filter(window_ends_at__lte=timezone.now()).delete()[0]


def _begin(account: str, address: str) -> _Attempt:
    now = timezone.now()
    _refuse_if_full(account, address, now)
    with transaction.atomic():
        # One order everywhere, so that two attempts never deadlock.
        of_address = _locked("", address, now)
        of_account = _locked(account, "", now)
        of_both = _locked(account, address, now)
        # Once more, now that no other attempt can be counted.
        _refuse_if_full(account, address, now)
        ids = [of_address.pk, of_account.pk, of_both.pk]
        SignInCount.objects.filter(pk__in=ids).update(attempts=F("attempts") + 1)
    _tell_when_full(of_address, MAX_OF_ADDRESS)
    _tell_when_full(of_both, MAX_OF_ACCOUNT_AND_ADDRESS)
    return _Attempt(account, address, of_account.attempts)


def _refuse_if_full(account: str, address: str, now: datetime) -> None:
    """A single query, and nothing else once it refuses."""
    full = Q(account="", attempts__gte=MAX_OF_ADDRESS) | Q(account=account, attempts__gte=MAX_OF_ACCOUNT_AND_ADDRESS)
    counts = SignInCount.objects.filter(full, address=address, window_ends_at__gt=now)
    if until := max(counts.values_list("window_ends_at", flat=True), default=None):
        raise SignInRefused(until)


def _locked(account: str, address: str, now: datetime) -> SignInCount:
    """The count of the current window, locked until the transaction ends."""
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
    """However many addresses and names are made up: the counts that expire first are deleted first."""
    surplus = SignInCount.objects.count() - MAX_COUNTS
    if surplus > 0:
        # Skips those that another attempt has locked, instead of waiting for it.
        oldest = SignInCount.objects.select_for_update(skip_locked=True).order_by("window_ends_at", "pk")
        gone = list(oldest.filter(window_ends_at__lt=now + WINDOW).values_list("pk", flat=True)[: surplus + 100])
        SignInCount.objects.filter(pk__in=gone).delete()


def _tell_when_full(count: SignInCount, limit: int) -> None:
    if count.attempts + 1 != limit:
        return
    # One attacker may have addresses without end.
    if (left_out := _told.left_out(limit)) is not None:
        until = count.window_ends_at.isoformat()
        _log.warning("signin.blocked", address=count.address, until=until, left_out=left_out)


def _take_back(attempt: _Attempt) -> None:
    """The right password says nothing about other accounts tried from the same address."""
    with transaction.atomic():
        both = SignInCount.objects.filter(account__in=("", attempt.account), address__in=("", attempt.address))
        list(both.select_for_update().order_by("account", "address").values_list("pk", flat=True))
        both.filter(attempts__gt=0).update(attempts=F("attempts") - 1)
        both.filter(account=attempt.account, address=attempt.address).delete()


class _Delays:
    """How many responses are currently held back. Hanging up doesn't shorten a delay: it goes by time alone."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._lock = threading.Lock()

    def begin(self, seconds: float) -> bool:
        """False if there are too many."""
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
    """Before the response, and without occupying a place if the gate in front of pages can hold it back."""
    if hold_back(seconds):
        return
    if not connection.in_atomic_block:
        # No connection should be held while only waiting.
        connection.close()
    time.sleep(seconds)


def _digest(username: str) -> str:
    """The same for names that Django treats as equal or that people can't tell apart."""
    plain = unicodedata.normalize("NFKC", username).strip().casefold()
    return salted_hmac("llm.signin", plain, algorithm="sha256").hexdigest()
