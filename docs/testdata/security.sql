-- The roles of docs/security.md.
do $$
begin
  perform pg_advisory_xact_lock(1);
  create role web;
  create role jobs;
  create role "On Call";
exception when duplicate_object then null;
end $$;
