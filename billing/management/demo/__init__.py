"""A year of an invented company's customers, for trying out the admin: see `manage.py demo_data`."""
