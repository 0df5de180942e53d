"""Earlier versions stored another text for a message that had no recipient."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("llm", "0025_kept_replies")]

    operations = [
        migrations.RunSQL(
            "UPDATE llm_outbox SET last_result = 'no recipient' WHERE last_result = 'nobody to tell'",
            migrations.RunSQL.noop,
        )
    ]
