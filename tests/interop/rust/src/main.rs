//! The Rust side of gworker's interop tests: the published graphile_worker crate
//! under tasks of ours that record every run in interop.runs.
//!
//! The one argument says what to do: worker, client, admin, migrate or chaos, which
//! is a worker of another program (chaos.rs). The order is one line of JSON on stdin;
//! events go to stdout, a line of JSON each, and everything meant for people to stderr.
//! A worker works until stdin ends or, with "once", until nothing is runnable.

mod chaos;
mod order;
mod tasks;
mod utils;

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use graphile_worker::{LocalQueueConfig, WorkerOptions, WorkerRecoveryConfig, WorkerUtils};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;

use order::Order;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Tells the test something.
pub fn say(event: Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}");
    let _ = out.flush();
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .init();
    let status = match run().await {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("interop-rust: {error} ({error:?})");
            1
        }
    };
    // Not by returning: the thread that waits for stdin's end is still there.
    std::process::exit(status);
}

async fn run() -> Result<(), Failure> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if what == "chaos" {
        return chaos::work(serde_json::from_str(&line)?).await;
    }
    let order: Order = serde_json::from_str(&line)?;
    match what.as_str() {
        "worker" => work(order).await,
        "client" => utils::add(&connect(&order, 2).await?, order).await,
        "admin" => utils::administer(&connect(&order, 2).await?, order).await,
        "migrate" => Ok(connect(&order, 2).await?.migrate().await?),
        _ => Err("say worker, client, admin, migrate or chaos".into()),
    }
}

async fn connect(order: &Order, connections: u32) -> Result<WorkerUtils, Failure> {
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .connect(&order.connection_string)
        .await?;
    Ok(WorkerUtils::new(pool, order.schema()))
}

async fn work(order: Order) -> Result<(), Failure> {
    let record = PgPoolOptions::new()
        .max_connections(order.concurrency as u32 + order.local_queue.unwrap_or(0) as u32)
        .connect(&order.connection_string)
        .await?;
    let mut options = WorkerOptions::default()
        .database_url(&order.connection_string)
        .max_pg_conn(order.concurrency as u32 + 6)
        .schema(order.schema())
        .concurrency(order.concurrency)
        .define_jobs(tasks::definitions(&order)?)
        .add_extension(tasks::Record {
            pool: record,
            worker: order.worker.clone(),
        })
        .listen_os_shutdown_signals(false)
        .shutdown_signal(end_of_stdin());
    if let Some(milliseconds) = order.grace_ms {
        options = options.shutdown_grace_period(Duration::from_millis(milliseconds));
    }
    if let Some(milliseconds) = order.poll_ms {
        options = options.poll_interval(Duration::from_millis(milliseconds));
    }
    if let Some(size) = order.local_queue {
        options = options.local_queue(LocalQueueConfig::default().with_size(size));
    }
    if let Some(milliseconds) = order.batch_ms {
        let delay = Duration::from_millis(milliseconds);
        options = options
            .complete_job_batch_delay(delay)
            .fail_job_batch_delay(delay);
    }
    for flag in &order.forbidden_flags {
        options = options.add_forbidden_flag(flag);
    }
    #[cfg(feature = "accepted-flags")]
    for flag in &order.accepted_flags {
        options = options.add_accepted_flag(flag);
    }
    #[cfg(not(feature = "accepted-flags"))]
    if !order.accepted_flags.is_empty() {
        return Err("this release knows no accepted flags".into());
    }
    if let Some(crontab) = &order.crontab {
        options = options.with_cron(crontab.as_str())?;
    }
    if let Some(recovery) = &order.recovery {
        options = options.worker_recovery(WorkerRecoveryConfig::from(recovery));
    }
    let worker = options.init().await?;
    say(json!({"event": "ready"}));
    if order.once {
        worker.run_once().await?;
    } else {
        worker.run().await?;
    }
    Ok(())
}

/// Ends when the test closes stdin, or is gone.
fn end_of_stdin() -> impl Future<Output = ()> + Send + 'static {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read(&mut [0; 1]);
        let _ = ended.send(());
    });
    async move {
        let _ = end.await;
    }
}
