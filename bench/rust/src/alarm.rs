//! Waiting as for an answer from the network: for the kernel's timer to make a
//! file readable, as the sides in Go do. Tokio's own timers fire in whole
//! milliseconds, which is no fault of a queue.

use std::io;
use std::time::Duration;

#[cfg(target_os = "linux")]
mod kernel {
    use std::os::fd::OwnedFd;
    use std::sync::Mutex;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::*;

    /// The alarms that nobody waits for.
    #[derive(Debug, Default)]
    pub struct Alarms(Mutex<Vec<AsyncFd<OwnedFd>>>);

    impl Alarms {
        pub async fn wait(&self, time: Duration) -> io::Result<()> {
            let idle = self.0.lock().expect("nobody panics with it").pop();
            let alarm = match idle {
                Some(alarm) => alarm,
                None => {
                    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
                    let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
                    // SAFETY: an OwnedFd is the same open file until it is dropped.
                    unsafe { AsyncFd::register(file)? }
                }
            };
            let once = Itimerspec {
                it_interval: Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                },
                it_value: Timespec {
                    tv_sec: time.as_secs() as i64,
                    tv_nsec: time.subsec_nanos().into(),
                },
            };
            timerfd_settime(alarm.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut ready = alarm.readable().await?;
                let mut count = [0; 8];
                match ready.try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut count)?)) {
                    Ok(read) => {
                        read?;
                        break;
                    }
                    Err(_) => continue, // not yet
                }
            }
            self.0.lock().expect("nobody panics with it").push(alarm);
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::*;

    #[derive(Debug, Default)]
    pub struct Alarms;

    impl Alarms {
        pub async fn wait(&self, time: Duration) -> io::Result<()> {
            tokio::time::sleep(time).await;
            Ok(())
        }
    }
}

pub use kernel::Alarms;
