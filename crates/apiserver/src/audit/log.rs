//! The audit log: one JSON line per event, written by a thread of its own so that requests never wait for a disk,
//! in files that are turned over by size and thrown away by age and number.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

/// Events that may wait to be written, as upstream's buffer.
const BUFFER: usize = 10_000;
/// The size of a file when none is asked for, in megabytes.
const DEFAULT_SIZE: u64 = 100;
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// Where events go and how long they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `-` is standard output.
    pub path: String,
    /// Megabytes.
    pub max_size: u64,
    /// Days; all are kept when zero.
    pub max_age: u64,
    /// Turned-over files; all are kept when zero.
    pub max_backups: usize,
    pub compress: bool,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way to the writer. Events beyond its buffer are dropped and counted.
pub struct Log {
    sender: Mutex<Option<SyncSender<Message>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    written: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl Log {
    pub fn open(options: &LogOptions) -> io::Result<Self> {
        let target = match options.path.as_str() {
            "-" => Target::Stdout,
            _ => Target::File(Rotated::open(options)?),
        };
        let (sender, receiver) = sync_channel(BUFFER);
        let dropped = Arc::new(AtomicU64::new(0));
        let failed = dropped.clone();
        let writer = std::thread::Builder::new()
            .name("audit-log".into())
            .spawn(move || write_all(target, &receiver, &failed))?;
        Ok(Self {
            sender: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            written: AtomicU64::new(0),
            dropped,
        })
    }

    /// Hands an event over; false when it had to be dropped.
    pub fn write(&self, line: Vec<u8>) -> bool {
        let sent =
            self.sender.lock().as_ref().is_some_and(|sender| sender.try_send(Message::Line(line)).is_ok());
        let counter = if sent { &self.written } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
        sent
    }

    /// Events taken, and events lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Waits until what was handed over so far is in the file.
    pub fn flush(&self, patience: Duration) {
        let Some(sender) = self.sender.lock().clone() else { return };
        let (done, wait) = sync_channel(1);
        if sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(patience);
        }
    }

    /// Writes what is left, and takes nothing more.
    pub fn close(&self) {
        self.sender.lock().take();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the audit log failed");
        }
    }
}

enum Target {
    Stdout,
    File(Rotated),
}

impl Target {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(line),
            Self::File(file) => file.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File(file) => file.out.flush(),
        }
    }
}

/// Writes as long as there is a sender; what came in meanwhile is one write.
fn write_all(mut target: Target, receiver: &Receiver<Message>, failed: &AtomicU64) {
    while let Ok(first) = receiver.recv() {
        let mut flushed = Vec::new();
        for message in std::iter::once(first).chain(receiver.try_iter().take(BUFFER)) {
            match message {
                Message::Line(line) => {
                    if let Err(error) = target.write(&line) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(%error, "an audit event could not be written");
                    }
                }
                Message::Flush(done) => flushed.push(done),
            }
        }
        if let Err(error) = target.flush() {
            tracing::error!(%error, "the audit log could not be written");
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// A file that is put aside under the time of day when it is full.
struct Rotated {
    path: PathBuf,
    out: BufWriter<File>,
    size: u64,
    limit: u64,
    options: LogOptions,
}

impl Rotated {
    fn open(options: &LogOptions) -> io::Result<Self> {
        let path = PathBuf::from(&options.path);
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let file = open(&path)?;
        let megabytes = if options.max_size == 0 { DEFAULT_SIZE } else { options.max_size };
        Ok(Self {
            size: file.metadata()?.len(),
            out: BufWriter::new(file),
            limit: megabytes.saturating_mul(1 << 20),
            options: options.clone(),
            path,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            self.turn_over()?;
        }
        self.out.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn turn_over(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let aside = self.backup_path(chrono::Utc::now());
        fs::rename(&self.path, &aside)?;
        self.out = BufWriter::new(open(&self.path)?);
        self.size = 0;
        if self.options.compress {
            compress(&aside)?;
        }
        self.forget_old()
    }

    /// Name and ending of the log's name, between which backups carry their time.
    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let ending = match text(self.path.extension()) {
            ending if ending.is_empty() => ending,
            ending => format!(".{ending}"),
        };
        (format!("{}-", text(self.path.file_stem())), ending)
    }

    fn backup_path(&self, mut at: chrono::DateTime<chrono::Utc>) -> PathBuf {
        let (head, tail) = self.name_parts();
        loop {
            let path = self.path.with_file_name(format!("{head}{}{tail}", at.format(TIME)));
            let compressed = PathBuf::from(format!("{}.gz", path.display()));
            if !path.exists() && !compressed.exists() {
                return path;
            }
            // two in one millisecond: the later one takes the next
            at += chrono::Duration::milliseconds(1);
        }
    }

    fn forget_old(&self) -> io::Result<()> {
        let (head, tail) = self.name_parts();
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let mut backups = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let time = plain.strip_prefix(&head).and_then(|rest| rest.strip_suffix(&tail));
            if let Some(at) = time.and_then(|time| chrono::NaiveDateTime::parse_from_str(time, TIME).ok()) {
                backups.push((at.and_utc(), entry.path()));
            }
        }
        backups.sort();
        backups.reverse();
        let oldest = chrono::DateTime::<chrono::Utc>::from(SystemTime::now())
            - chrono::Duration::days(
                i64::try_from(self.options.max_age).unwrap_or(i64::from(u16::MAX)).min(i64::from(u16::MAX)),
            );
        for (index, (at, path)) in backups.iter().enumerate() {
            let too_many = self.options.max_backups > 0 && index >= self.options.max_backups;
            let too_old = self.options.max_age > 0 && *at < oldest;
            if too_many || too_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let mut to =
        GzEncoder::new(open(&PathBuf::from(format!("{}.gz", path.display())))?, Compression::default());
    io::copy(&mut from, &mut to)?;
    to.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn full_files_are_put_aside_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        for compress in [false, true] {
            let options = LogOptions {
                path: path.display().to_string(),
                max_size: 1,
                max_backups: 2,
                compress,
                ..LogOptions::default()
            };
            let log = Log::open(&options).unwrap();
            let line = [vec![b'x'; (1 << 20) - 10], vec![b'\n']].concat();
            for _ in 0..5 {
                assert!(log.write(line.clone()));
            }
            log.close();
            assert!(!log.write(line), "closed");
            let names = names(directory.path());
            assert_eq!(names.len(), 3, "{names:?}");
            assert_eq!(fs::metadata(&path).unwrap().len(), (1 << 20) - 9);
            if compress {
                assert_eq!(names.iter().filter(|name| name.ends_with(".log.gz")).count(), 2, "{names:?}");
            }
        }
    }

    #[test]
    fn flushing_waits_for_what_was_handed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deeper/audit.log");
        let log =
            Log::open(&LogOptions { path: path.display().to_string(), ..LogOptions::default() }).unwrap();
        for index in 0..100 {
            log.write(format!("{index}\n").into_bytes());
        }
        log.flush(Duration::from_secs(10));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 100);
        assert_eq!(log.counts(), (100, 0));
    }
}
