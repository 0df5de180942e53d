"""Typed reads from the environment that never raise.

A wrong value must not end in a traceback: each read falls back to its default and adds a sentence to `problems`, which
the system checks report and every start refuses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
from django.core.exceptions import ImproperlyConfigured

from llmproject.clientaddress import Network
from llmproject.names import begins_like, is_misspelled, nearest

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off"})
ENV_LINE = re.compile(r"\A(?:export )?(?P<name>[A-Za-z_0-9]+)=")
# django-environ takes this "#" for a comment even inside quotes, and then keeps the quotes in the value.
HASH_AND_QUOTES = re.compile(r"\A[^=#]+=\s*\"[^#]*#")
DATABASE_ENGINES = ("django.db.backends.sqlite3", "django.db.backends.postgresql")
MAIL_PORTS = {"smtps": 587, "smtp+tls": 587, "smtp+ssl": 465}
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")
_AMOUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class EnvReader:
    """Reads settings by name; an empty value counts as unset.

    It remembers every requested name, and so can report unread ones: read each setting, whatever the others say.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.known: set[str] = set()
        self.by_name: list[str] = []
        self._in_files: dict[str, str] = {}

    def load_file(self, path: Path) -> None:
        """Adds the file's lines to the environment, which takes precedence; a missing file is fine."""
        if not path.is_file():
            return
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{path} can't be read ({type(error).__name__}); make it a readable UTF-8 file.")
            return
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#") and not ENV_LINE.match(line):
                self.problems.append(
                    f"{path.name}, line {number}, is not NAME=value; write it without spaces around =."
                )
            elif HASH_AND_QUOTES.match(line):
                self.problems.append(f"{path.name}, line {number}, has # after a double quote; use single quotes.")
            if match := ENV_LINE.match(line):
                self._in_files[match["name"]] = path.name
        # django-environ logs lines that it doesn't understand, secrets included.
        logging.getLogger("environ").setLevel(logging.ERROR)
        environ.Env.read_env(path, parse_comments=True)

    def declare(self, *names: str) -> None:
        """These are read elsewhere, so they aren't misspelled."""
        self.known.update(names)

    def check_names(self) -> None:
        """Call it last: reports names that look like settings but were never read.

        All names in a file are ours. The environment is shared: Kubernetes and other tools set names with our prefixes,
        so there only a near miss of one of ours is a problem.
        """
        strange = [name for name in self._in_files if name not in self.known]
        for name in strange:
            if begins_like(name, self.known) or is_misspelled(name, self.known):
                self.problems.append(self._unknown(name, self._in_files[name]))
        others = [name for name in environ.Env.ENVIRON if name not in self.known and name not in self._in_files]
        misspelled = [name for name in others if is_misspelled(name, self.known)]
        self.problems += [self._unknown(name, "the environment") for name in misspelled]
        unread = sorted(name for name in {*others} - {*misspelled} if begins_like(name, self.known))
        if unread:
            self.warnings.append(f"Unused environment variables: {', '.join(unread)}.")

    def _unknown(self, name: str, place: str) -> str:
        return (
            f"Unknown setting {name} in {place}; did you mean {nearest(name, self.known)}? "
            "A name of your own must be listed in LLM_EXTRA_SETTINGS."
        )

    def text(self, name: str, default: str = "") -> str:
        self.known.add(name)
        # Not Env.str(): it takes a value that begins with "$" for the name of another variable.
        value: str = environ.Env.ENVIRON.get(name, "").strip()
        return value or default

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name).lower()
        if value and value not in TRUE_WORDS | FALSE_WORDS:
            self._refuse(name, "true or false")
            return default
        return value in TRUE_WORDS if value else default

    def whole(self, name: str, default: int, *, minimum: int = 0, maximum: int | None = None) -> int:
        value = self.text(name)
        allowed = f"a whole number of at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        try:
            number = int(value) if value else default
        except ValueError:
            self._refuse(name, allowed)
            return default
        if number < minimum or (maximum is not None and number > maximum):
            self._refuse(name, allowed)
            return default
        return number

    def whole_numbers(self, name: str, *, maximum: int) -> list[int]:
        """From 0 on, separated by commas; none where it isn't set."""
        values = self.names(name)
        if not all(
            value.isascii() and value.isdigit() and len(value) < 10 and int(value) <= maximum for value in values
        ):
            self._refuse(name, f"whole numbers from 0 to {maximum}, separated by commas")
            return []
        return [int(value) for value in values]

    def seconds(self, name: str, default: float) -> float:
        value = self.text(name)
        try:
            number = float(value) if value else default
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number <= 0:
            self._refuse(name, "a number of seconds above 0")
            return default
        return number

    def choice(self, name: str, options: Iterable[str], *, default: str) -> str:
        options = tuple(options)
        value = self.text(name, default)
        if value not in options:
            self._refuse(name, " or ".join(option for option in options if option))
            return default
        return value

    def choices(self, name: str, options: Iterable[str], *, default: str) -> list[str]:
        """Some of the options, separated by commas."""
        options = tuple(options)
        values = [value.lower() for value in self.names(name, default)]
        if not {*values} <= {*options}:
            self._refuse(name, f"a list of {', '.join(options)}, separated by commas")
            return default.split(",") if default else []
        return values

    def choice_by_name(self, name: str, options: Iterable[str], *, default: str) -> dict[str, str]:
        """`drain,openai=cancel` as {"": "drain", "openai": "cancel"}: one for all providers, and others for some.

        The reader doesn't know which providers exist: a system check validates each setting in `by_name`.
        """
        self.by_name.append(name)
        options = tuple(options)
        chosen = {"": default}
        named: set[str] = set()
        for part in self.names(name):
            key, equals, option = (piece.strip() for piece in part.rpartition("="))
            is_second = key in named
            named.add(key)
            if option not in options or bool(key) != bool(equals) or is_second:
                self._refuse(name, f"{' or '.join(options)}, or such a list: {options[0]},name={options[-1]}")
                return {"": default}
            chosen[key] = option
        return chosen

    def amount_by_pattern(self, name: str) -> dict[str, int]:
        """`llama3*=8192,gpt-4o=16384` as a dict, with the patterns in lower case and in their order."""
        amounts: dict[str, int] = {}
        for part in self.names(name):
            pattern, _, amount = (piece.strip() for piece in part.rpartition("="))
            if not pattern or pattern.lower() in amounts or not _AMOUNT.fullmatch(amount):
                self._refuse(
                    name, "a list of names or patterns with a number above 0, such as llama3*=8192,gpt-4o=16384"
                )
                return {}
            amounts[pattern.lower()] = int(amount)
        return amounts

    def time_zone(self, name: str, default: str) -> str:
        value = self.text(name, default)
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self._refuse(name, "a time zone of the IANA database, such as Europe/Lisbon")
            return default
        return value

    def names(self, name: str, default: str = "") -> list[str]:
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def api_key(self, name: str) -> str:
        """A key that is sent in a header."""
        return next(iter(self._sendable(name, [self.text(name)])), "")

    def api_keys(self, name: str) -> list[str]:
        """Several, separated by commas."""
        return self._sendable(name, self.names(name))

    def _sendable(self, name: str, keys: list[str]) -> list[str]:
        """Anything else would fail each call, after it has been recorded."""
        if all(key.isascii() and key.isprintable() for key in keys):
            return keys
        self._refuse(name, "of visible ASCII characters, as keys are sent in a header", shown=False)
        return []

    def networks(self, name: str) -> list[Network]:
        """Addresses and networks: 10.0.0.1, 10.0.0.0/8."""
        try:
            return [ipaddress.ip_network(part) for part in self.names(name)]
        except ValueError:
            self._refuse(name, "a list of addresses and networks, such as 127.0.0.1,10.0.0.0/8")
            return []

    def origins(self, name: str) -> list[str]:
        """Web origins as browsers send them, in lower case: https://app.example.com; or `*` for all."""
        origins = [origin.lower() for origin in self.names(name)]
        if not all(origin == "*" or _ORIGIN.fullmatch(origin) for origin in origins):
            self._refuse(name, "a list of origins without a path, such as https://app.example.com, or *")
            return []
        return origins

    def url(self, name: str, default: str = "", *, schemes: Iterable[str] = ("http", "https")) -> str:
        """The URL without a trailing slash."""
        value = self.text(name, default)
        schemes = tuple(schemes)
        if value and not is_url(value, schemes):
            example = " or ".join(f"{scheme}://host:port/path" for scheme in schemes)
            self._refuse(name, f"a URL like {example}", shown=False)
            return default
        return value.rstrip("/")

    def database(self, name: str) -> dict[str, Any]:
        """Django's settings of the database, empty if none is named; SQLite and PostgreSQL are supported."""
        value = self.text(name)
        config: dict[str, Any] = {}
        # django-environ warns of an unknown URL, with the password in it.
        with warnings.catch_warnings(), contextlib.suppress(ValueError, KeyError, ImproperlyConfigured):
            warnings.simplefilter("ignore")
            config = environ.Env.db_url_config(value) if value else {}
        if config.get("ENGINE") in DATABASE_ENGINES and config.get("NAME"):
            return config
        if value:
            self._refuse(name, "sqlite:///path or postgres://user:password@host:port/name", shown=False)
        return {}

    def email(self, name: str, default: str) -> dict[str, Any]:
        """Django's mail settings, EMAIL_..., from a URL."""
        if found := _email_settings(self.text(name, default)):
            return found
        self._refuse(name, "smtp+tls://user:password@host:port or consolemail://", shown=False)
        return _email_settings(default)

    def private_folder(self, path: Path) -> Path:
        """Creates the folder, readable only by this user, if it doesn't exist."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self.problems.append(f"The folder {path} can't be created ({error.strerror}); make its parent writable.")
        return path

    def report(self, problem: str) -> None:
        """A sentence of the caller's own about what was read."""
        self.problems.append(problem)

    def _refuse(self, name: str, allowed: str, *, shown: bool = True) -> None:
        """shown: False for values that may contain a password."""
        found = f', not "{self.text(name)}"' if shown else ""
        self.problems.append(f"{name} must be {allowed}{found}.")


def _email_settings(url: str) -> dict[str, Any]:
    """Empty if the URL can't be parsed."""
    with contextlib.suppress(ValueError, KeyError, ImproperlyConfigured):
        parts = urlsplit(url)
        found: dict[str, Any] = environ.Env.email_url_config(url)
        # The parser takes a "/", "?" or "#" in the password for the end of the host: mail would go to an arbitrary
        # server.
        is_server = bool(parts.hostname) and not (parts.path.strip("/") or parts.query or parts.fragment)
        if is_server or not parts.scheme.startswith("smtp"):
            found["EMAIL_PORT"] = found["EMAIL_PORT"] or MAIL_PORTS.get(parts.scheme, 25)
            return {setting: part for setting, part in found.items() if setting.startswith("EMAIL_")}
    return {}


def is_url(value: str, schemes: Iterable[str]) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in tuple(schemes) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
