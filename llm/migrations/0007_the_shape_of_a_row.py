"""What decision 0024 adds to calls, adjustments and rates. Nothing is rewritten: older rows keep their digests."""

import django.db.models.deletion
from django.db import migrations, models

import llm.fields
from llm.db.columns import AddColumn


class Migration(migrations.Migration):

    dependencies = [
        ("llm", "0006_encrypt_webhook_secrets"),
    ]

    operations = [
        migrations.CreateModel(
            name='EndUser',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='end_users', to='llm.account')),
                ('end_user', models.CharField(help_text="As in the calls' rows.", max_length=32)),
                ('name', models.CharField(max_length=256)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ('account', 'name'),
            },
        ),
        migrations.CreateModel(
            name='EndUserKey',
            fields=[
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='llm.account')),
                ('key', models.BinaryField(max_length=32)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.AlterModelOptions(
            name='rateset',
            options={'ordering': ('price', 'service_tier', 'speed', 'inference_geo', 'min_prompt_tokens')},
        ),
        migrations.RemoveConstraint(
            model_name='rateset',
            name='rateset_once_per_tier',
        ),
        migrations.AddField(
            model_name='rateset',
            name='inference_geo',
            field=models.CharField(blank=True, db_default='', default='', help_text='Where the model ran, as the provider reports it; empty for anywhere.', max_length=20),
        ),
        migrations.AddField(
            model_name='rateset',
            name='speed',
            field=models.CharField(blank=True, db_default='', default='', help_text='As the provider reports it; empty for its standard speed.', max_length=20),
        ),
        AddColumn(
            model_name='usage',
            name='digest_version',
            field=models.PositiveSmallIntegerField(db_default=1, default=1, editable=False),
        ),
        AddColumn(
            model_name='usage',
            name='end_user',
            field=models.CharField(blank=True, db_default='', default='', help_text="A keyed hash of the end user's name (llm.endusers); empty where none was given.", max_length=32),
        ),
        AddColumn(
            model_name='usage',
            name='flags',
            field=models.CharField(blank=True, db_default='', default='', help_text='Words on how the figures came about, sorted, with one space between them.', max_length=200),
        ),
        AddColumn(
            model_name='usage',
            name='inference_geo',
            field=models.CharField(blank=True, db_default='', default='', help_text='As served.', max_length=20),
        ),
        AddColumn(
            model_name='usage',
            name='provider_instance',
            field=models.CharField(blank=True, db_default='', default='', help_text='Which configuration of the provider was called; empty in calls older than that.', max_length=50),
        ),
        AddColumn(
            model_name='usage',
            name='speed',
            field=models.CharField(blank=True, db_default='', default='', help_text='As served.', max_length=20),
        ),
        AddColumn(
            model_name='usage',
            name='tags',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        AddColumn(
            model_name='usage',
            name='upstream_cost',
            field=llm.fields.AmountField(blank=True, help_text="The provider's own figure of the cost, in USD, where it sent one.", null=True),
        ),
        AddColumn(
            model_name='usageadjustment',
            name='digest_version',
            field=models.PositiveSmallIntegerField(db_default=1, default=1, editable=False),
        ),
        AddColumn(
            model_name='usageadjustment',
            name='extra_meters',
            field=models.JSONField(blank=True, db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        AddColumn(
            model_name='usageadjustment',
            name='flags',
            field=models.CharField(blank=True, db_default='', default='', max_length=200),
        ),
        AddColumn(
            model_name='usageadjustment',
            name='inference_geo',
            field=models.CharField(blank=True, db_default='', default='', max_length=20),
        ),
        AddColumn(
            model_name='usageadjustment',
            name='service_tier',
            field=models.CharField(blank=True, db_default='', default='', max_length=50),
        ),
        AddColumn(
            model_name='usageadjustment',
            name='speed',
            field=models.CharField(blank=True, db_default='', default='', max_length=20),
        ),
        migrations.AddConstraint(
            model_name='rateset',
            constraint=models.UniqueConstraint(fields=('price', 'service_tier', 'speed', 'inference_geo', 'min_prompt_tokens'), name='rateset_once_per_variant'),
        ),
        migrations.AddConstraint(
            model_name='enduser',
            constraint=models.UniqueConstraint(fields=('account', 'end_user'), name='enduser_once'),
        ),
    ]
