//! The tasks. Each keeps a record of its runs in interop.runs, says "started" once
//! the record of a run is there and "finished" once the run is through the gate.
//!
//! A payload with a "fail" member makes the run fail with that message, one with
//! "panic" makes it panic with it, and one with "exit" ends the process at once. A
//! batch task answers so for each element, and leaves out the results of elements
//! with "noResult".

use std::fmt;

use graphile_worker::{
    BatchTaskHandler, IntoBatchTaskHandlerResult, IntoTaskHandlerResult, JobDefinition,
    TaskHandler, WorkerContext,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::order::Order;
use crate::say;

/// Where runs are recorded, and as whose.
#[derive(Clone, Debug)]
pub struct Record {
    pub pool: PgPool,
    pub worker: String,
}

/// An error whose Debug form, which the crate stores, is the text alone.
pub struct Text(String);

impl Text {
    pub fn new(text: &str) -> Self {
        Text(text.to_string())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<sqlx::Error> for Text {
    fn from(error: sqlx::Error) -> Self {
        Text(format!("recording a run: {error}"))
    }
}

/// Registers the identifiers that the program knows: the crate takes them from
/// types. Each can be a task or a batch task.
macro_rules! recorded {
    ($($name:ident = $identifier:literal,)*) => {
        $(
            #[derive(Deserialize, Serialize)]
            #[serde(transparent)]
            struct $name(Value);

            impl TaskHandler for $name {
                const IDENTIFIER: &'static str = $identifier;

                async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
                    record(&ctx, ctx.payload()).await?;
                    outcome_of(&self.0)
                }
            }

            impl BatchTaskHandler for $name {
                const IDENTIFIER: &'static str = $identifier;

                async fn run_batch(items: Vec<Self>, ctx: WorkerContext) -> impl IntoBatchTaskHandlerResult {
                    if let Err(error) = record(&ctx, ctx.payload()).await {
                        return vec![Err(error)];
                    }
                    items.iter()
                        .filter(|item| item.0.get("noResult").is_none())
                        .map(|item| outcome_of(&item.0))
                        .collect()
                }
            }
        )*

        fn definition(identifier: &str) -> Option<JobDefinition> {
            match identifier {
                $($identifier => Some(<$name as TaskHandler>::definition()),)*
                _ => None,
            }
        }

        fn batch_definition(identifier: &str) -> Option<JobDefinition> {
            match identifier {
                $($identifier => Some(<$name as BatchTaskHandler>::definition()),)*
                _ => None,
            }
        }
    };
}

recorded! {
    Fast = "fast",
    Slow = "slow",
    Failing = "failing",
    Panicking = "panicking",
    Plain = "plain",
    Odd = "text/with:odd-Characters.1",
    Queued = "queued",
    Keyed = "keyed",
    Flagged = "flagged",
    Batch = "batch",
    Work = "work",
    Held = "held",
    Other = "other",
    Greet = "greet",
    X = "x",
    Fails = "fails",
    Here = "here",
    Task0 = "task0",
    Task1 = "task1",
    Task2 = "task2",
    Task3 = "task3",
    Task4 = "task4",
}

/// The one task with a payload of its own type: what a team writes for each runtime.
#[derive(Deserialize, Serialize)]
struct SendEmail {
    to: String,
    subject: String,
    cc: Option<String>, // null and missing are the same
    #[serde(default)]
    tags: Vec<String>, // may be missing, but not null
}

impl TaskHandler for SendEmail {
    const IDENTIFIER: &'static str = "send_email";

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        let read = serde_json::to_value(&self).map_err(|error| Text(error.to_string()))?;
        record(&ctx, &read).await
    }
}

pub fn definitions(order: &Order) -> Result<Vec<JobDefinition>, String> {
    let mut found = Vec::new();
    for identifier in &order.tasks {
        found.push(match identifier.as_str() {
            "send_email" => SendEmail::definition(),
            other => definition(other).ok_or(format!("this program has no task {other}"))?,
        });
    }
    for identifier in &order.batch_tasks {
        found.push(
            batch_definition(identifier).ok_or(format!("this program has no task {identifier}"))?,
        );
    }
    Ok(found)
}

fn outcome_of(payload: &Value) -> Result<(), Text> {
    if let Some(message) = payload.get("panic").and_then(Value::as_str) {
        panic!("{message}");
    }
    if payload.get("exit").is_some() {
        std::process::exit(70);
    }
    match payload.get("fail").and_then(Value::as_str) {
        Some(message) if !message.is_empty() => Err(Text(message.to_string())),
        _ => Ok(()),
    }
}

async fn record(ctx: &WorkerContext, payload: &Value) -> Result<(), Text> {
    let to = ctx
        .get_ext::<Record>()
        .expect("the program adds the extension");
    let job = ctx.job();
    let mut queue = String::new();
    if let Some(id) = job.job_queue_id() {
        let schema = ctx.schema().to_string();
        let sql = format!("select queue_name from {schema}._private_job_queues where id = $1");
        queue = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(id)
            .fetch_one(&to.pool)
            .await?;
    }
    let mut flags: Vec<&String> = job
        .flags()
        .as_ref()
        .and_then(Value::as_object)
        .map(|flags| flags.keys().collect())
        .unwrap_or_default();
    flags.sort();
    let seen = json!({
        "id": job.id(),
        "task": job.task_identifier(),
        "queue": queue,
        "payload": payload,
        "priority": job.priority(),
        "runAt": job.run_at(),
        "attempts": job.attempts(),
        "maxAttempts": job.max_attempts(),
        "key": job.key().as_deref().unwrap_or(""),
        "flags": flags,
    });
    let run: i64 = sqlx::query_scalar("select interop.start($1, $2)")
        .bind(&to.worker)
        .bind(&seen)
        .fetch_one(&to.pool)
        .await?;
    say(json!({"event": "started", "job": job.id(), "worker": ctx.worker_id()}));
    sqlx::query("select interop.finish($1)")
        .bind(run)
        .execute(&to.pool)
        .await?;
    say(json!({"event": "finished", "job": job.id(), "worker": ctx.worker_id()}));
    Ok(())
}
