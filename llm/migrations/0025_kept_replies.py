"""Replies that are kept for requests with an idempotency key, where that is switched on."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0024_limits_per_end_user"),
    ]

    operations = [
        migrations.CreateModel(
            name="KeptReply",
            fields=[
                ("request_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("sealed", models.BinaryField()),
                ("kept_at", models.DateTimeField(db_index=True, editable=False)),
            ],
            options={"default_permissions": ()},
        ),
    ]
