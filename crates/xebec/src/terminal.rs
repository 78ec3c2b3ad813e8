//! The few lines a user sees: where the cluster is, what takes long, that it is ready, how to go on.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use kubelet::progress::{Bytes, Step};
use tokio::sync::mpsc;

/// What ends sooner is not worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
/// How often a line is drawn anew on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line tells how far it is where none can be drawn anew.
const REPORT: Duration = Duration::from_secs(10);

/// Tells of one start.
pub struct Terminal {
    started: Instant,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis < 1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

impl Terminal {
    pub fn api_ready(&self, address: &str, kubeconfig: &Path) {
        println!("API server   ready after {} on {address}", seconds(self.started.elapsed()));
        println!("kubeconfig   {}", kubeconfig.display());
    }

    pub fn node_ready(&self, name: &str) {
        println!("node         {name} Ready after {}", seconds(self.started.elapsed()));
    }

    pub fn how_to_go_on(&self, kubeconfig: &Path) {
        println!();
        println!("  export KUBECONFIG={}", kubeconfig.display());
        println!("  kubectl get nodes");
        println!();
    }

    pub fn stopping(&self) {
        println!("stopping     (again to stop at once)");
    }
}

/// Shows what takes long until the other side is gone: one line that is drawn anew on a terminal, a line now and then
/// elsewhere.
pub async fn show_progress(mut steps: mpsc::Receiver<Step>) {
    let mut line = Line { drawn: false, terminal: std::io::stdout().is_terminal() };
    let mut now: Option<Doing> = None;
    loop {
        let period = if line.terminal { REDRAW } else { WORTH_A_LINE };
        match tokio::time::timeout(period, steps.recv()).await {
            Ok(None) => return line.clear(),
            Ok(Some(step)) => {
                let was_shown = now.as_ref().is_some_and(|doing| doing.told.is_some());
                if let Some(text) = ended(&step, was_shown) {
                    line.clear();
                    println!("{text}");
                }
                now = Doing::begin(step);
                if now.is_none() {
                    line.clear();
                }
            }
            Err(_) => {
                if let Some(doing) = &mut now
                    && doing.is_due(line.terminal)
                {
                    line.draw(&doing.text());
                }
            }
        }
    }
}

/// The line of what has ended: what took long, and what failed.
fn ended(step: &Step, was_shown: bool) -> Option<String> {
    match step {
        Step::Imported { images } if was_shown && !images.is_empty() => {
            Some(format!("image        {}", images.join(", ")))
        }
        Step::ImportFailed { archive, error } => Some(format!(
            "image        {archive} cannot be imported: {error}; put a whole archive in its place"
        )),
        _ => None,
    }
}

/// What goes on now.
struct Doing {
    what: What,
    since: Instant,
    told: Option<Instant>,
}

enum What {
    Runtime,
    Import { archive: String, done: Bytes },
}

impl Doing {
    fn begin(step: Step) -> Option<Self> {
        let what = match step {
            Step::StartingRuntime => What::Runtime,
            Step::Importing { archive, done } => What::Import { archive, done },
            Step::RuntimeReady | Step::Imported { .. } | Step::ImportFailed { .. } => return None,
        };
        Some(Self { what, since: Instant::now(), told: None })
    }

    fn is_due(&mut self, terminal: bool) -> bool {
        let due = match self.told {
            None => self.since.elapsed() >= WORTH_A_LINE,
            Some(told) => terminal || told.elapsed() >= REPORT,
        };
        if due {
            self.told = Some(Instant::now());
        }
        due
    }

    fn text(&self) -> String {
        let time = seconds(self.since.elapsed());
        match &self.what {
            What::Runtime => format!("containerd   starting for {time}"),
            What::Import { archive, done } => match done.get() {
                (_, 0) => format!("image        reading {archive} for {time}"),
                // containerd unpacks after it has all
                (done, total) if done >= total => format!("image        unpacking {archive}, {time} so far"),
                (done, total) => {
                    format!(
                        "image        importing {archive}: {} of {} MB",
                        done / 1_000_000,
                        total / 1_000_000
                    )
                }
            },
        }
    }
}

/// The last line of the screen.
struct Line {
    terminal: bool,
    drawn: bool,
}

impl Line {
    fn draw(&mut self, text: &str) {
        if self.terminal {
            print!("\r\x1b[K{text}");
            let _ = std::io::stdout().flush();
            self.drawn = true;
        } else {
            println!("{text}");
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            print!("\r\x1b[K");
            let _ = std::io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_in_a_line() {
        let done = Bytes::default();
        let import = Step::Importing { archive: "big.tar".into(), done: done.clone() };
        let doing = Doing::begin(import).unwrap();
        assert!(doing.text().contains("reading big.tar"), "{}", doing.text());
        done.set_total(900_000_000);
        done.add(120_000_000);
        assert_eq!(doing.text(), "image        importing big.tar: 120 of 900 MB");
        done.add(780_000_000);
        assert!(doing.text().contains("unpacking big.tar"), "{}", doing.text());
        let failed = Step::ImportFailed { archive: "cut.tar".into(), error: "it ends too early".into() };
        assert!(ended(&failed, false).unwrap().contains("cut.tar cannot be imported: it ends too early"));
        assert!(Doing::begin(failed).is_none());
    }

    #[test]
    fn what_is_short_gets_no_line() {
        let mut doing = Doing::begin(Step::StartingRuntime).unwrap();
        assert!(!doing.is_due(true) && !doing.is_due(false));
        doing.since = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        assert!(doing.is_due(false) && !doing.is_due(false), "once, then again after a while");
        assert!(doing.is_due(true));
    }
}
