from django.db import migrations


class Migration(migrations.Migration):
    """The name in the menu alone: the database stays as it is."""

    dependencies = [("billing", "0015_plainer_help_texts")]

    operations = [
        migrations.AlterModelOptions(
            name="dailyusage",
            options={
                "ordering": ("-local_day", "account", "api_key", "model"),
                "verbose_name_plural": "usage explorer",
            },
        ),
    ]
