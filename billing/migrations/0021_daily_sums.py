"""What decision 0024 adds to the daily sums. Days of before are rebuilt in the background, by the hourly refresh.

Until then they have none of the new figures. What is summed up from days is summed up again by the next refresh.
"""

import django.db.models.deletion
import llm.fields
from llm.db.columns import AddColumn
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0020_invoices_by_mail'),
        ('llm', '0028_refused_requests'),
    ]

    operations = [
        migrations.CreateModel(
            name='EndUserDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('local_day', models.DateField()),
                ('end_user', models.CharField(blank=True, max_length=32)),
                ('is_rest', models.BooleanField(default=False)),
                ('calls', models.BigIntegerField()),
                ('unpriced_calls', models.BigIntegerField()),
                ('prompt_tokens', models.BigIntegerField()),
                ('completion_tokens', models.BigIntegerField()),
                ('cost', llm.fields.ExactDecimalField(decimals=12)),
            ],
            options={
                'ordering': ('-local_day', 'account', 'end_user'),
                'default_permissions': (),
            },
        ),
        migrations.RemoveConstraint(
            model_name='dailyusage',
            name='dailyusage_once',
        ),
        migrations.RemoveConstraint(
            model_name='dailyusage',
            name='dailyusage_once_without_rates',
        ),
        migrations.RemoveConstraint(
            model_name='modelday',
            name='modelday_once',
        ),
        AddColumn(
            model_name='accountday',
            name='failed_calls',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='first_byte_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='accountday',
            name='latency_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='failed_calls',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='first_byte_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='latency_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='dailyusage',
            name='outcome_group',
            field=models.CharField(choices=[('ok', 'ok'), ('client_gone', 'client gone'), ('failed', 'failed')], db_default='', default='', max_length=11),
        ),
        AddColumn(
            model_name='dailyusage',
            name='provider_instance',
            field=models.CharField(db_default='', default='', max_length=50),
        ),
        AddColumn(
            model_name='dailyusage',
            name='upstream_cost',
            field=llm.fields.ExactDecimalField(decimals=12, null=True),
        ),
        AddColumn(
            model_name='dailyusage',
            name='upstream_cost_calls',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='failed_calls',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='first_byte_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keyday',
            name='latency_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='failed_calls',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='first_byte_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='keythird',
            name='latency_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='failed_calls',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='first_byte_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_above',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_1000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_128000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_16000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_2000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_250',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_32000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_4000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_500',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_64000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='latency_le_8000',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name='modelday',
            name='outcome_group',
            field=models.CharField(choices=[('ok', 'ok'), ('client_gone', 'client gone'), ('failed', 'failed')], db_default='', default='', max_length=11),
        ),
        AddColumn(
            model_name='modelday',
            name='provider_instance',
            field=models.CharField(db_default='', default='', max_length=50),
        ),
        migrations.AddIndex(
            model_name='dailyusage',
            index=models.Index(condition=models.Q(('outcome_group', '')), fields=['local_day', 'account'], name='dailyusage_former_shape'),
        ),
        migrations.AddConstraint(
            model_name='dailyusage',
            constraint=models.UniqueConstraint(fields=('account', 'local_day', 'api_key', 'provider', 'model', 'is_billable', 'provider_instance', 'outcome_group', 'rate_set'), name='dailyusage_once'),
        ),
        migrations.AddConstraint(
            model_name='dailyusage',
            constraint=models.UniqueConstraint(condition=models.Q(('rate_set', None)), fields=('account', 'local_day', 'api_key', 'provider', 'model', 'is_billable', 'provider_instance', 'outcome_group'), name='dailyusage_once_without_rates'),
        ),
        migrations.AddConstraint(
            model_name='modelday',
            constraint=models.UniqueConstraint(fields=('local_day', 'provider', 'model', 'provider_instance', 'outcome_group'), name='modelday_once'),
        ),
        migrations.AddField(
            model_name='enduserday',
            name='account',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='llm.account'),
        ),
        migrations.AddConstraint(
            model_name='enduserday',
            constraint=models.UniqueConstraint(fields=('account', 'local_day', 'end_user', 'is_rest'), name='enduserday_once'),
        ),
        migrations.RunSQL(
            "INSERT INTO billing_staleday (local_day) SELECT DISTINCT local_day FROM billing_dailyusage",
            reverse_sql=migrations.RunSQL.noop,
        ),
    ]
