-- Tasks that are SQL files: the frame around a file's own statements.

-- name: EnterSQLTask :exec
select
  set_config('gworker.payload', @payload::text, true),
  set_config('gworker.job_id', @job_id::text, true),
  set_config('gworker.task', @task::text, true),
  set_config('gworker.attempt', @attempt::text, true),
  set_config('gworker.max_attempts', @max_attempts::text, true),
  set_config('gworker.queue', @queue::text, true),
  set_config('gworker.key', @key::text, true),
  set_config('gworker.priority', @priority::text, true),
  set_config('gworker.run_at', @run_at::text, true);

-- name: CurrentSQLTask :one
-- The settings end with the transaction that made them, so this tells whether
-- the file's statements have left it.
select coalesce(current_setting('gworker.job_id', true), '')::text as job_id;

-- name: ResetSettings :exec
-- A file may have said "set" where it meant "set local".
reset all;

-- name: ResetRole :exec
reset session authorization;

-- name: CheckConstraintsNow :exec
-- What was deferred to the commit sees the settings of the file.
set constraints all immediate;
