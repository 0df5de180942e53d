"""The look of the admin site.

It stays Django's default site, so documentation of third-party apps about the admin applies here too;
our pages come in through `templates/admin/` and `llm.templatetags.gateway`.
"""

from django.contrib import admin

from llm.admin.format import NOTHING
from llm.admin.menu import by_jobs
from llm.admin.signin import SignInView, change_own_password

admin.site.site_header = "LLM Billing Gateway"
admin.site.site_title = "LLM Billing Gateway"
admin.site.index_title = "Today"
# Our root only redirects here.
admin.site.site_url = None
admin.site.empty_value_display = NOTHING
# On the instance: the site stays Django's own.
admin.site.login = SignInView.as_view()  # type: ignore[method-assign]
admin.site.password_change = change_own_password  # type: ignore[method-assign, assignment]
admin.site.get_app_list = by_jobs(admin.site.get_app_list)  # type: ignore[method-assign]
