//! What a test orders. The names are those of the Node side, as far as it has
//! the same.

use std::time::Duration;

use chrono::{DateTime, Utc};
use graphile_worker::{JobKeyMode, JobSpec, WorkerRecoveryConfig};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub connection_string: String,
    pub schema: Option<String>,
    #[serde(default)]
    pub worker: String,
    #[serde(default)]
    pub tasks: Vec<String>,
    #[serde(default)]
    pub batch_tasks: Vec<String>,
    #[serde(default = "one")]
    pub concurrency: usize,
    #[serde(default)]
    pub once: bool,
    #[serde(default)]
    pub forbidden_flags: Vec<String>,
    #[serde(default)]
    pub accepted_flags: Vec<String>,
    /// The size of the local queue; without it there is none.
    pub local_queue: Option<usize>,
    /// The delay of the batchers of completions and failures; without it there are none.
    pub batch_ms: Option<u64>,
    pub crontab: Option<String>,
    pub poll_ms: Option<u64>,
    pub grace_ms: Option<u64>,
    /// Recovery is off without it.
    pub recovery: Option<Recovery>,
    #[serde(default)]
    pub calls: Vec<Call>,
    #[serde(default)]
    pub administer: Vec<AdminCall>,
}

fn one() -> usize {
    1
}

impl Order {
    pub fn schema(&self) -> String {
        self.schema
            .clone()
            .unwrap_or_else(|| "graphile_worker".to_string())
    }
}

/// What is not given has the crate's default.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    pub heartbeat_ms: Option<u64>,
    pub sweep_ms: Option<u64>,
    pub threshold_ms: Option<u64>,
    pub delay_ms: Option<u64>,
}

impl From<&Recovery> for WorkerRecoveryConfig {
    fn from(recovery: &Recovery) -> Self {
        let mut config = WorkerRecoveryConfig::default().enabled(true);
        if let Some(milliseconds) = recovery.heartbeat_ms {
            config = config.heartbeat_interval(Duration::from_millis(milliseconds));
        }
        if let Some(milliseconds) = recovery.sweep_ms {
            config = config.sweep_interval(Duration::from_millis(milliseconds));
        }
        if let Some(milliseconds) = recovery.threshold_ms {
            config = config.sweep_threshold(Duration::from_millis(milliseconds));
        }
        if let Some(milliseconds) = recovery.delay_ms {
            config = config.recovery_delay(Duration::from_millis(milliseconds));
        }
        config
    }
}

/// One call of the client; one of the fields is set.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub add_job: Option<Spec>,
    /// The same as add_job here.
    pub quick_add_job: Option<Spec>,
    pub add_jobs: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub identifier: String,
    pub payload: Option<Value>,
    pub queue_name: Option<String>,
    pub run_at: Option<DateTime<Utc>>,
    pub max_attempts: Option<i16>,
    pub job_key: Option<String>,
    pub job_key_mode: Option<String>,
    pub priority: Option<i16>,
    pub flags: Option<Vec<String>>,
}

impl Spec {
    /// What the crate's client takes: the identifier, the payload and the rest.
    pub fn into_parts(self) -> Result<(String, Value, JobSpec), String> {
        let job_key_mode = match self.job_key_mode.as_deref() {
            None | Some("") => None,
            Some("replace") => Some(JobKeyMode::Replace),
            Some("preserve_run_at") => Some(JobKeyMode::PreserveRunAt),
            Some("unsafe_dedupe") => Some(JobKeyMode::UnsafeDedupe),
            Some(other) => return Err(format!("no such job key mode: {other}")),
        };
        let spec = JobSpec {
            queue_name: self.queue_name,
            run_at: self.run_at,
            max_attempts: self.max_attempts,
            job_key: self.job_key,
            job_key_mode,
            priority: self.priority,
            flags: self.flags,
        };
        Ok((
            self.identifier,
            self.payload.unwrap_or_else(|| json!({})),
            spec,
        ))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminCall {
    pub method: String,
    #[serde(default)]
    pub ids: Vec<i64>,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub options: AdminOptions,
    #[serde(default)]
    pub workers: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdminOptions {
    pub run_at: Option<DateTime<Utc>>,
    pub priority: Option<i16>,
    pub attempts: Option<i16>,
    pub max_attempts: Option<i16>,
    pub tasks: Vec<String>,
    pub job_key: String,
    pub threshold_ms: Option<u64>,
    pub delay_ms: Option<u64>,
    pub dry_run: bool,
}
