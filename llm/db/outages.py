"""Why the database can't be used: a word for logs and a sentence for people.

Never the server's own text, which may contain users and addresses. The driver gives no SQLSTATE for a failed login to
PostgreSQL, only that text, so its known phrases are searched for; a server in another language is `unavailable`.
"""

from __future__ import annotations

from enum import StrEnum

from django.db import Error, InterfaceError, OperationalError


class Outage(StrEnum):
    """Stable: alerts and log searches use these words."""

    GONE = "gone"
    REFUSED = "refused"
    PASSWORD = "password"  # noqa: S105  # a word for the log
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TIMEOUT = "timeout"
    STARTING = "starting"
    UNREACHABLE = "unreachable"
    NO_DATABASE = "no_database"
    LOCKED = "locked"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    UNREADABLE = "unreadable"
    DAMAGED = "damaged"
    NOT_MIGRATED = "not_migrated"
    UNAVAILABLE = "unavailable"


# What a caller is told, and what operators are told in addition.
_WORDS: dict[Outage, tuple[str, str]] = {
    Outage.GONE: ("it ended the connection", "See its log, and run this again once it is back."),
    Outage.REFUSED: ("nothing accepts connections at its address", "Start it, or correct DATABASE_URL."),
    Outage.PASSWORD: ("it rejects the login", "Correct the user and the password in DATABASE_URL."),
    Outage.TOO_MANY_CONNECTIONS: (
        "it has too many connections",
        "Close some, or raise its max_connections or the role's CONNECTION LIMIT.",
    ),
    Outage.TIMEOUT: ("it did not answer in time", "Check whether it is overloaded or a lock is being held."),
    Outage.STARTING: ("it is starting or stopping", "Run this again shortly."),
    Outage.UNREACHABLE: ("its host can't be reached", "Correct DATABASE_URL, or check the network."),
    Outage.NO_DATABASE: ("the server has no database of that name", "Create it, or correct DATABASE_URL."),
    Outage.LOCKED: ("another process has locked what this needs", "Run this again shortly."),
    Outage.DISK_FULL: ("its disk is full", "Free some space."),
    Outage.READ_ONLY: (
        "it is read-only",
        "Check whether DATABASE_URL points to a standby, or to a file or folder that is write-protected.",
    ),
    Outage.UNREADABLE: (
        "its file can't be opened",
        "Correct DATABASE_URL, or the permissions of the file and its folder.",
    ),
    Outage.DAMAGED: ("the file is not a database, or it is damaged", "Correct DATABASE_URL, or restore a backup."),
    Outage.NOT_MIGRATED: ("a table is missing", "Run manage.py migrate."),
    Outage.UNAVAILABLE: ("it returned an unexpected error", "See its log."),
}

_BY_SQLSTATE = {
    "08": Outage.GONE,
    "25006": Outage.READ_ONLY,
    "28": Outage.PASSWORD,
    "40001": Outage.LOCKED,
    "40P01": Outage.LOCKED,
    "3D000": Outage.NO_DATABASE,
    "42P01": Outage.NOT_MIGRATED,
    "53100": Outage.DISK_FULL,
    "53300": Outage.TOO_MANY_CONNECTIONS,
    "55P03": Outage.LOCKED,
    "57014": Outage.TIMEOUT,
    "57P03": Outage.STARTING,
    "57P": Outage.GONE,
}
_BY_SQLITE_NAME = {
    "SQLITE_BUSY": Outage.LOCKED,
    "SQLITE_LOCKED": Outage.LOCKED,
    "SQLITE_CANTOPEN": Outage.UNREADABLE,
    "SQLITE_FULL": Outage.DISK_FULL,
    "SQLITE_READONLY": Outage.READ_ONLY,
    "SQLITE_CORRUPT": Outage.DAMAGED,
    "SQLITE_NOTADB": Outage.DAMAGED,
    "SQLITE_IOERR": Outage.UNAVAILABLE,
}
# In this order: a login that fails at several addresses contains several of these.
_BY_TEXT = (
    ("too many clients", Outage.TOO_MANY_CONNECTIONS),
    ("too many connections", Outage.TOO_MANY_CONNECTIONS),
    ("remaining connection slots are reserved", Outage.TOO_MANY_CONNECTIONS),
    ("password", Outage.PASSWORD),
    ("authentication failed", Outage.PASSWORD),
    ("no pg_hba.conf entry", Outage.PASSWORD),
    ('role "', Outage.PASSWORD),
    ("database system is", Outage.STARTING),
    ("does not exist", Outage.NO_DATABASE),
    ("not currently accepting connections", Outage.REFUSED),
    ("connection refused", Outage.REFUSED),
    ("timeout", Outage.TIMEOUT),
    ("timed out", Outage.TIMEOUT),
    ("resolve host", Outage.UNREACHABLE),
    ("translate host", Outage.UNREACHABLE),
    ("no route to host", Outage.UNREACHABLE),
    ("network is unreachable", Outage.UNREACHABLE),
    ("no such table", Outage.NOT_MIGRATED),
    ("closed", Outage.GONE),
    ("terminat", Outage.GONE),
    ("connection is lost", Outage.GONE),
    ("connection failed", Outage.UNAVAILABLE),
)


def outage_of(error: BaseException | None) -> Outage | None:
    """The kind of outage; None if the error has another cause."""
    if isinstance(error, TimeoutError):
        return Outage.TIMEOUT
    if not isinstance(error, Error):
        return None
    if state := sqlstate(error):
        return next((_BY_SQLSTATE[head] for head in (state, state[:3], state[:2]) if head in _BY_SQLSTATE), None)
    name = getattr(error.__cause__, "sqlite_errorname", "")
    if found := next((outage for known, outage in _BY_SQLITE_NAME.items() if name.startswith(known)), None):
        return found
    if not isinstance(error, OperationalError | InterfaceError):
        return None
    text = str(error).lower()
    return next((outage for opening, outage in _BY_TEXT if opening in text), None)


def reason_of(error: BaseException) -> str:
    """For the log: the class of an error that isn't recognised."""
    return outage_of(error) or type(error).__name__


def sentence_for_callers(outage: Outage) -> str:
    return f"The database can't be used at the moment: {_WORDS[outage][0]}. Try again shortly."


def sentence_for_operators(outage: Outage) -> str:
    """Includes what to do."""
    return f"The database can't be used: {'. '.join(_WORDS[outage])}"


def sqlstate(error: BaseException) -> str:
    """PostgreSQL's code of what happened; "" where there is none."""
    return getattr(error.__cause__, "sqlstate", None) or ""


def is_statement_timeout(error: BaseException) -> bool:
    return sqlstate(error) == "57014"
