"""Whether an account's callers may have providers store what they send and get. They may, unless staff say otherwise."""

from django.db import migrations, models

from llm.db.columns import AddColumn


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0021_several_providers"),
    ]

    operations = [
        AddColumn(
            model_name="account",
            name="allows_storage",
            field=models.BooleanField(
                db_default=True,
                default=True,
                help_text="Callers may have the provider store requests and replies. If not, “store: true” is refused, and responses are requested with “store: false”, since OpenAI stores them by default.",
                verbose_name="allows storage by providers",
            ),
        ),
    ]
