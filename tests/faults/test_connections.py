"""A crowd of strangers, and a PostgreSQL that has 50 connections: calls are served, and no connection stays behind."""

from __future__ import annotations

import asyncio
import html
import os
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psycopg
import pytest
from django.db import connection

from llmproject import sessions
from tests.fakes import FakeUpstream
from tests.faults.cluster import Cluster, server_programs
from tests.faults.crowd import Request, ask, crowd, hang_up
from tests.faults.postgres import Database
from tests.gateway_process import Gateway
from tests.llmproject.commands import manage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.skipif(server_programs() is None, reason="there is no PostgreSQL server on this machine"),
    pytest.mark.skipif(
        connection.vendor == "sqlite", reason="they start a PostgreSQL of their own: once, with the suite on PostgreSQL"
    ),
    pytest.mark.xdist_group("connections"),
]

MAX_CONNECTIONS = 50
STRANGERS = 200
SECONDS = 10.0
ANONYMOUS_SECONDS = float(os.environ.get("FLOOD_SECONDS", SECONDS))
# The books' writer, two readers of calls and two of others, taken at the start and kept.
KEPT = 5
PAGES = 4

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Site:
    """A gateway with a database of its own on the server, a key of it, and a token of staff."""

    gateway: Gateway
    database: Database
    secret: str
    token: str
    started_at: float = field(default_factory=time.monotonic)

    def connections(self) -> Counter[str]:
        """Of the gateway, by what they call themselves."""
        with self.database.connect() as admin:
            rows = admin.execute(
                "SELECT application_name FROM pg_stat_activity WHERE datname = %s", [self.database.name]
            ).fetchall()
        return Counter(str(name) for (name,) in rows)

    def settle(self) -> Counter[str]:
        """The connections, without those that are about to go: a server process ends a little after its client."""
        deadline = time.monotonic() + 20
        while (found := self.connections()) != {"llm-gateway": KEPT} and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with Cluster(max_connections=MAX_CONNECTIONS) as cluster:
        database = Database(cluster.url, "llm_crowd")
        database.create()
        yield database


