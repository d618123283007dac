-- The schema itself. sqlc reads this file first; goose passes over number 0, and
-- the migrator runs it only where the schema is missing: to create one, even "if
-- not exists", asks for rights on the database that its owner may not have.
create schema if not exists graphile_worker;
