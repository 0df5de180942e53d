from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0012_reductions_each_hour")]

    operations = [
        migrations.AddField(
            model_name="invoiceevent",
            name="cutoff_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
    ]