@pytest.fixture(scope="module")
def secret(database: Database, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("crowd")
    pepper = {"LLM_KEY_PEPPER": os.environ["LLM_KEY_PEPPER"], "DATABASE_URL": database.url}
    migrated = manage(folder, "migrate", "--verbosity", "0", **pepper)
    made = manage(folder, "create_api_key", "acme", **pepper)
    assert (migrated.returncode, made.returncode) == (0, 0), (migrated.stderr, made.stderr)
    return made.stdout.strip()


@pytest.fixture(scope="module")
def token(database: Database, secret: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of staff, once the database has its tables."""
    folder = tmp_path_factory.mktemp("staff")
    settings = {"LLM_KEY_PEPPER": os.environ["LLM_KEY_PEPPER"], "DATABASE_URL": database.url}
    password = {"DJANGO_SUPERUSER_PASSWORD": "a password of tests"}
    user = ("--username", "admin", "--email", "admin@localhost")
    made = manage(folder, "createsuperuser", "--noinput", *user, **settings, **password)
    token = manage(folder, "create_api_token", "admin", **settings)
    assert (made.returncode, token.returncode) == (0, 0), (made.stderr, token.stderr)
    return token.stdout.split()[-1]


@pytest.fixture(scope="module")
def site(
    database: Database,
    secret: str,
    token: str,
    gateway_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    environment = {
        **gateway_environment,
        "LLM_SPOOL_DIR": str(tmp_path_factory.mktemp("spool")),
        "DATABASE_URL": database.url,
        # So that the crowd may come from as many addresses as it likes.
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with Gateway(environment) as gateway:
        yield Site(gateway, database, secret, token)


def made_up_key(number: int) -> str:
    """Well-formed: whoever knows the form can make as many as they like."""
    body = f"{number:032d}"
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = BASE62[digit] + digits
    return f"llm_{body}{digits}"


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


def chat(secret: str) -> Request:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello there"}]}
    return Request("/v1/chat/completions", bearer(secret), "POST", orjson.dumps(body))


def sign_in(number: int) -> Request:
    """A guess at the administrator's password, from an address of its own."""
    headers = (
        ("content-type", "application/x-www-form-urlencoded"),
        ("cookie", f"csrftoken={'a' * 32}"),
        ("x-csrftoken", "a" * 32),
        ("x-forwarded-for", f"192.0.2.{number}"),
    )
    return Request("/admin/login/", headers, "POST", b"username=admin&password=wrong")


def sign_ins() -> list[Request]:
    return [sign_in(number) for number in range(250)]


def anonymous_requests() -> list[Request]:
    cookies = [(("cookie", f"sessionid={number:032d}"),) for number in range(5)]
    tokens = [(("authorization", f"Token {number:040d}"),) for number in range(5)]
    return [
        *(Request("/admin/login/", cookie) for cookie in cookies),
        *(Request("/admin/", cookie) for cookie in cookies),
        *(Request("/api/v1/calls/", token) for token in tokens),
        *(Request("/api/v1/calls/", (("x-api-key", made_up_key(number)),)) for number in range(5)),
        *(Request("/v1/models", bearer(made_up_key(number))) for number in range(5)),
        *(chat(made_up_key(number)) for number in range(5)),
        Request("/no/such/page", cookies[0]),
        Request("/static/admin/css/base.css"),
        Request("/static/nope.css"),
        Request("/metrics"),
        Request("/readyz"),
        Request("/v1/models"),
    ]


def keyed_requests(secret: str) -> list[Request]:
    """Of somebody who has a key, and no bounds."""
    paths = ("/v1/models", "/v1/models/gpt-4o", "/api/v1/calls/", "/api/v1/invoices/", "/api/v1/usage/")
    return [Request(path, bearer(secret)) for path in paths]


@asynccontextmanager
async def besieged(site: Site, requests: list[Request]) -> AsyncIterator[list[Counter[tuple[str, int]]]]:
    """The block runs while the crowd is at work; what that was told is in the list afterwards."""
    ends, told = asyncio.Event(), list[Counter[tuple[str, int]]]()
    siege = asyncio.create_task(crowd(site.gateway.url, requests, clients=STRANGERS, ends=ends))
    try:
        yield told
    finally:
        ends.set()
        told.append(await siege)


async def call_meanwhile(site: Site, *, seconds: float) -> tuple[Counter[int], Counter[int], Counter[int], int]:
    """Statuses of paid calls, of /readyz and of staff, and the most connections of pages that were seen."""
    calls, ready, staff, most = Counter[int](), Counter[int](), Counter[int](), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answers = await asyncio.gather(*(ask(site.gateway.url, chat(site.secret)) for _ in range(2)))
        calls.update(status for status, _ in answers)
        ready[(await ask(site.gateway.url, Request("/readyz")))[0]] += 1
        staff[(await ask(site.gateway.url, Request("/api/v1/calls/", bearer(site.token))))[0]] += 1
        most = max(most, (await asyncio.to_thread(site.connections))["llm-pages"])
    return calls, ready, staff, most


@pytest.mark.parametrize("kind", ["anonymous", "with a valid key", "at the door"])
async def test_no_crowd_takes_the_connections_that_calls_need_or_the_places_of_staff(
    site: Site, upstream: FakeUpstream, kind: str
) -> None:
    """At the door: they guess passwords, until each guess is slowed and refused."""
    requests = {
        "anonymous": [*anonymous_requests(), *sign_ins()[:5]],
        "with a valid key": keyed_requests(site.secret),
        "at the door": sign_ins(),
    }[kind]
    assert (await ask(site.gateway.url, chat(site.secret)))[0] == 200
    async with besieged(site, requests) as told:
        calls, ready, staff, most_of_pages = await call_meanwhile(
            site, seconds=ANONYMOUS_SECONDS if kind == "anonymous" else SECONDS
        )
    print(f"calls {calls}, ready {ready}, staff {staff}, pages' connections {most_of_pages}")
    print(f"crowd {sorted(told[0].items())}")
    assert set(calls) == {200}
    assert set(ready) == {200}
    assert set(staff) == {200}
    # A server process ends a little after its client has left.
    assert 0 < most_of_pages <= 3 * PAGES
    assert {status for _, status in told[0]} <= {200, 302, 401, 404, 429, 503}
    assert site.settle() == {"llm-gateway": KEPT}
    log = site.gateway.log()
    assert '"level":"error"' not in log
    # However many came: of each kind one line in ten seconds at most.
    lines = [line for line in map(orjson.loads, log.splitlines()) if line["level"] == "warning"]
    most = max(
        Counter((line["event"], line.get("of") or line.get("during"), line.get("reason")) for line in lines).values(),
        default=0,
    )
    assert most <= 1 + (time.monotonic() - site.started_at) / 10


def kinds() -> list[Request]:
    return [
        *anonymous_requests(),
        Request("/docs/"),
        Request("/static/admin/css/base.css"),
        Request("/api/v1/nothing/"),
        Request("/admin/login/", method="POST", body=b"{}"),
        Request("/", (("cookie", "sessionid=" + "0" * 32),)),
        Request("/admin/%00/", (("cookie", "sessionid=" + "0" * 32),)),
    ]


async def test_no_request_leaves_a_connection_behind(site: Site, upstream: FakeUpstream) -> None:
    assert site.settle() == {"llm-gateway": KEPT}
    for _ in range(4):
        answers = [await ask(site.gateway.url, request) for request in [*kinds(), *keyed_requests(site.secret)]]
        assert 0 not in {status for status, _ in answers}
    assert site.settle() == {"llm-gateway": KEPT}


async def test_the_schema_leaves_no_connection_behind(site: Site) -> None:
    assert [(await ask(site.gateway.url, Request("/api/v1/schema/")))[0] for _ in range(2)] == [200, 200]
    assert site.settle() == {"llm-gateway": KEPT}


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.01, 0.03])
async def test_who_hangs_up_leaves_no_connection_behind(site: Site, upstream: FakeUpstream, after_s: float) -> None:
    requests = [*anonymous_requests(), *keyed_requests(site.secret), chat(site.secret)]
    await asyncio.gather(*(hang_up(site.gateway.url, request, after_s=after_s) for request in requests))
    # Places are free again too: pages are served, once the server has noticed who left.
    assert await until_served(site.gateway.url, Request("/admin/login/")) == 200
    assert site.settle() == {"llm-gateway": KEPT}


