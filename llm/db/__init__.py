"""How we use PostgreSQL and SQLite: connections, triggers, and SQL that both understand."""
