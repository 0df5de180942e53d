"""With which key a call was made, shares of a route's targets, and what a process skips: decision 0036."""

from django.db import migrations, models

from llm.db.columns import AddColumn


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0020_calls_by_end_user"),
    ]

    operations = [
        AddColumn(
            model_name="usage",
            name="credential",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Which of the provider's keys the call was sent with: a keyed hash; empty where there was none.",
                max_length=20,
            ),
        ),
        AddColumn(
            model_name="routetarget",
            name="weight",
            field=models.PositiveSmallIntegerField(
                db_default=0,
                default=0,
                help_text="Its share of the calls among the targets that have a weight; without one it is a fallback.",
            ),
        ),
        AddColumn(
            model_name="process",
            name="skipped_targets",
            field=models.TextField(
                blank=True, db_default="", default="", help_text="Targets that it skips since they failed, one per line."
            ),
        ),
        migrations.AlterField(
            model_name="modelroute",
            name="name",
            field=models.CharField(
                help_text="The name that callers use. One * stands for any characters: claude-*",
                max_length=200,
                unique=True,
            ),
        ),
        migrations.AlterField(
            model_name="routetarget",
            name="upstream_model",
            field=models.CharField(
                help_text="The provider's name for the model. A * stands for what it stands for in the route's name.",
                max_length=200,
            ),
        ),
    ]