async def test_calls_keep_their_connections_while_others_have_taken_all_that_are_free(
    site: Site, upstream: FakeUpstream
) -> None:
    """Somebody else on the server took the rest: a page says what is wrong, and calls go on."""
    assert site.settle() == {"llm-gateway": KEPT}
    others = taken(site.database)
    try:
        page = await ask(site.gateway.url, Request("/api/v1/calls/", bearer(made_up_key(1))))
        session = (("cookie", f"sessionid={sessions._new_key()}"),)
        login = await ask(site.gateway.url, Request("/admin/login/", session))
        calls = [(await ask(site.gateway.url, chat(site.secret)))[0] for _ in range(20)]
        ready = (await ask(site.gateway.url, Request("/readyz")))[0]
    finally:
        for other in others:
            other.close()
    assert (calls, ready) == ([200] * 20, 200)
    sentence = b"The database can't be used at the moment: it has too many connections. Try again shortly."
    for status, answer in (page, login):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (status, b"retry-after: 5" in head.lower(), b"Narrow" in body) == (503, True, False)
        assert sentence in html.unescape(body.decode()).encode()
    assert orjson.loads(page[1].partition(b"\r\n\r\n")[2]) == {"detail": sentence.decode()}
    told = [orjson.loads(line) for line in site.gateway.log().splitlines() if '"reason"' in line]
    reasons = {(line["event"], line["during"], line["reason"], line["level"]) for line in told}
    assert reasons == {
        ("database.unavailable", "api", "too_many_connections", "warning"),
        ("database.unavailable", "page", "too_many_connections", "warning"),
    }
    assert '"level":"error"' not in site.gateway.log()


def taken(database: Database) -> list[psycopg.Connection]:
    """All connections that the server has left."""
    found = []
    while True:
        try:
            found.append(database.connect())
        except psycopg.OperationalError:
            return found


async def test_the_role_of_pages_bounds_them_whatever_a_process_does(
    database: Database, secret: str, gateway_environment: dict[str, str], tmp_path: Path, upstream: FakeUpstream
) -> None:
    make_roles(database, limit=2)
    urls = {
        "DATABASE_URL": database.url.replace("postgres@", "llm_app@"),
        "DATABASE_PAGES_URL": database.url.replace("postgres@", "llm_pages@"),
    }
    page = Request("/api/v1/calls/", bearer(made_up_key(1)))
    environment = {**gateway_environment, **urls, "LLM_SPOOL_DIR": str(tmp_path), "LLM_DB_PAGES": "16"}
    with Gateway(environment) as gateway:
        await asyncio.gather(*(ask(gateway.url, page) for _ in range(40)))
        calls = [(await ask(gateway.url, chat(secret)))[0] for _ in range(3)]
        # None of the role's connections is free, and all others are.
        others = [psycopg.connect(urls["DATABASE_PAGES_URL"]) for _ in range(2)]
        refused, answer = await ask(gateway.url, page)
        calls += [(await ask(gateway.url, chat(secret)))[0] for _ in range(3)]
        for other in others:
            other.close()
        served = await until_served(gateway.url, page)
        log = gateway.log()
    assert calls == [200] * 6
    assert (refused, served) == (503, 401)
    assert b"it has too many connections" in answer
    assert reasons_in(log) == {"too_many_connections"}


def make_roles(database: Database, *, limit: int) -> None:
    """As docs/operations.md has them, but for who owns the tables."""
    with database.connect(database.name) as owner:
        owner.execute("CREATE ROLE llm_app LOGIN")
        owner.execute(f"CREATE ROLE llm_pages LOGIN CONNECTION LIMIT {limit} IN ROLE llm_app".encode())
        for kind in (b"TABLES", b"SEQUENCES"):
            owner.execute(b"GRANT ALL ON ALL " + kind + b" IN SCHEMA public TO llm_app")


def reasons_in(log: str) -> set[str]:
    return {line["reason"] for line in map(orjson.loads, log.splitlines()) if "reason" in line}


async def until_served(url: str, request: Request) -> int:
    """A server process ends a little after its client."""
    deadline = time.monotonic() + 20
    while (status := (await ask(url, request))[0]) == 503 and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return status
