from importlib import import_module

from django.apps import AppConfig
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate, pre_migrate


class LLMConfig(AppConfig):
    name = "llm"
    verbose_name = "LLM gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module("llm.checks")
        import_module("llm.db.connection_checks")
        triggers = import_module("llm.db.triggers")
        connection_created.connect(import_module("llm.trail.actor").prepare_connection)
        pre_migrate.connect(triggers.make_way_for_migrations, sender=self)
        post_migrate.connect(triggers.install_triggers, sender=self)
        # Makes the Celery app available wherever Django is, so that tasks queued by the web process go to our broker.
        import_module("llmproject.celery")
