-- Who may do what in a ledger's database. For the owner of the ledger, once it has made the tables, and again after an
-- upgrade:
--   psql -v ON_ERROR_STOP=1 -f docs/grants.sql "postgresql://synth_owner@db.example/ledger?sslmode=verify-full"
-- The roles are there already (docs/operations.md, "Who may do what in PostgreSQL").

-- Nobody else gets in.
DO $$ BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO synth_runner, synth_reader', current_database());
END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- Both read. A runner appends too: what nobody is granted here is to change or remove an entry.
GRANT USAGE ON SCHEMA synth_ledger TO synth_runner, synth_reader;
REVOKE ALL ON ALL TABLES IN SCHEMA synth_ledger FROM synth_runner, synth_reader;
GRANT SELECT ON synth_ledger.entries, synth_ledger.layout TO synth_runner, synth_reader;
GRANT INSERT ON synth_ledger.entries TO synth_runner;

-- A runner appends what runs append. Caps and overlaps are the owner's to set.
CREATE OR REPLACE FUNCTION synth_ledger.only_the_owner_caps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.kind NOT IN ('reserve', 'spend', 'settle', 'void')
     AND NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
    RAISE insufficient_privilege USING MESSAGE = 'caps and overlaps are the owner''s to set';
  END IF;
  RETURN NEW;
END $$;
DROP TRIGGER IF EXISTS entries_of_the_owner ON synth_ledger.entries;
CREATE TRIGGER entries_of_the_owner BEFORE INSERT ON synth_ledger.entries
  FOR EACH ROW EXECUTE FUNCTION synth_ledger.only_the_owner_caps();
ALTER TABLE synth_ledger.entries ENABLE ALWAYS TRIGGER entries_of_the_owner;
