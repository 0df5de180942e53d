"""The gateway as the roles of `deploy/postgresql-roles.sql`, on a server of its own, whose roles they are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psycopg
import pytest
from django.conf import settings
from django.db import connection

from tests.fakes import FakeUpstream
from tests.faults.cluster import Cluster, server_programs
from tests.gateway_process import Gateway
from tests.llmproject.commands import PEPPER, SECRET_KEY, manage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.xdist_group("roles"),
    pytest.mark.skipif(server_programs() is None, reason="there is no PostgreSQL server to start"),
    pytest.mark.skipif(
        connection.vendor == "sqlite", reason="they start a PostgreSQL of their own: once, with the suite on PostgreSQL"
    ),
]

ROLES = settings.BASE_DIR / "deploy" / "postgresql-roles.sql"
DATABASE = "llm"
PAGES_CONNECTIONS = 20
PROVIDER = {"LLM_PROVIDER": "openai", "OPENAI_API_KEY": "sk-test-our-own-upstream-key-0123456789"}


@dataclass(frozen=True)
class Site:
    """A migrated database, in which calls were made as `llm_app`, and October was closed."""

    cluster: Cluster
    folder: Path
    statuses: list[int]
    database: str = DATABASE

    def url(self, role: str) -> str:
        return f"postgres://{role}@127.0.0.1:{self.cluster.port}/{self.database}"

    def connect(self, role: str) -> psycopg.Connection:
        return psycopg.connect(self.url(role), autocommit=True)

    def manage(self, *arguments: str, role: str = "llm_app", **environment: str) -> subprocess.CompletedProcess[str]:
        return manage(self.folder, *arguments, DATABASE_URL=self.url(role), **PROVIDER, **environment)

    def run(self, *arguments: str) -> str:
        done = self.manage(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def apply_roles(self) -> None:
        with self.connect("postgres") as database:
            database.execute(ROLES.read_bytes())


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, gateway_environment: dict[str, str], _session_upstream: FakeUpstream
) -> Iterator[Site]:
    with Cluster() as cluster:
        site = Site(cluster, tmp_path_factory.mktemp("roles"), [])
        _set_up(site)
        _work(site, gateway_environment)
        yield site


@pytest.fixture(scope="module")
def books(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A database of its own on the same server, in which nothing has happened yet."""
    books = Site(site.cluster, tmp_path_factory.mktemp("books"), [], database="books")
    _set_up(books)
    return books


def _set_up(site: Site) -> None:
    """As docs/operations.md, "Roles", says it."""
    with psycopg.connect(f"{site.cluster.url}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {site.database}".encode())
    site.apply_roles()
    migrated = site.manage("migrate", DATABASE_OWNER_URL=site.url("llm_owner"))
    assert migrated.returncode == 0, migrated.stderr
    site.apply_roles()


def _work(site: Site, environment: dict[str, str]) -> None:
    """What a gateway and its people do, all of it as the application."""
    site.run("set_price", "openai", "gpt-4o", "--input", "2.5", "--output", "10")
    secret = site.run("create_api_key", "acme").split()[-1]
    site.run("set_limit", "acme", "tokens", "month", "1,000,000")
    server = {**environment, "DATABASE_URL": site.url("llm_app"), "VAR_DIR": str(site.folder)}
    with Gateway({**server, "SECRET_KEY": SECRET_KEY, "LLM_KEY_PEPPER": PEPPER}) as gateway:
        for is_stream in (False, True):
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], "stream": is_stream}
            headers = {"authorization": f"Bearer {secret}"}
            answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
            site.statuses.append(answer.status_code)


def test_the_product_runs_as_the_application(site: Site) -> None:
    assert site.statuses == [200, 200]
    site.run("rebuild_rollups", "--from", "2026-01-01", "--to", "2026-01-31")
    assert site.run("verify_books").endswith("2 calls and 1 window of limits: no problems found.\n")
    with site.connect("llm_app") as database:
        month = database.execute("SELECT to_char(max(local_day), 'YYYY-MM') FROM llm_usage").fetchone()
        assert month is not None
    site.run("close_month", month[0])
    site.run("verify_books", "--month", month[0])
    site.run("reap", "--now")


NEEDS_OWNER = (
    "CommandError: There are values to blank, but only the owner of the tables may do that; nothing was changed. "
    "Set DATABASE_OWNER_URL for this command."
)
SELLER = {f"BILLING_SELLER_{name}": "Example" for name in ("NAME", "ADDRESS", "TAX_ID")}


