-- What a run may read of the source's database: one view, with the columns that schema.yaml declares. For the owner of
-- the table; write your own table and columns in place of these.
--   psql -v ON_ERROR_STOP=1 -f docs/grants_source.sql "postgresql://ward_owner@db.example/ward?sslmode=verify-full"
-- In run.yaml: source: {url: "${DB_URL}", query: "select * from synth_source.patients"}

CREATE SCHEMA synth_source;
CREATE VIEW synth_source.patients WITH (security_barrier) AS
  SELECT patient_nbr, age, bmi, sex, ward, grade, admitted, died FROM ward.patients;
GRANT USAGE ON SCHEMA synth_source TO synth_source;
GRANT SELECT ON synth_source.patients TO synth_source;
