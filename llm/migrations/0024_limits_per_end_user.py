"""Limits for each end user. Their windows name the limit in a column of their own, so that processes of the former
version, which know one window of a limit and period, go on until they are restarted."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

from llm.db.columns import AddColumn


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0023_account_allows_storage"),
    ]

    operations = [
        AddColumn(
            model_name="limit",
            name="is_per_end_user",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="Applies to each end user separately, as named in requests. Requests that name none share one.",
                verbose_name="for each end user",
            ),
        ),
        migrations.RemoveConstraint(model_name="limit", name="limit_once_an_account"),
        migrations.RemoveConstraint(model_name="limit", name="limit_once_a_key"),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.UniqueConstraint(
                condition=Q(api_key=None, archived_at=None),
                fields=("account", "metric", "per", "is_per_end_user"),
                name="limit_once_an_account",
                violation_error_message="This account already has such a limit. Change that one.",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.UniqueConstraint(
                condition=Q(api_key__isnull=False, archived_at=None),
                fields=("api_key", "metric", "per", "is_per_end_user"),
                name="limit_once_a_key",
                violation_error_message="This key already has such a limit. Change that one.",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=Q(is_per_end_user=False) | Q(soft_percent=None), name="limit_per_end_user_alerts_nobody"
            ),
        ),
        migrations.AlterField(
            model_name="limitwindow",
            name="limit",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="windows",
                to="llm.limit",
            ),
        ),
        AddColumn(
            model_name="limitwindow",
            name="end_user_limit",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="end_user_windows",
                to="llm.limit",
            ),
        ),
        AddColumn(
            model_name="limitwindow",
            name="end_user",
            field=models.CharField(db_default="", default="", max_length=32),
        ),
        AddColumn(
            model_name="limitwindow",
            name="named_by",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name="limitwindow",
            constraint=models.UniqueConstraint(
                fields=("end_user_limit", "starts_at", "end_user"), name="limitwindow_once_an_end_user"
            ),
        ),
        migrations.AddConstraint(
            model_name="limitwindow",
            constraint=models.CheckConstraint(
                condition=Q(limit__isnull=False, end_user_limit=None, end_user="")
                | (Q(limit=None, end_user_limit__isnull=False) & ~Q(end_user="")),
                name="limitwindow_of_one_limit",
            ),
        ),
        migrations.RemoveIndex(model_name="limitwindow", name="limitwindow_starts"),
        migrations.AddIndex(
            model_name="limitwindow",
            index=models.Index(
                fields=["starts_at", "limit", "end_user_limit", "end_user"], name="limitwindow_starts"
            ),
        ),
        migrations.AddIndex(
            model_name="limitwindow",
            index=models.Index(
                condition=Q(named_by__isnull=False),
                fields=["end_user_limit", "starts_at", "named_by"],
                name="limitwindow_named_by",
            ),
        ),
    ]