def test_a_month_is_billed_credited_and_checked_as_the_application(books: Site) -> None:
    """Every step that people and tasks take with it, none of which needs the owner."""
    done = books.manage("shell", "-v", "0", "-c", "from tests.faults.month_of_books import run; run()", **SELLER)
    assert done.returncode == 0, done.stdout + done.stderr
    # The lost call was decided to be a third of September's 1.5M tokens at 100 USD, which cost 60 in the end.
    assert done.stdout.splitlines()[-1].split() == [
        "llm_app",
        *("regular:paid:150", "goodwill:issued:-10", "correction:issued:-140", "regular:issued:140"),
        *("regular:void:1", "regular:issued:1", "reduction:issued:-50"),
    ]


def test_upstream_keys_are_blanked_as_the_owner(books: Site) -> None:
    """Only it can lift a trigger; without it nothing is changed, and one sentence says what is missing."""
    key = PROVIDER["OPENAI_API_KEY"]
    make = "from tests.faults.month_of_books import make_leak; make_leak"
    made = books.manage("shell", "-v", "0", "-c", f"{make}({key!r})")
    assert made.returncode == 0, made.stderr
    refused = books.manage("blank_upstream_keys")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, NEEDS_OWNER)

    blanked = books.manage("blank_upstream_keys", DATABASE_OWNER_URL=books.url("llm_owner"))

    assert (blanked.returncode, blanked.stdout) == (0, "Blanked 1 value.\n"), blanked.stderr
    with books.connect("llm_app") as database:
        told = database.execute("SELECT error_code FROM llm_usage JOIN llm_redaction ON usage_id = llm_usage.id")
        assert told.fetchall() == [("",)]
    assert "no problems found" in books.run("verify_books")


def test_fixtures_are_loaded_as_the_owner(books: Site) -> None:
    """Who loads rows also sets the sequences of their ids."""
    file = books.folder / "accounts.json"
    file.write_text('[{"model": "auth.group", "pk": 900, "fields": {"name": "Guests"}}]')
    assert "permission denied for sequence" in books.manage("loaddata", str(file)).stderr
    loaded = books.manage("loaddata", str(file), DATABASE_OWNER_URL=books.url("llm_owner"))
    assert (loaded.returncode, loaded.stdout) == (0, "Installed 1 object(s) from 1 fixture(s)\n"), loaded.stderr


def test_only_the_owner_migrates(site: Site) -> None:
    assert site.manage("migrate", "llm", "zero").returncode != 0
    assert site.manage("migrate", DATABASE_OWNER_URL=site.url("llm_owner")).returncode == 0


def test_the_owner_is_of_the_same_database(site: Site) -> None:
    wrong = site.manage("check", DATABASE_OWNER_URL=f"{site.url('llm_owner')}_other")
    assert "DATABASE_OWNER_URL must name the database of DATABASE_URL" in wrong.stderr


REFUSED_TO_WRITERS = [
    "TRUNCATE llm_usage CASCADE",
    "TRUNCATE billing_invoice CASCADE",
    "TRUNCATE llm_limitwindow",
    "ALTER TABLE llm_usage DISABLE TRIGGER USER",
    "ALTER TABLE llm_usage DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "CREATE OR REPLACE FUNCTION llm_refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "DROP FUNCTION llm_refuse_change CASCADE",
    "DROP TABLE llm_usage CASCADE",
    "CREATE TABLE another (id int)",
    "CREATE RULE nothing AS ON DELETE TO llm_usage DO INSTEAD NOTHING",
    "SET ROLE llm_owner",
    "DELETE FROM llm_usage",
    "UPDATE llm_usage SET prompt_tokens = 1",
    "SELECT 1 FROM llm_usage FOR UPDATE",
    "UPDATE llm_opencall SET holds = NULL",
    "TRUNCATE llm_opencall",
    "UPDATE llm_usageadjustment SET reason = 'x'",
    "DELETE FROM llm_rate",
    "UPDATE llm_price SET is_free = true",
    "DELETE FROM billing_invoiceevent",
    "UPDATE billing_exchangerate SET per_usd = 1",
    "DELETE FROM llm_bookscheck",
    "DELETE FROM llm_checkedday",
    "UPDATE llm_redaction SET field = 'x'",
    "TRUNCATE llm_redaction",
    "DELETE FROM django_migrations",
]


@pytest.mark.parametrize("role", ["llm_app", "llm_pages"])
@pytest.mark.parametrize("sql", REFUSED_TO_WRITERS)
def test_what_the_application_may_not(site: Site, role: str, sql: str) -> None:
    with site.connect(role) as database, pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.IntegrityError)):
        database.execute(sql.encode())
    with site.connect("postgres") as database:
        assert database.execute("SELECT count(*) FROM llm_usage").fetchone() == (2,)


