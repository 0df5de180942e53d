"""One dialect more. The wider check is true of every row that the narrower one let in; PostgreSQL reads them once."""

from django.db import migrations, models


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
    ]
