"""The Django project: settings, URLs, and how its processes start and stop."""
