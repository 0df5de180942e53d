"""Whether an account's calls record the end users that they name. They do, unless staff say otherwise."""

from django.db import migrations, models

from llm.db.columns import AddColumn


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0018_idempotency_keys"),
    ]

    operations = [
        AddColumn(
            model_name="account",
            name="records_end_users",
            field=models.BooleanField(
                db_default=True,
                default=True,
                help_text="Calls record which end user they name: a keyed hash with the call, the name beside it.",
            ),
        ),
    ]
