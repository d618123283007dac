-- The example task on a database of your own: without a table, and under a name that none
-- of your tasks has, so that it takes no jobs of yours.
select format('Hello, %s!', coalesce(current_setting('gworker.payload')::json ->> 'name', 'stranger'));
