//! What takes long when a node starts, told to whoever shows it to a person. Knows no terminal.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

/// How many steps may wait to be shown; more are dropped, since nobody waits for a display.
const WAITING: usize = 64;

/// One thing that began or ended.
#[derive(Clone, Debug)]
pub enum Step {
    /// The container runtime is being started.
    StartingRuntime,
    RuntimeReady,
    /// An archive's images are being imported.
    Importing {
        archive: String,
        done: Bytes,
    },
    Imported {
        images: Vec<String>,
    },
    /// An archive that cannot be imported; others go on.
    ImportFailed {
        archive: String,
        error: String,
    },
}

/// How much of something is done; the total is zero until it is known.
#[derive(Clone, Debug, Default)]
pub struct Bytes(Arc<[AtomicU64; 2]>);

impl Bytes {
    pub fn set_total(&self, total: u64) {
        self.0[1].store(total, Ordering::Relaxed);
    }

    pub fn add(&self, more: u64) {
        self.0[0].fetch_add(more, Ordering::Relaxed);
    }

    /// Bytes done, and of how many.
    pub fn get(&self) -> (u64, u64) {
        (self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed))
    }
}

/// Where steps go; nowhere by default.
#[derive(Clone, Debug, Default)]
pub struct Progress(Option<mpsc::Sender<Step>>);

impl Progress {
    pub fn channel() -> (Self, mpsc::Receiver<Step>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(Some(sender)), receiver)
    }

    pub fn tell(&self, step: Step) {
        if let Some(sender) = &self.0 {
            // a display that does not keep up misses some
            let _ = sender.try_send(step);
        }
    }

    /// Tells of an import; the counter is for the one who does it.
    pub fn importing(&self, archive: &Path) -> Bytes {
        let done = Bytes::default();
        self.tell(Step::Importing { archive: file_name(archive), done: done.clone() });
        done
    }

    pub fn import_failed(&self, archive: &Path, error: &dyn std::fmt::Display) {
        self.tell(Step::ImportFailed { archive: file_name(archive), error: error.to_string() });
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
