"""Every setting of the project, typed and read from the environment or from `.env`; `.env.example` explains each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llmproject.broker import BROKER_SCHEMES, broker_settings
from llmproject.database import database_settings, owner_settings
from llmproject.env import EnvReader
from llmproject.logging import configure_structlog, logging_settings
from llmproject.parentwatch import SUPERVISOR_PID
from llmproject.providers import DEVELOPER_ROLES, DIALECTS, DISCONNECT_POLICIES, read_instances

BASE_DIR = Path(__file__).resolve().parent.parent

read = EnvReader()
if env_file := os.environ.get("LLM_ENV_FILE", ".env"):
    read.load_file(BASE_DIR / env_file)

# Everything written at run time is here.
VAR_DIR = read.private_folder(BASE_DIR / read.text("VAR_DIR", "var"))

SECRET_KEY = read.text("SECRET_KEY")
DEBUG = read.flag("DEBUG", default=False)
ALLOWED_HOSTS = read.names("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = read.names("CSRF_TRUSTED_ORIGINS")
HTTPS = read.flag("HTTPS", default=False)
TRUSTED_PROXIES = read.networks("TRUSTED_PROXIES")

WEB_HOST = read.text("WEB_HOST", "127.0.0.1")
WEB_PORT = read.whole("WEB_PORT", 8000, minimum=1, maximum=65535)
WEB_WORKERS = read.whole("WEB_WORKERS", 1, minimum=1, maximum=256)
# For the budget of connections, which covers all hosts.
WEB_HOSTS = read.whole("WEB_HOSTS", 1, minimum=1, maximum=1000)

# --- The gateway ------------------------------------------------------------------------------------------------------

LLM_KEY_PEPPER = read.text("LLM_KEY_PEPPER")
# Encrypts stored secrets; the fallbacks only decrypt.
LLM_SECRETS_KEY = read.text("LLM_SECRETS_KEY")
LLM_SECRETS_KEY_FALLBACKS = read.names("LLM_SECRETS_KEY_FALLBACKS")

# Instances with variables of their own. Without any, each registered provider is one, under its own name.
LLM_PROVIDERS = read_instances(read)
LLM_PROVIDER = read.text("LLM_PROVIDER", LLM_PROVIDERS[0].name if LLM_PROVIDERS else "echo")
_DEFAULT_CLASS = {each.name: each.provider for each in LLM_PROVIDERS}.get(LLM_PROVIDER, LLM_PROVIDER)
LLM_DEFAULT_MODEL = read.text("LLM_DEFAULT_MODEL", "echo" if _DEFAULT_CLASS == "echo" else "")
OPENAI_API_KEY = read.api_key("OPENAI_API_KEY")
ANTHROPIC_API_KEY = read.api_key("ANTHROPIC_API_KEY")
LLM_COMPATIBLE_API_KEY = read.api_key("LLM_COMPATIBLE_API_KEY")
LLM_BASE_URL = read.url("LLM_BASE_URL")
LLM_COMPATIBLE_DIALECTS = read.choices("LLM_COMPATIBLE_DIALECTS", DIALECTS, default="chat,embeddings")
LLM_COMPATIBLE_DEVELOPER_ROLE = read.choice("LLM_COMPATIBLE_DEVELOPER_ROLE", DEVELOPER_ROLES, default="developer")
LLM_OPENAI_BASE_URL = read.url("LLM_OPENAI_BASE_URL", "https://api.openai.com/v1")
LLM_ANTHROPIC_BASE_URL = read.url("LLM_ANTHROPIC_BASE_URL", "https://api.anthropic.com")
LLM_OUTPUT_MAXIMA = read.amount_by_pattern("LLM_OUTPUT_MAXIMA")
LLM_ANTHROPIC_MAX_TOKENS = read.whole("LLM_ANTHROPIC_MAX_TOKENS", 0)
LLM_UNPRICED_MODELS = read.choice("LLM_UNPRICED_MODELS", ("", "refuse", "flag"), default="")

LLM_CONNECT_TIMEOUT_SECONDS = read.seconds("LLM_CONNECT_TIMEOUT_SECONDS", 5.0)
LLM_FIRST_BYTE_TIMEOUT_SECONDS = read.seconds("LLM_FIRST_BYTE_TIMEOUT_SECONDS", 600.0)
LLM_KEEPALIVE_SECONDS = read.seconds("LLM_KEEPALIVE_SECONDS", 15.0)
LLM_IDLE_TIMEOUT_SECONDS = read.seconds("LLM_IDLE_TIMEOUT_SECONDS", 120.0)
LLM_TOTAL_TIMEOUT_SECONDS = read.seconds("LLM_TOTAL_TIMEOUT_SECONDS", 900.0)
LLM_MAX_RETRIES = read.whole("LLM_MAX_RETRIES", 2, maximum=10)
# So many failures of a target within so many seconds, and it is skipped for as long; 0 skips none.
LLM_TARGET_FAILURES = read.whole("LLM_TARGET_FAILURES", 5, maximum=1000)
LLM_TARGET_SKIP_SECONDS = read.seconds("LLM_TARGET_SKIP_SECONDS", 30.0)
LLM_MAX_CONNECTIONS = read.whole("LLM_MAX_CONNECTIONS", 4096, minimum=1)

LLM_MAX_BODY_BYTES = read.whole("LLM_MAX_BODY_BYTES", 32 * 1024**2, minimum=1024)
LLM_BODY_TIMEOUT_SECONDS = read.seconds("LLM_BODY_TIMEOUT_SECONDS", 60.0)
# For all requests in progress in a process, and for those of one key.
LLM_BODIES_BYTES = read.whole("LLM_BODIES_BYTES", 256 * 1024**2, minimum=1024)
LLM_BODIES_BYTES_PER_KEY = read.whole("LLM_BODIES_BYTES_PER_KEY", 128 * 1024**2, minimum=1024)
LLM_MAX_REPLY_BYTES = read.whole("LLM_MAX_REPLY_BYTES", 64 * 1024**2, minimum=1024)
LLM_RELAY_BYTES = read.whole("LLM_RELAY_BYTES", 1024**2, minimum=1024)
LLM_RELAY_STALL_SECONDS = read.seconds("LLM_RELAY_STALL_SECONDS", 60.0)

LLM_DISCONNECT_POLICY = read.choice_by_name("LLM_DISCONNECT_POLICY", DISCONNECT_POLICIES, default="drain")
LLM_DISCONNECT_DRAIN_SECONDS = read.seconds("LLM_DISCONNECT_DRAIN_SECONDS", 120.0)
LLM_DISCONNECT_DRAIN_CALLS = read.whole("LLM_DISCONNECT_DRAIN_CALLS", 256)
LLM_DISCONNECT_DRAIN_TOKENS = read.whole("LLM_DISCONNECT_DRAIN_TOKENS", 32_768)
LLM_END_USER_NAMES = read.whole("LLM_END_USER_NAMES", 100_000, minimum=1, maximum=10_000_000)
LLM_LIMIT_END_USERS = read.whole("LLM_LIMIT_END_USERS", 10_000, minimum=1, maximum=1_000_000)
LLM_LIMIT_OUTPUT_TOKENS = read.whole("LLM_LIMIT_OUTPUT_TOKENS", 16_384, minimum=1)
LLM_DRAIN_SECONDS = read.seconds("LLM_DRAIN_SECONDS", 30.0)

LLM_KEY_CACHE_SECONDS = read.seconds("LLM_KEY_CACHE_SECONDS", 5.0)
LLM_CATALOG_CACHE_SECONDS = read.seconds("LLM_CATALOG_CACHE_SECONDS", 30.0)
LLM_DB_THREADS = read.whole("LLM_DB_THREADS", 4, minimum=1, maximum=64)
LLM_DB_PAGES = read.whole("LLM_DB_PAGES", 4, minimum=1, maximum=64)
LLM_DB_SPARE = read.whole("LLM_DB_SPARE", 5, maximum=1000)
LLM_BATCH_SIZE = read.whole("LLM_BATCH_SIZE", 128, minimum=1, maximum=10_000)

LLM_CORS_ORIGINS = read.origins("LLM_CORS_ORIGINS")

LLM_METRICS_TOKEN = read.text("LLM_METRICS_TOKEN")
LLM_LOG_LEVEL = read.choice("LLM_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
LLM_LOG_FORMAT = read.choice("LLM_LOG_FORMAT", ("json", "console"), default="json")

# --- Mail and webhooks ------------------------------------------------------------------------------------------------

# Each setting in the URL; the URL itself, with its password, isn't one.
globals().update(read.email("EMAIL_URL", "consolemail://"))
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = read.text("LLM_MAIL_FROM", "llm-gateway@localhost")
LLM_ALERT_EMAIL = read.text("LLM_ALERT_EMAIL")
LLM_WEBHOOK_URL = read.url("LLM_WEBHOOK_URL")
LLM_WEBHOOK_SECRET = read.text("LLM_WEBHOOK_SECRET")

# --- Billing ----------------------------------------------------------------------------------------------------------

BILLING_SELLER = {
    "name": read.text("BILLING_SELLER_NAME"),
    # Lines are separated by "|", since an environment variable is one line.
    "address": "\n".join(part.strip() for part in read.text("BILLING_SELLER_ADDRESS").split("|")),
    "tax_id": read.text("BILLING_SELLER_TAX_ID"),
    "email": read.text("BILLING_SELLER_EMAIL"),
    "payment": "\n".join(part.strip() for part in read.text("BILLING_SELLER_PAYMENT").split("|")),
}
# Of invoices by mail; replies go to the seller if nothing else is set.
BILLING_MAIL_FROM = read.text("BILLING_MAIL_FROM", DEFAULT_FROM_EMAIL)
BILLING_MAIL_REPLY_TO = read.text("BILLING_MAIL_REPLY_TO", BILLING_SELLER["email"])
# Days after the due date on which a reminder of what is outstanding is mailed; 0: never.
BILLING_REMIND_AFTER_DAYS = read.whole("BILLING_REMIND_AFTER_DAYS", 0, maximum=365)
# The zone whose days date documents and determine their series.
BILLING_SELLER_TIME_ZONE = read.time_zone("BILLING_SELLER_TIME_ZONE", "UTC")
BILLING_INVOICE_SERIES = read.text("BILLING_INVOICE_SERIES", "INV")
BILLING_CREDIT_SERIES = read.text("BILLING_CREDIT_SERIES", "CN")
# Invoices above this, in USD, must be approved by another person than the one who submitted them.
BILLING_SECOND_PERSON_ABOVE_USD = read.whole("BILLING_SECOND_PERSON_ABOVE_USD", 0)
# How long after its end a month is drafted, so that calls in flight have ended.
BILLING_CLOSE_AFTER_HOURS = read.whole("BILLING_CLOSE_AFTER_HOURS", 6)
# Fallback font files, in order, for characters that the bundled fonts lack.
BILLING_FONTS = [str(BASE_DIR / name) for name in read.names("BILLING_FONTS")]

# --- Storage ----------------------------------------------------------------------------------------------------------

# `serve` sets it only for the web process: commands and background jobs may run statements for minutes.
LLM_PROCESS = read.choice("LLM_PROCESS", ("web", "other"), default="other")
LLM_DB_STATEMENT_TIMEOUT_MS = read.whole("LLM_DB_STATEMENT_TIMEOUT_MS", 5000)
LLM_DB_LOCK_TIMEOUT_MS = read.whole("LLM_DB_LOCK_TIMEOUT_MS", 1000)
DATABASES = {
    "default": database_settings(
        read,
        base_dir=BASE_DIR,
        default_path=VAR_DIR / "db.sqlite3",
        statement_timeout_ms=LLM_DB_STATEMENT_TIMEOUT_MS if LLM_PROCESS == "web" else 0,
        lock_timeout_ms=LLM_DB_LOCK_TIMEOUT_MS if LLM_PROCESS == "web" else 0,
    )
}
LLM_DATABASE_OWNER = owner_settings(read, DATABASES["default"])
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Settlements wait here while the database is unavailable: it must be a persistent volume.
LLM_SPOOL_DIR = read.private_folder(BASE_DIR / read.text("LLM_SPOOL_DIR", str(VAR_DIR / "spool")))
LLM_REAP_AFTER_SECONDS = read.seconds("LLM_REAP_AFTER_SECONDS", 300.0)
LLM_IDEMPOTENCY_HOURS = read.whole("LLM_IDEMPOTENCY_HOURS", 24, minimum=1, maximum=8760)
LLM_KEPT_REPLY_MINUTES = read.whole("LLM_KEPT_REPLY_MINUTES", 0, maximum=1440)
LLM_KEPT_REPLY_BYTES = read.whole("LLM_KEPT_REPLY_BYTES", 256 * 1024, minimum=1, maximum=16 * 1024**2)
BILLING_EXPORT_DIR = read.private_folder(BASE_DIR / read.text("BILLING_EXPORT_DIR", str(VAR_DIR / "exports")))

REDIS_URL = read.url("REDIS_URL", schemes=("redis", "rediss"))
CACHES: dict[str, dict[str, Any]] = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
if REDIS_URL:
    CACHES["default"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "llm",
        "OPTIONS": {"socket_connect_timeout": 2, "socket_timeout": 2},
    }

# --- Background jobs --------------------------------------------------------------------------------------------------

CELERY_BROKER_URL = read.url("CELERY_BROKER_URL", "filesystem://localhost//", schemes=BROKER_SCHEMES)
CELERY_TIMEZONE = "UTC"
CELERY_TASK_IGNORE_RESULT = True
CELERY_RESULT_EXPIRES = None
# A task whose process died isn't redelivered immediately, or one that kills its process would run for ever. What it
# left undone is found by query: jobs by their lease, everything else by the next scheduled run.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_WORKER_CONCURRENCY = read.whole("CELERY_WORKER_CONCURRENCY", 2, minimum=1, maximum=64)
# On all hosts together; also for the budget of connections.
CELERY_WORKERS = read.whole("CELERY_WORKERS", 1, maximum=1000)
# RabbitMQ doesn't allow sharing a worker's queue of commands, and workers of one host have the same name: all but the
# first would end at once, and so would a replacement until RabbitMQ notices the loss.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Each setting that depends on the kind of broker.
globals().update(broker_settings(read, CELERY_BROKER_URL, var_dir=VAR_DIR))
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")

# --- Django -----------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "rest_framework",
    # Until the plain tokens from before the upgrade have expired.
    "rest_framework.authtoken",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    # Before llm: its verify_books covers invoices too.
    "billing",
    "llm",
]

MIDDLEWARE = [
    "llmproject.middleware.RefuseNulMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "llmproject.static.StaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "llm.admin.trail.middleware.AuditMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "llm.admin.signin.SignInRefusedMiddleware",
    "llmproject.middleware.NoteSessionMiddleware",
]

ROOT_URLCONF = "llmproject.urls"
ASGI_APPLICATION = "llmproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["llm.signin.StaffBackend"]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

# allauth only signs people in: users are created by staff. Its own rate limits are off; docs/decisions/0022 says why,
# and `llm.signin` has ours.
ACCOUNT_ADAPTER = "llm.admin.signin.SignInAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = False
ACCOUNT_SESSION_REMEMBER = True

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = read.private_folder(VAR_DIR / "static")
# Compressed but not hashed, and also found in the apps: nothing breaks without collectstatic.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "llmproject.static.StaticStorage"},
}
WHITENOISE_USE_FINDERS = DEBUG or not (STATIC_ROOT / "admin").is_dir()

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.CursorPagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "PAGE_SIZE": 100,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "LLM Billing Gateway",
    "DESCRIPTION": "One API in front of every model, with every token on the books.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "APPEND_COMPONENTS": {"securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}}},
    "SECURITY": [{"apiKey": []}],
    "GET_LIB_DOC_EXCLUDES": "llmproject.schema.classes_without_description",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    # Fields of the same name with different content.
    "ENUM_NAME_OVERRIDES": {
        "AccountStatusEnum": "llm.enums.AccountStatus",
        "CallStatusEnum": "llm.enums.UsageStatus",
        "ExportStateEnum": "billing.enums.JobState",
        "InvoiceKindEnum": "billing.enums.InvoiceKind",
        "InvoiceStateEnum": "billing.enums.InvoiceState",
        "LineKindEnum": "billing.enums.LineKind",
    },
}

# --- Security ---------------------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "llmproject.refusals.csrf_failed"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_ENGINE = "llmproject.sessions"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
# A probe inside the cluster speaks plain HTTP.
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
# TLS ends at the proxy in front of us, which must set (and not pass on) this header.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
# Whether the policy covers other hosts of the domain is up to the domain's owner, not one of its services.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

LOGGING = logging_settings(level=LLM_LOG_LEVEL, log_format=LLM_LOG_FORMAT)
configure_structlog(
    level=LLM_LOG_LEVEL,
    log_format=LLM_LOG_FORMAT,
    secrets=[
        *LLM_SECRETS_KEY_FALLBACKS,
        *(key for instance in LLM_PROVIDERS for key in instance.api_keys),
        *(
            value
            for name, value in list(globals().items())
            if name.endswith(("KEY", "PASSWORD", "PEPPER", "SECRET", "TOKEN")) and isinstance(value, str)
        ),
    ],
)

# Names that custom providers read.
LLM_EXTRA_SETTINGS = read.names("LLM_EXTRA_SETTINGS")
read.declare(SUPERVISOR_PID, "LLM_ENV_FILE", *LLM_EXTRA_SETTINGS)
read.check_names()
# One sentence for each value that couldn't be parsed and each name that is never read; `llm.checks` reports them.
LLM_KNOWN_SETTINGS = frozenset(read.known)
LLM_SETTING_PROBLEMS = tuple(read.problems)
LLM_SETTING_WARNINGS = tuple(read.warnings)
LLM_SETTINGS_BY_PROVIDER = tuple(read.by_name)
