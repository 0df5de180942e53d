"""An index of the calls that name an end user, made while calls go on being written."""

from django.db import migrations, models

from llm.indexes import AddIndexMeanwhile


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ("llm", "0019_account_records_end_users"),
    ]

    operations = [
        AddIndexMeanwhile(
            model_name="usage",
            index=models.Index(condition=~models.Q(end_user=""), fields=["end_user", "-id"], name="usage_end_user"),
        ),
    ]
