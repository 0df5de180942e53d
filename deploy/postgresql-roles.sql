-- Roles for PostgreSQL: who may do what with the gateway's database. docs/operations.md, "Roles", explains how to use them.
--
--     psql --dbname llm --file deploy/postgresql-roles.sql
--
-- Run it as a superuser before the first migration, and again after each upgrade's migration: it grants what new
-- tables need, and revokes what their triggers refuse. It can be run any number of times, with any client.
--
-- llm_owner   owns the tables: migrations, triggers. Only `manage.py migrate`, `blank_upstream_keys` and `loaddata` need
--             it (DATABASE_OWNER_URL)
-- llm_app     the gateway, its workers and commands: reads and writes rows as far as the triggers allow
-- llm_pages   the same for the admin and the management API, with a limit on its connections
-- llm_reader  reports: reads the books and the invoices, but no secrets or sign-ins
--
-- They have no passwords yet: give each role that you use its own, with \password in psql.

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['llm_owner', 'llm_app', 'llm_pages', 'llm_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', role_name);
        END IF;
    END LOOP;
    -- A limit that was set by hand stays.
    IF (SELECT rolconnlimit FROM pg_roles WHERE rolname = 'llm_pages') = -1 THEN
        ALTER ROLE llm_pages CONNECTION LIMIT 20;
    END IF;
END $$;

ALTER ROLE llm_owner NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE llm_app NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE llm_pages NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT;
ALTER ROLE llm_reader NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT llm_app TO llm_pages;

-- The schema belongs to the owner; no other role creates anything in it.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO llm_owner, llm_app, llm_reader', current_database());
END $$;
ALTER SCHEMA public OWNER TO llm_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO llm_app, llm_reader;

-- Objects of another role are handed over, in case one role has done everything in this database so far.
DO $$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT oid::regclass AS name, CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind
        FROM pg_class found
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'v') AND relowner <> 'llm_owner'::regrole
            -- Sequences of columns follow their tables.
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = found.oid AND relkind = 'S' AND deptype IN ('a', 'i'))
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO llm_owner', item.kind, item.name);
    END LOOP;
    FOR item IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner <> 'llm_owner'::regrole AND proname LIKE 'llm\_%'
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO llm_owner', item.name);
    END LOOP;
END $$;

-- The application: rows of existing tables and of those that migrations add. Never TRUNCATE, TRIGGER, REFERENCES.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, llm_app, llm_pages, llm_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO llm_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO llm_app;
ALTER DEFAULT PRIVILEGES FOR ROLE llm_owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO llm_app;
ALTER DEFAULT PRIVILEGES FOR ROLE llm_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO llm_app;

-- What a trigger refuses for every row isn't granted either, so that it is refused even if the trigger is gone.
DO $$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT tgrelid::regclass AS name, CASE WHEN tgtype & 8 <> 0 THEN 'DELETE' ELSE 'UPDATE' END AS event
        FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
        WHERE tgname LIKE 'llm\_keeps\_%' AND proname = 'llm_refuse_change' AND tgqual IS NULL
            AND tgtype & 1 <> 0 AND tgtype & 24 <> 0
    LOOP
        EXECUTE format('REVOKE %s ON %s FROM llm_app', item.event, item.name);
    END LOOP;
END $$;

-- An open call is locked before it is closed, and a lock takes the right to update some column. A trigger refuses the
-- update itself.
DO $$
BEGIN
    IF to_regclass('public.llm_opencall') IS NOT NULL THEN
        GRANT UPDATE (id) ON llm_opencall TO llm_app;
    END IF;
END $$;

-- Only the owner writes Django's record of migrations.
DO $$
BEGIN
    IF to_regclass('public.django_migrations') IS NOT NULL THEN
        REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM llm_app;
    END IF;
END $$;

-- The reader: what is billed and why. No names of staff or end users, no sessions, tokens or one-time forms,
-- and no column that holds a secret or its digest.
DO $$
DECLARE
    item record;
BEGIN
    FOR item IN
        SELECT attrelid::regclass AS name, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS columns
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0 AND NOT attisdropped
            AND (relname LIKE 'llm\_%' OR relname LIKE 'billing\_%') AND relname !~ '(token|session|sign_?in|secondfactor|outbox|end_?user|usedform|auditentry|refusedwrite|idempotency|keptreply)'
            AND attname !~ '(^|_)(secret|secrets|password|digest|token)$'
        GROUP BY attrelid
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON %s TO llm_reader', item.columns, item.name);
    END LOOP;
END $$;
