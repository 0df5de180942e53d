"""Values of closed rows that hold an upstream key of ours are blanked, and each is recorded: docs/decisions/0007.

It knows the keys that are configured now; `manage.py blank_upstream_keys --old-keys` does it for earlier ones.
"""

from django.db import migrations, models

from llm.providers.registry import configured_secrets
from llm.books.blanking import blank_upstream_keys


def blank(apps, schema_editor):
    blank_upstream_keys(configured_secrets(), using=schema_editor.connection.alias)


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0008_routing_fallbacks_and_staff_alerts"),
    ]

    operations = [
        migrations.CreateModel(
            name='Redaction',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('usage_id', models.UUIDField(db_index=True)),
                ('field', models.CharField(max_length=50)),
                ('redacted_at', models.DateTimeField()),
            ],
            options={
                'ordering': ('-id',),
            },
        ),
        migrations.RunPython(blank, migrations.RunPython.noop),
    ]
