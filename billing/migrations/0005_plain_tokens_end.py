"""Notes when this upgrade was, where DRF's plain tokens were in use: they work for 30 days from then on."""

from django.db import migrations
from django.utils import timezone


def note_the_moment(apps, schema_editor):
    using = schema_editor.connection.alias
    if apps.get_model("authtoken", "Token").objects.using(using).exists():
        apps.get_model("billing", "PlainTokenGrace").objects.using(using).create(recorded_at=timezone.now())


class Migration(migrations.Migration):
    dependencies = [
        ("authtoken", "0004_alter_tokenproxy_options"),
        ("billing", "0004_staff_tokens"),
    ]

    operations = [migrations.RunPython(note_the_moment, migrations.RunPython.noop)]
