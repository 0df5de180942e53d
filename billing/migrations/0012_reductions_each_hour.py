from datetime import date
from typing import Any

from django.db import migrations, models


def look_at_all(apps: Any, schema_editor: Any) -> None:
    """What was corrected before the upgrade is given back by the first run after it."""
    apps.get_model("billing", "RollupMark").objects.update(changed_from=date(2000, 1, 1))


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0011_former_plans"),
    ]

    operations = [
        migrations.AddField(
            model_name="rollupmark",
            name="changed_from",
            field=models.DateField(null=True),
        ),
        migrations.RunPython(look_at_all, migrations.RunPython.noop),
    ]
