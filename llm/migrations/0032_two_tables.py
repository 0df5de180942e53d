"""Calls in flight get a table of their own, and rows of `llm_usage` no longer change. Closed calls are not touched, so
this takes as long as there are open ones. docs/decisions/0037-two-tables.md."""

from datetime import timedelta

import django.db.models.deletion
from django.core.management.base import CommandError
from django.db import migrations, models

from llm.books.clock import database_now
from llm.books.heartbeat import MISSED_BEATS, beat_interval_s
from llm.db.triggers import lifted

_MOVED = (
    "id, request_id, attempt, account_id, api_key_id, process_id, dialect, provider, provider_instance, credential, "
    "model, upstream_model, service_tier, speed, inference_geo, end_user, tags, is_stream, request_bytes, holds, "
    "price_id, opened_at, local_day"
)
_EMPTY = (
    "recorded_at, status, usage_source, outcome, error_code, reported_model, upstream_response_id, prompt_tokens, "
    "completion_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, reasoning_tokens, "
    "audio_input_tokens, audio_output_tokens, extra_meters, is_billable, is_disputed"
)
_EMPTY_VALUES = "opened_at, 'open', 'none', 'pending', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, '{}', true, false"


def refuse_beside_gateways(apps, schema_editor):
    """Processes of the other version look for open calls in the other table: what they settle would be rejected."""
    silence = timedelta(seconds=MISSED_BEATS * beat_interval_s())
    processes = apps.get_model("llm", "Process").objects.using(schema_editor.connection.alias)
    running = processes.filter(seen_at__gte=database_now() - silence, ended_at=None).count()
    if running:
        raise CommandError(
            f"{running} gateway process{'es are' if running > 1 else ' is'} still running. Stop the gateway on all "
            "hosts, migrate, and start it again. A process that was killed counts as running for "
            f"{silence.total_seconds():.0f} seconds."
        )


def move_open_calls(apps, schema_editor):
    connection = schema_editor.connection
    with lifted("llm_usage", connection), lifted("llm_opencall", connection), connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO llm_opencall ({_MOVED}) SELECT {_MOVED} FROM llm_usage WHERE status = 'open'")
        cursor.execute("DELETE FROM llm_usage WHERE status = 'open'")


def move_back(apps, schema_editor):
    connection = schema_editor.connection
    with lifted("llm_usage", connection), lifted("llm_opencall", connection), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO llm_usage ({_MOVED}, {_EMPTY}) SELECT {_MOVED}, {_EMPTY_VALUES} FROM llm_opencall"
        )
        cursor.execute("DELETE FROM llm_opencall")


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0031_second_factor"),
    ]

    operations = [
        migrations.RunPython(refuse_beside_gateways, migrations.RunPython.noop),
        migrations.CreateModel(
            name="OpenCall",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("request_id", models.UUIDField()),
                ("attempt", models.PositiveSmallIntegerField(default=1)),
                ("process_id", models.UUIDField()),
                (
                    "dialect",
                    models.CharField(
                        choices=[
                            ("native", "native"),
                            ("openai.chat", "openai.chat"),
                            ("openai.responses", "openai.responses"),
                            ("openai.completions", "openai.completions"),
                            ("openai.embeddings", "openai.embeddings"),
                            ("anthropic.messages", "anthropic.messages"),
                        ],
                        max_length=20,
                    ),
                ),
                ("provider", models.CharField(max_length=50)),
                ("provider_instance", models.CharField(blank=True, default="", max_length=50)),
                ("credential", models.CharField(blank=True, default="", max_length=20)),
                ("model", models.CharField(max_length=200)),
                ("upstream_model", models.CharField(max_length=200)),
                ("service_tier", models.CharField(blank=True, default="", max_length=50)),
                ("speed", models.CharField(blank=True, default="", max_length=20)),
                ("inference_geo", models.CharField(blank=True, default="", max_length=20)),
                ("end_user", models.CharField(blank=True, default="", max_length=32)),
                ("tags", models.JSONField(blank=True, default=dict)),
                ("is_stream", models.BooleanField(default=False)),
                ("request_bytes", models.PositiveIntegerField(default=0)),
                ("holds", models.JSONField(blank=True, null=True)),
                ("opened_at", models.DateTimeField()),
                ("local_day", models.DateField()),
                (
                    "account",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="open_calls",
                        to="llm.account",
                    ),
                ),
                (
                    "api_key",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="open_calls",
                        to="llm.apikey",
                    ),
                ),
                (
                    "price",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="llm.price",
                    ),
                ),
            ],
            options={
                "verbose_name": "call in flight",
                "verbose_name_plural": "calls in flight",
                "ordering": ("-id",),
                "default_permissions": (),
                "indexes": [models.Index(fields=["request_id"], name="opencall_request")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "dialect__in",
                                [
                                    "native",
                                    "openai.chat",
                                    "openai.responses",
                                    "openai.completions",
                                    "openai.embeddings",
                                    "anthropic.messages",
                                ],
                            )
                        ),
                        name="opencall_dialect_known",
                    )
                ],
            },
        ),
        migrations.RunPython(move_open_calls, move_back),
        # Last: the open calls to move are found by it.
        migrations.RemoveIndex(model_name="usage", name="usage_open"),
        # Backwards, before anything else.
        migrations.RunPython(migrations.RunPython.noop, refuse_beside_gateways),
    ]
