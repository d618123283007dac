-- What db/history has made, and nothing else. Partitions go with their table.
set local lock_timeout = '5s';
drop table if exists graphile_worker._gworker_unique, graphile_worker._gworker_events, graphile_worker._gworker_stats, graphile_worker._gworker_journal,
  graphile_worker._gworker_migrations;
drop function if exists
  graphile_worker.gworker_add_unique(text, interval, json, text, text, text, timestamptz, int, text, int, text[], text),
  graphile_worker._gworker_unique_job(bigint),
  graphile_worker._gworker_unique_key(text, interval, json, text, text),
  graphile_worker._gworker_unique_settle(text[], text[], bigint[]),
  graphile_worker._gworker_unique_sweep(int),
  graphile_worker._gworker_unique_take(text[], text[], text[], interval[]),
  graphile_worker._gworker_unique_text(json, int),
  graphile_worker._gworker_record(text, boolean, text[], bigint[], text[], int[], float8[], float8[], text[], text[]),
  graphile_worker._gworker_record_action(text, bigint[], text),
  graphile_worker._gworker_record_stats(text, float8, text[], bigint[], bigint[], bigint[], bigint[], bigint[], float8[], float8[], text[], text[]),
  graphile_worker._gworker_add_up(text, text, timestamptz, timestamptz),
  graphile_worker._gworker_upkeep(interval, interval, interval);
