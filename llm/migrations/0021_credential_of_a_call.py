"""With which key of a provider's instance a call was made: decision 0036."""

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
    ]
