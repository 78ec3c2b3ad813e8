//! `/containerLogs`: a container's log, from where it is asked, and on as it grows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Server;
use super::routes::{Query, Response, text};
use crate::logs;
use crate::pod::spec;
use crate::runtime::Runtime;

/// While following, the file is looked at this often.
const FOLLOW_PERIOD: Duration = Duration::from_millis(50);
/// A chunk of the answer.
const CHUNK: usize = 32 << 10;
/// Chunks that wait for a slow reader.
const WAITING: usize = 4;

/// What is wanted of a log (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<usize>,
    since: Option<Timestamp>,
    limit: Option<u64>,
}

/// Why options are refused; upstream says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Unreadable,
    Invalid,
}

impl Refused {
    fn answer(self) -> Response {
        match self {
            Self::Unreadable => text(StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#),
            Self::Invalid => text(StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#),
        }
    }
}

/// The streams of a log can be asked for one by one behind a feature gate (`PodLogsQuerySplitStreams`) that is closed.
fn options(query: &Query, now: Timestamp) -> Result<Options, Refused> {
    let number =
        |name: &str| query.get(name).map(str::parse::<i64>).transpose().map_err(|_| Refused::Unreadable);
    let since_time: Option<Timestamp> =
        query.get("sinceTime").map(str::parse).transpose().map_err(|_| Refused::Unreadable)?;
    let (seconds, limit) = (number("sinceSeconds")?, number("limitBytes")?);
    let tail = match query.get("tail") {
        None => number("tailLines")?,
        Some("all") => None,
        Some(_) => number("tail")?,
    };
    let since = match (since_time, seconds) {
        (Some(_), Some(_)) | (None, Some(..1)) => return Err(Refused::Invalid),
        (Some(time), None) => Some(time),
        (None, Some(seconds)) => {
            Some(now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN))
        }
        (None, None) => None,
    };
    if tail.is_some_and(|lines| lines < 0)
        || limit.is_some_and(|bytes| bytes < 1)
        || query.get("stream").is_some()
    {
        return Err(Refused::Invalid);
    }
    Ok(Options {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail: tail.and_then(|lines| usize::try_from(lines).ok()),
        since,
        limit: limit.and_then(|bytes| u64::try_from(bytes).ok()),
    })
}

/// The id of the run whose log is meant, or why there is none, in upstream's words.
fn container_id(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = spec::name(pod);
    let whose = format!("container {container:?} in pod {name:?}");
    let status = pod.status.as_ref();
    let mut all = status.into_iter().flat_map(|s| {
        let lists = [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten()
    });
    let status: &ContainerStatus =
        all.find(|s| s.name == container).ok_or_else(|| format!("{whose} is not available"))?;
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let last_id = last.and_then(|t| t.container_id.clone()).filter(|id| !id.is_empty());
    let id = if previous {
        last_id.ok_or_else(|| format!("previous terminated {whose} not found"))?
    } else if state.running.is_some() {
        status.container_id.clone().unwrap_or_default()
    } else if let Some(ended) = &state.terminated {
        let own = ended.container_id.clone().filter(|id| !id.is_empty());
        own.or(last_id).ok_or_else(|| format!("{whose} is terminated"))?
    } else if last.is_some() {
        last_id.ok_or_else(|| format!("{whose} is terminated"))?
    } else if let Some(waiting) = &state.waiting {
        let reason = match waiting.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            other => other,
        };
        return Err(format!("{whose} is waiting to start: {reason}"));
    } else {
        return Err(format!("{whose} is waiting to start - no logs yet"));
    };
    Ok(id.split_once("://").map_or(id.clone(), |(_, id)| id.to_owned()))
}

pub async fn serve(server: &Server, namespace: &str, name: &str, container: &str, query: &Query) -> Response {
    let options = match options(query, Timestamp::now()) {
        Ok(options) => options,
        Err(refused) => return refused.answer(),
    };
    let Some(pod) = server.pods.find(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod does not exist: {namespace}/{name}"));
    };
    if spec::find_container(spec::spec(&pod), container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {name:?}"));
    }
    let id = match container_id(&pod, container, options.previous) {
        Ok(id) => id,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let runtime = server.shared.runtime.clone();
    let path = match runtime.container_status(&id).await {
        Ok(status) => PathBuf::from(status.log_path),
        Err(error) => {
            tracing::debug!(container = id, %error, "no log");
            let message =
                format!("unable to retrieve container logs for {}://{id}", server.shared.runtime_name);
            return text(StatusCode::BAD_REQUEST, message);
        }
    };
    let reader = match open(path.clone(), options.clone()).await {
        Ok(reader) => reader,
        Err(error) => {
            let message =
                format!("failed to try resolving symlinks in path {:?}: {error}", path.display().to_string());
            return text(StatusCode::BAD_REQUEST, message);
        }
    };
    let (sender, receiver) = mpsc::channel::<io::Result<Frame<Bytes>>>(WAITING);
    tokio::spawn(pump(reader, runtime, id, sender));
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync());
    let kind = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn open(path: PathBuf, options: Options) -> io::Result<Reader> {
    tokio::task::spawn_blocking(move || Reader::open(&path, options)).await.map_err(io::Error::other)?
}

/// Sends the log on until its end, or until nobody listens.
async fn pump(
    mut reader: Reader,
    runtime: Arc<dyn Runtime>,
    id: String,
    to: mpsc::Sender<io::Result<Frame<Bytes>>>,
) {
    let mut ended = false;
    loop {
        let step = tokio::task::spawn_blocking(move || {
            let chunk = reader.chunk();
            (reader, chunk)
        })
        .await;
        let Ok((back, chunk)) = step else { return };
        reader = back;
        match chunk {
            Ok(chunk) if !chunk.is_empty() => {
                if to.send(Ok(Frame::data(chunk.into()))).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(_) => {}
            Err(error) => {
                let _ = to.send(Err(error)).await;
                return;
            }
        }
        if reader.is_full() || !reader.options.follow || ended {
            return;
        }
        tokio::select! {
            () = to.closed() => return,
            () = tokio::time::sleep(FOLLOW_PERIOD) => {}
        }
        // after its end there is one more look: the last lines may have come in between
        let status = runtime.container_status(&id).await;
        ended = match status {
            Ok(status) => status.state != k8s_cri::v1::ContainerState::ContainerRunning as i32,
            Err(error) => error.is_not_found(),
        };
    }
}

/// A log from where it is wanted; knows when the file was rotated.
struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    inode: u64,
    options: Options,
    sent: u64,
    /// A line that is not finished yet.
    half: Vec<u8>,
    /// The last line was cut by the runtime and goes on.
    continues: bool,
}

impl Reader {
    fn open(path: &Path, options: Options) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let start = match options.tail {
            Some(lines) => logs::find_tail(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            inode,
            options,
            sent: 0,
            half: Vec::new(),
            continues: false,
        })
    }

    fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// What can be sent now; empty at the end of the file.
    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < CHUNK && !self.is_full() {
            let mut line = std::mem::take(&mut self.half);
            self.file.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                self.half = line;
                if !self.reopen_if_rotated()? {
                    break;
                }
                continue;
            }
            line.pop();
            let before = out.len();
            self.render(&line, &mut out);
            if let Some(limit) = self.options.limit {
                let room = usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
                out.truncate(before.saturating_add(room));
            }
            self.sent += (out.len() - before) as u64;
        }
        Ok(out)
    }

    /// Goes on with the new file when the old one was moved away and read to its end.
    fn reopen_if_rotated(&mut self) -> io::Result<bool> {
        if !self.options.follow {
            return Ok(false);
        }
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let inode = file.metadata()?.ino();
        if inode == self.inode {
            return Ok(false);
        }
        self.inode = inode;
        self.file = BufReader::new(file);
        self.half.clear();
        Ok(true)
    }

    fn render(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(parsed) = logs::parse(line) else { return };
        let too_old = self
            .options
            .since
            .is_some_and(|since| parsed.time.parse::<Timestamp>().is_ok_and(|at| at < since));
        if too_old {
            return;
        }
        if self.options.timestamps && !self.continues {
            out.extend_from_slice(parsed.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(parsed.text);
        if !parsed.partial {
            out.push(b'\n');
        }
        self.continues = parsed.partial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
        2026-01-01T00:00:02Z stderr F two\n\
        2026-01-01T00:00:03Z stdout P thr\n\
        2026-01-01T00:00:03Z stdout F ee\n\
        2026-01-01T00:00:04Z stdout F four\n";

    fn read(query: &str) -> String {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), LOG).expect("a log");
        let now = "2026-01-01T00:00:05Z".parse().expect("a time");
        let options = options(&Query::parse(Some(query)), now).expect("options");
        let mut reader = Reader::open(file.path(), options).expect("a reader");
        String::from_utf8(reader.chunk().expect("a chunk")).expect("text")
    }

    #[test]
    fn options_choose_the_lines() {
        let cases = [
            ("", "one\ntwo\nthree\nfour\n"),
            ("tailLines=1", "four\n"),
            ("tailLines=0", ""),
            ("timestamps=true&tailLines=3", "2026-01-01T00:00:03Z three\n2026-01-01T00:00:04Z four\n"),
            ("limitBytes=5", "one\nt"),
            ("sinceSeconds=2", "three\nfour\n"),
            ("sinceTime=2026-01-01T00:00:04Z", "four\n"),
            ("tail=1&tailLines=3", "four\n"),
            ("tail=all&tailLines=1", "one\ntwo\nthree\nfour\n"),
        ];
        for (query, want) in cases {
            assert_eq!(read(query), want, "{query}");
        }
        for (bad, refused) in [
            ("tailLines=x", Refused::Unreadable),
            ("tail=x", Refused::Unreadable),
            ("sinceTime=yesterday", Refused::Unreadable),
            ("tailLines=-1", Refused::Invalid),
            ("limitBytes=0", Refused::Invalid),
            ("sinceSeconds=0", Refused::Invalid),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:04Z", Refused::Invalid),
            ("stream=All", Refused::Invalid),
            ("stream=Stdout", Refused::Invalid),
        ] {
            assert_eq!(options(&Query::parse(Some(bad)), Timestamp::UNIX_EPOCH), Err(refused), "{bad}");
        }
    }

    #[test]
    fn following_goes_on_after_a_rotation() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z st").expect("a log");
        let options = Options { follow: true, ..Options::default() };
        let mut reader = Reader::open(&path, options).expect("a reader");
        let mut next = || String::from_utf8(reader.chunk().expect("a chunk")).expect("text");
        assert_eq!(next(), "one\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("a file");
        file.write_all(b"dout F two\n").expect("more");
        assert_eq!((next(), next()), ("two\n".to_owned(), String::new()));
        std::fs::rename(&path, folder.path().join("0.log.1")).expect("rotated");
        file.write_all(b"2026-01-01T00:00:03Z stdout F late\n").expect("more");
        assert_eq!(next(), "late\n");
        std::fs::write(&path, "2026-01-01T00:00:04Z stdout F new\n").expect("a log");
        assert_eq!(next(), "new\n");
    }

    #[test]
    fn what_has_no_log_says_why() {
        let check = |status: serde_json::Value, previous: bool| {
            let mut own = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0});
            own.as_object_mut().expect("a map").extend(status.as_object().expect("a map").clone());
            let pod: Pod = serde_json::from_value(
                json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [own]}}),
            )
            .expect("a pod");
            container_id(&pod, "c", previous)
        };
        let ended = json!({"terminated": {"exitCode": 1, "containerID": "containerd://old"}});
        let running =
            json!({"containerID": "containerd://new", "state": {"running": {}}, "lastState": ended});
        assert_eq!(check(running.clone(), false), Ok("new".into()));
        assert_eq!(check(running, true), Ok("old".into()));
        assert_eq!(
            check(json!({"state": {"running": {}}}), true),
            Err("previous terminated container \"c\" in pod \"p\" not found".into())
        );
        assert_eq!(
            check(json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}), false),
            Ok("old".into())
        );
        assert_eq!(
            check(json!({"state": {"waiting": {"reason": "ImagePullBackOff"}}}), false),
            Err("container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image".into())
        );
        assert_eq!(
            container_id(&Pod::default(), "x", false),
            Err("container \"x\" in pod \"\" is not available".into())
        );
    }
}
