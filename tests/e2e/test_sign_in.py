"""Passwords tried at a real server: its processes share what they count, without Redis."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.db import connection

from llm.signin import unlock
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

WORKERS = 1 if connection.vendor == "sqlite" else 2
PASSWORD = "a password of tests"
PATIENCE_S = 30


@pytest.fixture
def door(gateway_environment: dict[str, str], transactional_db: None) -> Iterator[Gateway]:
    """A server with as many web processes as its database allows, behind a proxy of this host."""
    # As the server hashes, whose hashers are not those of the tests.
    password = PBKDF2PasswordHasher().encode(PASSWORD, "salt", iterations=1000)
    User.objects.create(username="admin", password=password, is_staff=True, is_superuser=True)
    with Gateway({**gateway_environment, "TRUSTED_PROXIES": "127.0.0.1"}, workers=WORKERS) as gateway:
        yield gateway


def sign_in(door: Gateway, password: str, *, address: str, name: str = "admin") -> httpx2.Response:
    """On a connection of its own, so that any of the processes may get it; again where it is too busy to listen."""
    response = try_to_sign_in(door, password, address=address, name=name)
    deadline = time.monotonic() + PATIENCE_S
    while response.status_code == 503 and time.monotonic() < deadline:
        time.sleep(int(response.headers["retry-after"]))
        response = try_to_sign_in(door, password, address=address, name=name)
    return response


def try_to_sign_in(door: Gateway, password: str, *, address: str, name: str) -> httpx2.Response:
    with httpx2.Client(base_url=door.url, trust_env=False, timeout=60) as client:
        client.get("/admin/login/").raise_for_status()
        headers = {"x-csrftoken": client.cookies["csrftoken"], "x-forwarded-for": f"203.0.113.99, {address}"}
        return client.post("/admin/login/", data={"username": name, "password": password}, headers=headers)


def test_guesses_sent_at_once_to_all_processes_are_counted_together(door: Gateway) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: sign_in(door, f"guess {number}", address="192.0.2.1"), range(25)))

    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 20}
    assert all(1 <= int(answer.headers["retry-after"]) <= 900 for answer in answers if answer.status_code == 429)
    # Whichever process is asked.
    assert {sign_in(door, PASSWORD, address="192.0.2.1").status_code for _ in range(6)} == {429}
    assert sign_in(door, PASSWORD, address="192.0.2.2").status_code == 302

    unlock(address="192.0.2.1")
    assert sign_in(door, PASSWORD, address="192.0.2.1").status_code == 302
    counts = {
        line.partition('outcome="')[2].partition('"')[0]: float(line.rpartition(" ")[2])
        for line in httpx2.get(f"{door.url}/metrics", trust_env=False).text.splitlines()
        if line.startswith("llm_sign_ins_total")
    }
    assert counts == {"failed": 5.0, "refused": 26.0, "ok": 2.0}
    assert '"level":"error"' not in door.log()


def test_a_counter_outlives_the_process_that_counted(door: Gateway) -> None:
    assert [sign_in(door, "wrong", address="192.0.2.1").status_code for _ in range(5)] == [200] * 5

    before = {process.pid for process in door.workers()}
    for process in door.workers():
        process.kill()
    wait_for_others(door, before)

    assert sign_in(door, PASSWORD, address="192.0.2.1").status_code == 429


def wait_for_others(door: Gateway, before: set[int]) -> None:
    """Until the server has replaced its workers and answers again."""
    psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)], timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{door.url}/healthz", trust_env=False).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the server never came back")
