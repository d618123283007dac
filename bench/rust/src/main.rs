//! Graphile Worker RS as one side of a measurement: see protocol.go for what
//! comes in and goes out, and tally.go, which tally.rs does the same as.

mod alarm;
mod tally;

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::sync::Arc;
use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use tally::Tally;

const SCHEMA: &str = "graphile_worker";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    peer: String,
    url: String,
    role: String,
    concurrency: usize,
    record: bool,
}

/// What each job carries.
#[derive(Deserialize, Serialize)]
pub struct Payload {
    n: i64,
    #[serde(default)]
    at: f64,
    #[serde(default)]
    probe: i64,
    #[serde(default)]
    ms: u64,
    #[serde(default)]
    fail: i16,
}

impl TaskHandler for Payload {
    const IDENTIFIER: &'static str = "bench";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let tally = context
            .get_ext::<Arc<Tally>>()
            .expect("the worker has a tally");
        tally.handle(self, *context.job().attempts()).await
    }
}

pub fn say(reply: &impl Serialize) {
    let mut line = serde_json::to_vec(reply).expect("numbers and strings");
    line.push(b'\n');
    // Who reads it is gone, or sees that it is missing.
    let _ = stdout().lock().write_all(&line);
}

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        eprintln!("{error}");
        std::process::exit(1); // and do not wait for the thread that reads
    }
    std::process::exit(0);
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    match order.role.as_str() {
        "migrate" => migrate(order).await,
        "work" => work(order).await,
        role => Err(format!("no side {} for {role}", order.peer).into()),
    }
}

/// Installs the crate's schema with its own migrations, which starting a worker runs.
async fn migrate(order: Order) -> Result<(), Box<dyn Error>> {
    WorkerOptions::default()
        .database_url(&order.url)
        .schema(SCHEMA)
        .init()
        .await?
        .create_utils()
        .migrate()
        .await?;
    Ok(())
}

async fn work(order: Order) -> Result<(), Box<dyn Error>> {
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = stdin().lock().read_line(&mut String::new());
        let _ = stop.send(());
    });
    let tally = Tally::new(order.record);
    let mut options = WorkerOptions::default()
        .database_url(&order.url)
        .schema(SCHEMA)
        .concurrency(order.concurrency)
        .listen_os_shutdown_signals(false)
        .add_extension(tally.clone())
        .define_job::<Payload>();
    if order.peer == "rust-batch" {
        // README.md says where the crate's documentation has these from.
        let delay = Duration::from_millis(5);
        options = options
            .local_queue(LocalQueueConfig::default().with_size(5000))
            .complete_job_batch_delay(delay)
            .fail_job_batch_delay(delay);
    }
    let worker = Arc::new(options.init().await?);
    tally.count();
    tally.ready();
    let running = tokio::spawn({
        let worker = worker.clone();
        async move { worker.run().await }
    });
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => {
            ended??; // a database error ends it
            return Err("the worker ended by itself".into());
        }
        _ = stopped => worker.request_shutdown(),
    }
    running.await??;
    tally.end();
    Ok(())
}
