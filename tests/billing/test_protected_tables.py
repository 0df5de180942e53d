"""Each table is protected by triggers, or stands here with the reason why it need not be.

Who adds a model decides: a row that a bill, or the proof of one, stands on is never changed unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from llm.db import triggers

pytestmark = pytest.mark.django_db

_PEOPLE = "who staff are; invoices' history names them, and those with a history can't be deleted"
_SESSIONS = "ends by itself; nothing is billed by it"
_CONFIGURATION = "changes by design; what was billed under it is frozen on the invoices"
_ROUTING = "changes by design; each call says where it went"
_ROLLUP = "made anew from the books at any time, and compared with them by verify_books"
_JOBS = "a job's state, which moves on; what it made is checked by itself"
_PASSING = "passes: nothing is billed by it"

UNPROTECTED: Mapping[str, str] = {
    "account_emailaddress": _PEOPLE,
    "account_emailconfirmation": _SESSIONS,
    "auth_group": _PEOPLE,
    "auth_group_permissions": _PEOPLE,
    "auth_permission": _PEOPLE,
    "auth_user": _PEOPLE,
    "auth_user_groups": _PEOPLE,
    "auth_user_user_permissions": _PEOPLE,
    "authtoken_token": _SESSIONS,
    "billing_accountday": _ROLLUP,
    "billing_billingprofile": _CONFIGURATION,
    "billing_costimport": "a provider's own report, imported again at will; compared, never billed",
    "billing_dailyusage": _ROLLUP,
    "billing_enduserday": _ROLLUP,
    "billing_exportjob": _JOBS,
    "billing_formerplan": _CONFIGURATION,
    "billing_keyday": _ROLLUP,
    "billing_keythird": _ROLLUP,
    "billing_modelday": _ROLLUP,
    "billing_booksjob": _JOBS,
    "billing_monthjob": _JOBS,
    "billing_plaintokengrace": _SESSIONS,
    "billing_plan": "a name; what it charges stands in its versions",
    "billing_providercost": "as billing_costimport",
    "billing_rollupmark": _ROLLUP,
    "billing_stafftoken": _SESSIONS,
    "billing_staleday": _ROLLUP,
    "django_admin_log": "what staff did in the admin, for people; steps of invoices have a history of their own",
    "django_content_type": _PASSING,
    "django_session": _SESSIONS,
    "llm_account": _CONFIGURATION,
    "llm_apikey": "revoked and renamed by design; calls point at it, so it can't be deleted",
    "llm_catalogversion": _PASSING,
    "llm_enduser": "names of people, to be forgotten on request; the calls hold hashes, which digests cover",
    "llm_enduserkey": "makes those hashes; without it none can be matched with a name, which forgetting is about",
    "llm_failedsignins": _PASSING,
    "llm_idempotencykey": _PASSING,
    "llm_keptreply": _PASSING,
    "llm_limit": _CONFIGURATION,
    "llm_limitwindow": "counts by design; verify_books counts it again from the calls",
    "llm_modelroute": _ROUTING,
    "llm_outbox": "messages, deleted 90 days after they were sent",
    "llm_process": _PASSING,
    "llm_reaperstate": _PASSING,
    "llm_refusedrequests": "counts of requests that were never calls, kept for a month",
    "llm_refusedwrite": "what the books refused: nothing is billed by it",
    "llm_reratingrun": "counts while it runs; its adjustments are the books",
    "llm_routetarget": _ROUTING,
    "llm_scheduledtask": _PASSING,
    "llm_secondfactorgroup": _CONFIGURATION,
    "llm_signincount": _PASSING,
    "mfa_authenticator": _PEOPLE,
    "socialaccount_socialaccount": _PEOPLE,
    "socialaccount_socialapp": _CONFIGURATION,
    "socialaccount_socialtoken": _SESSIONS,
    "llm_usedform": _PASSING,
}
PROTECTED = {
    *(
        "billing_archivedpdf",
        "billing_billedusage",
        "billing_exchangerate",
        "billing_invoice",
        "billing_invoiceevent",
        "billing_invoiceline",
    ),
    *(
        "billing_invoiceseries",
        "billing_oneoffline",
        "billing_payment",
        "billing_planrate",
        "billing_planversion",
        "llm_bookscheck",
        "llm_checkedday",
    ),
    "llm_auditentry",
    "llm_opencall",
    *("llm_price", "llm_rate", "llm_rateset", "llm_redaction", "llm_usage", "llm_usageadjustment"),
}


def tables() -> set[str]:
    models = apps.get_models(include_auto_created=True)
    return {model._meta.db_table for model in models if not model._meta.proxy}


def test_each_table_is_protected_or_has_a_reason() -> None:
    assert tables() == PROTECTED | UNPROTECTED.keys()
    assert PROTECTED & UNPROTECTED.keys() == set()


def names_of(table: str) -> list[str]:
    """Without those that write the audit log."""
    found = triggers._found(connection).items()
    return [name for name, found_on in found if found_on == table and "_audit_" not in name]


@pytest.mark.parametrize("table", sorted(PROTECTED))
def test_a_protected_table_has_triggers_against_each_way(table: str) -> None:
    """Also against `INSERT OR REPLACE` by another client of SQLite, and TRUNCATE."""
    names = " ".join(names_of(table))
    assert "_update_" in names
    assert "_delete_" in names
    assert ("_replace_insert_" if connection.vendor == "sqlite" else "_truncate_") in names


@pytest.mark.parametrize("table", sorted(UNPROTECTED))
def test_an_unprotected_table_has_none(table: str) -> None:
    assert names_of(table) == []


@pytest.mark.parametrize("table", sorted(PROTECTED))
def test_a_protected_table_is_never_truncated(table: str) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no TRUNCATE")
    with pytest.raises(DatabaseError, match="never removed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize("table", sorted(PROTECTED))
def test_a_trigger_that_is_gone_or_disabled_is_named(table: str) -> None:
    name = names_of(table)[0]
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name}" if is_sqlite else f"ALTER TABLE {table} DISABLE TRIGGER {name}")
    [problem] = triggers.problems_of_triggers()
    assert name in problem
    assert ("is missing" if is_sqlite else "is disabled") in problem
