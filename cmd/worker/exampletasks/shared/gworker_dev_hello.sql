-- The example task where the database is somebody's own: under a name that no
-- other task has, so that it takes no jobs of theirs, and without a table.
select format('Hello, %s!', coalesce(current_setting('gworker.payload')::json ->> 'name', 'stranger'));