def test_a_privilege_holds_where_a_trigger_is_gone(site: Site) -> None:
    """Of rows that are only ever added."""
    with site.connect("llm_app") as database:
        found = database.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
            "AND NOT has_table_privilege(oid, 'UPDATE') AND NOT has_table_privilege(oid, 'DELETE') ORDER BY 1"
        ).fetchall()
    assert {name for (name,) in found} == {
        *("billing_archivedpdf", "billing_exchangerate", "billing_invoiceevent", "billing_payment"),
        *("django_migrations", "llm_auditentry", "llm_bookscheck", "llm_checkedday", "llm_price", "llm_rate"),
        *("llm_rateset", "llm_redaction", "llm_usage", "llm_usageadjustment"),
    }


def test_pages_have_a_bound_on_their_connections(site: Site) -> None:
    held = [site.connect("llm_pages") for _ in range(PAGES_CONNECTIONS)]
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            site.connect("llm_pages")
        with site.connect("llm_app") as database:
            assert database.execute("SELECT 1").fetchone() == (1,)
    finally:
        for connection in held:
            connection.close()


def test_the_reader_reads_the_books_alone(site: Site) -> None:
    with site.connect("llm_reader") as database:
        assert database.execute("SELECT count(*) FROM llm_usage").fetchone() == (2,)
        assert database.execute("SELECT name FROM llm_account ORDER BY name").fetchone() == ("acme",)
        for sql in (
            "SELECT webhook_secret FROM llm_account",
            "SELECT digest FROM llm_apikey",
            "SELECT password FROM auth_user",
            "SELECT * FROM authtoken_token",
            "SELECT * FROM django_session",
            "SELECT payload FROM llm_outbox",
            "SELECT digest FROM billing_stafftoken",
            "SELECT name FROM billing_stafftoken",
            "SELECT * FROM billing_plaintokengrace",
            "SELECT * FROM llm_signincount",
            "SELECT name FROM llm_enduser",
            "SELECT key FROM llm_enduserkey",
            "SELECT token FROM llm_usedform",
            "SELECT key_hash FROM llm_idempotencykey",
            "SELECT sealed FROM llm_keptreply",
            "SELECT document FROM llm_refusedwrite",
            "SELECT email FROM account_emailaddress",
            "INSERT INTO llm_catalogversion VALUES (1, 1)",
            "UPDATE llm_limitwindow SET used = 0",
            "TRUNCATE llm_limitwindow",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.execute(sql.encode())


READABLE = {
    *("billing_accountday", "billing_archivedpdf", "billing_billedusage", "billing_billingprofile", "billing_booksjob"),
    *("billing_costimport", "billing_dailyusage", "billing_exchangerate", "billing_exportjob", "billing_formerplan"),
    *("billing_invoice", "billing_invoiceevent", "billing_invoiceline", "billing_invoiceseries", "billing_keyday"),
    *("billing_keythird", "billing_modelday", "billing_monthjob", "billing_oneoffline", "billing_payment"),
    *("billing_plan", "billing_planrate", "billing_planversion", "billing_providercost", "billing_rollupmark"),
    *("billing_staleday", "llm_account", "llm_apikey", "llm_bookscheck", "llm_catalogversion", "llm_checkedday"),
    *(
        "llm_limit",
        "llm_limitwindow",
        "llm_modelroute",
        "llm_opencall",
        "llm_price",
        "llm_process",
        "llm_rate",
        "llm_rateset",
    ),
    *("llm_reaperstate", "llm_redaction", "llm_refusedrequests", "llm_reratingrun", "llm_routetarget"),
    *("llm_scheduledtask", "llm_usage", "llm_usageadjustment"),
}


def test_a_new_table_is_read_by_the_reader_only_on_purpose(site: Site) -> None:
    """Whoever adds one says here that it holds no secret, or hides it in the file of roles."""
    with site.connect("llm_reader") as database:
        found = database.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
            "AND has_any_column_privilege(oid, 'SELECT')"
        ).fetchall()
    assert {name for (name,) in found} == READABLE


def test_a_database_of_one_role_is_handed_over(site: Site) -> None:
    """Who made everything before there were roles owns nothing afterwards."""
    with psycopg.connect(f"{site.cluster.url}/postgres", autocommit=True) as server:
        server.execute("CREATE ROLE llm LOGIN")
        server.execute("CREATE DATABASE single OWNER llm")
    single = f"postgres://llm@127.0.0.1:{site.cluster.port}/single"
    migrated = manage(site.folder, "migrate", DATABASE_URL=single, LLM_PROVIDER="echo")
    assert migrated.returncode == 0, migrated.stderr

    with psycopg.connect(f"{site.cluster.url}/single", autocommit=True) as database:
        for _ in range(2):
            database.execute(ROLES.read_bytes())
        owned = database.execute(
            "SELECT relname::text FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relowner = 'llm'::regrole"
        ).fetchall()
    assert owned == []
    app = single.replace("llm@", "llm_app@", 1)
    checked = manage(site.folder, "verify_books", DATABASE_URL=app, LLM_PROVIDER="echo")
    assert checked.returncode == 0, checked.stdout + checked.stderr
