"""One dialect more. The wider check is true of every row that the narrower one let in; PostgreSQL reads them once."""

from django.core.management.base import CommandError
from django.db import migrations, models


def refuse_with_rows(apps, schema_editor):
    """Backwards, before anything else: the narrower check would end in an error of the database."""
    calls = apps.get_model("llm", "Usage").objects.using(schema_editor.connection.alias)
    if calls.filter(dialect="openai.completions").exists():
        raise CommandError(
            "llm.0015_completions can't be reversed: the books hold calls to /v1/completions, which the schema before "
            "it has no word for, and calls are never deleted. Stay on this version, or restore a backup from before it."
        )


class Migration(migrations.Migration):

    dependencies = [
        ('llm', '0014_plain_words'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='usage',
            name='usage_dialect_known',
        ),
        migrations.AlterField(
            model_name='usage',
            name='dialect',
            field=models.CharField(choices=[('native', 'native'), ('openai.chat', 'openai.chat'), ('openai.responses', 'openai.responses'), ('openai.completions', 'openai.completions'), ('openai.embeddings', 'openai.embeddings'), ('anthropic.messages', 'anthropic.messages')], max_length=20),
        ),
        migrations.AddConstraint(
            model_name='usage',
            constraint=models.CheckConstraint(condition=models.Q(('dialect__in', ['native', 'openai.chat', 'openai.responses', 'openai.completions', 'openai.embeddings', 'anthropic.messages'])), name='usage_dialect_known'),
        ),
        # Last, so that it is the first thing that going back does.
        migrations.RunPython(migrations.RunPython.noop, refuse_with_rows, elidable=False),
    ]
