//! What the handlers count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::sync::Notify;

use crate::alarm::Alarms;
use crate::{Payload, say};

/// How often a worker says how many jobs it has finished.
const COUNT_EVERY: Duration = Duration::from_millis(5);

/// The classes of the histogram are this much wider than the one before.
const CLASS_WIDTH: f64 = 1.02;

#[derive(Debug, Default)]
pub struct Tally {
    record: bool,
    started: AtomicI64,
    finished: AtomicI64,
    failed: AtomicI64,
    first: AtomicI64,
    busy: AtomicI64,
    seen: Mutex<Seen>,
    begun: Notify,
    alarms: Alarms,
}

#[derive(Debug, Default)]
struct Seen {
    latencies: HashMap<i32, i64>,
    worst: f64,
    times: Vec<(i64, i64)>,
}

#[derive(Serialize)]
struct Count {
    event: &'static str,
    at: i64,
    started: i64,
    finished: i64,
    failed: i64,
    first: i64,
    busy: i64,
}

#[derive(Serialize)]
struct End<'a> {
    #[serde(flatten)]
    count: Count,
    latencies: &'a HashMap<i32, i64>,
    worst: f64,
    times: &'a [(i64, i64)],
}

#[derive(Serialize)]
struct Event {
    event: &'static str,
    n: i64,
    at: i64,
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock after 1970")
        .as_nanos() as i64
}

impl Tally {
    pub fn new(record: bool) -> Arc<Self> {
        Arc::new(Self {
            record,
            ..Self::default()
        })
    }

    /// The task.
    pub async fn handle(&self, payload: Payload, attempt: i16) -> Result<(), String> {
        let (at, began) = (now(), Instant::now());
        if self.started.fetch_add(1, Relaxed) == 0 {
            self.first.store(at, Relaxed);
            self.begun.notify_one();
        }
        if payload.probe != 0 {
            say(&Event {
                event: "probe",
                n: payload.n,
                at,
            });
        }
        if self.record || payload.at != 0.0 {
            let mut seen = self.seen.lock().expect("nobody panics with it");
            if payload.at != 0.0 {
                seen.add((at / 1000) as f64 / 1000.0 - payload.at);
            }
            if self.record {
                seen.times.push((payload.n, at / 1000));
            }
        }
        if payload.ms > 0 {
            self.alarms
                .wait(Duration::from_millis(payload.ms))
                .await
                .map_err(|error| error.to_string())?;
        }
        self.busy
            .fetch_add(began.elapsed().as_nanos() as i64, Relaxed);
        let fails = i64::from(attempt) <= i64::from(payload.fail);
        if fails {
            self.failed.fetch_add(1, Relaxed);
        }
        self.finished.fetch_add(1, Relaxed);
        if fails {
            Err("as the payload asks".into())
        } else {
            Ok(())
        }
    }

    fn reply(&self, event: &'static str) -> Count {
        // What is finished is read before what is started, and so is never more.
        let finished = self.finished.load(Relaxed);
        Count {
            event,
            at: now(),
            finished,
            started: self.started.load(Relaxed),
            failed: self.failed.load(Relaxed),
            first: self.first.load(Relaxed),
            busy: self.busy.load(Relaxed),
        }
    }

    pub fn ready(&self) {
        say(&Event {
            event: "ready",
            n: 0,
            at: now(),
        });
    }

    /// Says now and then how many jobs are finished, from the first one on: a
    /// worker with nothing to do must not be woken by us.
    pub fn count(self: &Arc<Self>) {
        let tally = self.clone();
        tokio::spawn(async move {
            tally.begun.notified().await;
            let mut ticks = tokio::time::interval(COUNT_EVERY);
            let mut last = 0;
            loop {
                ticks.tick().await;
                let count = tally.reply("count");
                if count.finished != last {
                    last = count.finished;
                    say(&count);
                }
            }
        });
    }

    /// Says how it all ended, once no handler runs.
    pub fn end(&self) {
        let seen = self.seen.lock().expect("nobody panics with it");
        say(&End {
            count: self.reply("end"),
            latencies: &seen.latencies,
            worst: seen.worst,
            times: &seen.times,
        });
    }
}

impl Seen {
    /// Counts a time in its class of the histogram; classes begin at a microsecond.
    fn add(&mut self, ms: f64) {
        let class = ((ms * 1000.0).max(1.0).ln() / CLASS_WIDTH.ln()) as i32;
        *self.latencies.entry(class).or_default() += 1;
        self.worst = self.worst.max(ms);
    }
}
