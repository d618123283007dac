-- What db/history has made, and nothing else. Partitions go with their table.
set local lock_timeout = '5s';
drop table if exists graphile_worker._gworker_events, graphile_worker._gworker_stats, graphile_worker._gworker_journal,
  graphile_worker._gworker_migrations;
drop function if exists
  graphile_worker._gworker_record(text, boolean, text[], bigint[], text[], int[], float8[], float8[], text[], text[]),
  graphile_worker._gworker_record_action(text, bigint[], text),
  graphile_worker._gworker_record_stats(text, float8, text[], bigint[], bigint[], bigint[], bigint[], bigint[], float8[], float8[], text[], text[]),
  graphile_worker._gworker_add_up(text, text, timestamptz, timestamptz),
  graphile_worker._gworker_upkeep(interval, interval, interval);
