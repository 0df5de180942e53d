"""On SQLite moments and JSON that raw SQL wrote get the form in which Django asks for them."""

from functools import partial

from django.db import migrations

from llm.db.stored_forms import store_as_django_does


class Migration(migrations.Migration):
    dependencies = [("billing", "0007_digest_of_the_issue")]

    operations = [
        migrations.RunPython(
            partial(store_as_django_does, app_label="billing"), migrations.RunPython.noop, elidable=False
        )
    ]
