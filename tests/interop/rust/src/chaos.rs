//! The Rust worker of the chaos program (tests/chaos): worker.mjs there in this
//! language. It records each run on the oracle, and works until SIGTERM.

use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobDefinition, TaskHandler, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::tasks::Text;
use crate::{Failure, say};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    connection_string: String,
    oracle: String,
    worker: String,
    concurrency: usize,
    poll_interval: u64,
}

#[derive(Clone, Debug)]
struct Oracle {
    pool: PgPool,
    worker: String,
}

#[derive(Deserialize, Serialize)]
struct Payload {
    n: i64,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    fails: i16,
}

/// Registers the tasks of the load.
macro_rules! recorded {
    ($($name:ident = $identifier:literal,)*) => {
        $(
            #[derive(Deserialize, Serialize)]
            #[serde(transparent)]
            struct $name(Payload);

            impl TaskHandler for $name {
                const IDENTIFIER: &'static str = $identifier;

                async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
                    run(&self.0, &ctx).await
                }
            }
        )*

        fn definitions() -> Vec<JobDefinition> {
            vec![$(<$name as TaskHandler>::definition()),*]
        }
    };
}

recorded! {
    Plain = "plain",
    Short = "short",
    Middling = "middling",
    Queued = "queued",
    Keyed = "keyed",
    Failing = "failing",
}

async fn run(payload: &Payload, ctx: &WorkerContext) -> Result<(), Text> {
    let to = ctx
        .get_ext::<Oracle>()
        .expect("the program adds the extension");
    let job = ctx.job();
    let mut queue = String::new();
    if let Some(id) = job.job_queue_id() {
        queue = ctx
            .get_ext::<Queues>()
            .expect("the program adds the extension")
            .name(*id)
            .await;
    }
    let id: i64 = sqlx::query_scalar(
        "insert into runs (n, job_id, queue, attempt, worker, worker_id) values ($1, $2, $3, $4, $5, $6) returning id",
    )
    .bind(payload.n)
    .bind(job.id())
    .bind(queue)
    .bind(i32::from(*job.attempts()))
    .bind(&to.worker)
    .bind(ctx.worker_id())
    .fetch_one(&to.pool)
    .await?;
    tokio::time::sleep(Duration::from_millis(payload.ms)).await;
    let failed = *job.attempts() <= payload.fails;
    sqlx::query("update runs set ended_at = clock_timestamp(), outcome = $2 where id = $1")
        .bind(id)
        .bind(if failed { "failed" } else { "ok" })
        .execute(&to.pool)
        .await?;
    if failed {
        return Err(Text::new("as the payload says"));
    }
    Ok(())
}

/// The queue's database, for the names of queues: a job has only the id.
#[derive(Clone, Debug)]
struct Queues(PgPool);

impl Queues {
    /// Asks until there is an answer, so that no run fails without a record of it.
    async fn name(&self, id: i32) -> String {
        loop {
            let name = sqlx::query_scalar(
                "select queue_name from graphile_worker._private_job_queues where id = $1",
            )
            .bind(id)
            .fetch_one(&self.0)
            .await;
            match name {
                Ok(name) => return name,
                Err(error) => eprintln!("asking for the name of queue {id}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub async fn work(order: Order) -> Result<(), Failure> {
    let oracle = PgPoolOptions::new()
        .max_connections(order.concurrency as u32)
        .connect(&order.oracle)
        .await?;
    let queues = PgPoolOptions::new()
        .max_connections(2)
        .connect(&order.connection_string)
        .await?;
    let worker = WorkerOptions::default()
        .database_url(&order.connection_string)
        .max_pg_conn(order.concurrency as u32 + 4)
        .concurrency(order.concurrency)
        .poll_interval(Duration::from_millis(order.poll_interval))
        .define_jobs(definitions())
        .add_extension(Oracle {
            pool: oracle,
            worker: order.worker,
        })
        .add_extension(Queues(queues))
        .init()
        .await?;
    say(json!({"event": "worker", "workerId": worker.worker_id()}));
    worker.run().await?;
    Ok(())
}
