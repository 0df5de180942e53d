from importlib import import_module

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class LLMConfig(AppConfig):
    name = "llm"
    verbose_name = "LLM gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module("llm.checks")
        import_module("llm.connectionchecks")
        post_migrate.connect(import_module("llm.triggers").install_triggers, sender=self)
        # Wherever Django is there is the Celery app, so that a task queued by the web process goes to our broker.
        import_module("llmproject.celery")
