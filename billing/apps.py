from importlib import import_module

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from llm.db.triggers import install_triggers, keep


class BillingConfig(AppConfig):
    name = "billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module("billing.checks")
        keep(tuple(import_module("billing.triggers").triggers()))
        import_module("billing.documents.mails").register_messages()
        roles = import_module("billing.staff.roles")
        # Groups first: those of a new installation would fill the audit log.
        post_migrate.connect(roles.make_groups, sender=self)
        post_migrate.connect(roles.name_permissions, sender=self)
        post_migrate.connect(install_triggers, sender=self)
