insert into chaos.done (n, job_id) values ((current_setting('gworker.payload')::json ->> 'n')::bigint, current_setting('gworker.job_id')::bigint);
deallocate all;
