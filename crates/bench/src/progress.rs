//! How far a phase is, on standard error: one line that is written over on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

const ON_A_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(5);

/// Says how far something is, until it is dropped.
pub struct Progress {
    done: Arc<AtomicU64>,
    telling: JoinHandle<()>,
}

impl Progress {
    /// `total` where it is known beforehand.
    pub fn begin(what: impl Into<String>, total: Option<u64>) -> Self {
        let (what, done) = (what.into(), Arc::new(AtomicU64::new(0)));
        let counted = done.clone();
        let telling = tokio::spawn(async move {
            let (begun, terminal) = (Instant::now(), std::io::stderr().is_terminal());
            loop {
                tokio::time::sleep(if terminal { ON_A_TERMINAL } else { ELSEWHERE }).await;
                let text = line(&what, counted.load(Ordering::Relaxed), total, begun.elapsed());
                match terminal {
                    true => eprint!("\r\x1b[K{text}"),
                    false => eprintln!("{text}"),
                }
                let _ = std::io::stderr().flush();
            }
        });
        Self { done, telling }
    }

    pub fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.telling.abort();
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let rate = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
    format!("  {what}: {done}{of} in {seconds:.0} s, {rate:.0}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_count_and_rate() {
        assert_eq!(line("get", 500, None, Duration::from_secs(5)), "  get: 500 in 5 s, 100/s");
        assert_eq!(line("pods", 0, Some(9), Duration::ZERO), "  pods: 0 of 9 in 0 s, 0/s");
    }
}
