//! The crate's WorkerUtils: adding jobs and administering them.

use std::time::Duration;

use graphile_worker::worker_utils::types::{CleanupTask, RescheduleJobOptions};
use graphile_worker::{RawJobSpec, SweepStaleWorkersOptions, WorkerUtils};
use serde_json::json;

use crate::order::{AdminCall, Order};
use crate::{Failure, say};

/// Adds jobs and prints the ids that were returned: {"event":"added","ids":[...]}.
pub async fn add(utils: &WorkerUtils, order: Order) -> Result<(), Failure> {
    let mut ids = Vec::new();
    for call in order.calls {
        if let Some(specs) = call.add_jobs {
            let mut raw = Vec::with_capacity(specs.len());
            for spec in specs {
                let (identifier, payload, spec) = spec.into_parts()?;
                raw.push(RawJobSpec {
                    identifier,
                    payload,
                    spec,
                });
            }
            ids.extend(utils.add_raw_jobs(&raw).await?.iter().map(|job| *job.id()));
        } else if let Some(spec) = call.add_job.or(call.quick_add_job) {
            let (identifier, payload, spec) = spec.into_parts()?;
            ids.push(*utils.add_raw_job(&identifier, payload, spec).await?.id());
        } else {
            return Err("a call of nothing".into());
        }
    }
    say(json!({"event": "added", "ids": ids}));
    Ok(())
}

/// Makes the calls and prints the ids of the jobs that each returned:
/// {"event":"administered","ids":[...]}; of a sweep also the workers and the count.
pub async fn administer(utils: &WorkerUtils, order: Order) -> Result<(), Failure> {
    for call in order.administer {
        if call.method == "sweepStaleWorkers" {
            sweep(utils, call).await?;
            continue;
        }
        let jobs = match call.method.as_str() {
            "completeJobs" => utils.complete_jobs(&call.ids).await?,
            "permanentlyFailJobs" => utils.permanently_fail_jobs(&call.ids, &call.reason).await?,
            "rescheduleJobs" => {
                let options = RescheduleJobOptions {
                    run_at: call.options.run_at,
                    priority: call.options.priority,
                    attempts: call.options.attempts,
                    max_attempts: call.options.max_attempts,
                };
                utils.reschedule_jobs(&call.ids, options).await?
            }
            "forceUnlockWorkers" => {
                let workers: Vec<&str> = call.workers.iter().map(String::as_str).collect();
                utils.force_unlock_workers(&workers).await?;
                Vec::new()
            }
            "removeJob" => {
                utils.remove_job(&call.options.job_key).await?;
                Vec::new()
            }
            "cleanup" => {
                utils.cleanup(&cleanup_tasks(&call.options.tasks)?).await?;
                Vec::new()
            }
            method => return Err(format!("the crate has no {method}").into()),
        };
        let mut ids: Vec<i64> = jobs.iter().map(|job| *job.id()).collect();
        ids.sort();
        say(json!({"event": "administered", "ids": ids}));
    }
    Ok(())
}

async fn sweep(utils: &WorkerUtils, call: AdminCall) -> Result<(), Failure> {
    let swept = utils
        .sweep_stale_workers(SweepStaleWorkersOptions {
            sweep_threshold: call.options.threshold_ms.map(Duration::from_millis),
            recovery_delay: call.options.delay_ms.map(Duration::from_millis),
            dry_run: call.options.dry_run,
        })
        .await?;
    say(json!({
        "event": "administered",
        "ids": [],
        "workers": swept.worker_ids,
        "recovered": swept.recovered_count,
    }));
    Ok(())
}

fn cleanup_tasks(names: &[String]) -> Result<Vec<CleanupTask>, Failure> {
    names
        .iter()
        .map(|name| match name.as_str() {
            "GC_TASK_IDENTIFIERS" => Ok(CleanupTask::GcTaskIdentifiers),
            "GC_JOB_QUEUES" => Ok(CleanupTask::GcJobQueues),
            "DELETE_PERMAFAILED_JOBS" => Ok(CleanupTask::DeletePermanentlyFailedJobs),
            other => Err(format!("no such cleanup task: {other}").into()),
        })
        .collect()
}
