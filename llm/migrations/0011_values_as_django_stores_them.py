"""On SQLite moments and JSON that raw SQL wrote get the form in which Django asks for them."""

from functools import partial

from django.db import migrations

from llm.db.stored_forms import store_as_django_does


class Migration(migrations.Migration):
    dependencies = [("llm", "0010_marks_of_books_checks")]

    operations = [
        migrations.RunPython(
            partial(store_as_django_does, app_label="llm"), migrations.RunPython.noop, elidable=False
        )
    ]
