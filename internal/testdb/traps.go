package testdb

// Traps makes a schema that others may write to: it has every operator that a
// statement of ours might call, for each pair of types for which pg_catalog has none,
// so that it is a better match than what is meant. Functions are in it too that policies
// call, for a search path that has it before pg_catalog. Each raises an error.
const Traps = `
create schema trap;
create function trap.now() returns timestamptz language plpgsql as 'begin raise ''trapped by now''; end';
create function trap.hashtext(text) returns int language plpgsql as 'begin raise ''trapped by hashtext''; end';
create function trap.pg_backend_pid() returns int language plpgsql as 'begin raise ''trapped by pg_backend_pid''; end';
create function trap.current_setting(text, bool) returns text language plpgsql as 'begin raise ''trapped by current_setting''; end';
create function trap.json_array_elements_text(json) returns setof text language plpgsql as 'begin raise ''trapped by json_array_elements_text''; end';
do $$
declare
  o text; l text; r text; result text; n int := 0;
  types text[] := array['int2', 'int4', 'int8', 'float8', 'numeric', 'text', 'name', '"char"', 'bool', 'timestamptz',
    'interval', 'json', 'jsonb', 'oid', 'regclass', 'text[]', 'int4[]', 'int8[]'];
begin
  foreach l in array types loop
    foreach r in array types loop
      n := n + 1;
      execute format('create function trap.sprung%s(%s, %s) returns bool language plpgsql as %L', n, l, r,
        'begin raise ''trapped by % and %'', pg_typeof($1), pg_typeof($2); end');
      execute format('create function trap.caught%s(%s, %s) returns text language plpgsql as %L', n, l, r,
        'begin raise ''trapped by % and %'', pg_typeof($1), pg_typeof($2); end');
      foreach o in array array['=', '<>', '<', '<=', '>', '>=', '||', '->', '->>', '#>>', '#>', '?', '-', '+', '*', '/', '@>', '&&', '~~', '~', '&'] loop
        continue when exists (select from pg_catalog.pg_operator p
          where p.oprname = o and p.oprleft = l::regtype and p.oprright = r::regtype and p.oprnamespace = 'pg_catalog'::regnamespace);
        result := case when o in ('=', '<>', '<', '<=', '>', '>=', '?', '@>', '&&', '~~', '~') then 'sprung' else 'caught' end;
        execute format('create operator trap.%s (leftarg = %s, rightarg = %s, function = trap.%s)', o, l, r, result || n);
      end loop;
    end loop;
  end loop;
end $$`
