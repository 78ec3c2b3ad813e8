//! exec, attach, cp, port-forward and logs with every kubectl there is, over SPDY and over WebSocket.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Cluster, kubectls, or_skip};

const SOON: Duration = Duration::from_secs(30);

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: xebec.local/demo:1
      command: [sh, -c, "mkdir /www; echo page > /www/index.html; dd if=/dev/urandom of=/www/large bs=65536 count=96; exec httpd -f -p 8080 -h /www"]
---
apiVersion: v1
kind: Pod
metadata: {name: parrot}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: c
      image: xebec.local/demo:1
      stdin: true
      command: [sh, -c, "while read line; do echo heard $line; done"]
---
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  restartPolicy: Never
  containers:
    - name: c
      image: xebec.local/demo:1
      command: [sh, -c, "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"]
"#;

/// One kubectl, and whether it may use WebSockets.
struct Client<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
    websockets: bool,
}

struct Said {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Client<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.cluster.kubectl_of(&self.program, arguments);
        for variable in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(variable, self.websockets.to_string());
        }
        command
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || {
            // one that ends early has no use for the rest
            let _ = stdin.write_all(&input);
        });
        let out = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        Said {
            code: out.status.code(),
            stdout: out.stdout,
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    fn exec(&self) {
        let large: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let said = self.run(&["exec", "-i", "web", "--", "cat"], &large);
        assert_eq!(said.code, Some(0), "{self}: {}", said.stderr);
        assert!(said.stdout == large, "{self}: {} bytes came back", said.stdout.len());

        let said = self.run(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
        let stdout = String::from_utf8_lossy(&said.stdout);
        assert_eq!((said.code, stdout.as_ref()), (Some(7), "out\n"), "{self}: {}", said.stderr);
        assert_eq!(said.stderr, "err\ncommand terminated with exit code 7\n", "{self}");

        let said = self.run(&["exec", "web", "--", "no-such-program"], b"");
        assert!(said.code != Some(0) && said.stderr.contains("no-such-program"), "{self}: {}", said.stderr);
        let said = self.run(&["exec", "nobody", "--", "true"], b"");
        assert_eq!(said.stderr, "Error from server (NotFound): pods \"nobody\" not found\n", "{self}");
        let said = self.run(&["exec", "web", "-c", "x", "--", "true"], b"");
        assert!(said.stderr.contains("container x is not valid for pod web"), "{self}: {}", said.stderr);
    }

    /// A terminal that changes its size while a command runs in it.
    fn terminal(&self) {
        let pty = nix::pty::openpty(None, None).unwrap();
        let name = nix::unistd::ttyname(&pty.slave).unwrap();
        let resize = |rows: &str, columns: &str| {
            let set =
                Command::new("stty").arg("-F").arg(&name).args(["rows", rows, "cols", columns]).status();
            assert!(set.unwrap().success());
        };
        resize("33", "101");
        let script = "trap 'exit 5' INT; while :; do stty size 2>/dev/null; sleep 0.1; done";
        let inner = self.command(&["exec", "-it", "web", "--", "sh", "-c", script]);
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let slave = File::from(pty.slave);
        command
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        drop((command, slave));
        let mut master = File::from(pty.master);
        let mut screen = Screen::new(master.try_clone().unwrap());
        screen.wait_for("33 101", self);
        resize("24", "77");
        screen.wait_for("24 77", self);
        // control-C
        master.write_all(b"\x03").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(5), "{self}: {}", screen.text());
    }

    fn attach(&self) {
        let mut command = self.command(&["attach", "-i", "parrot"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut screen = Screen::new(child.stdout.take().unwrap());
        for word in ["one", "two"] {
            stdin.write_all(format!("{word}\n").as_bytes()).unwrap();
            screen.wait_for(&format!("heard {word}\n"), self);
        }
        end(child);
    }

    fn copy(&self) {
        let file = self.cluster.scratch("file");
        let content: Vec<u8> = (0..400_000u32).map(|i| (i * 7 % 253) as u8).collect();
        std::fs::write(&file, &content).unwrap();
        let back = self.cluster.scratch("back");
        let _ = std::fs::remove_file(&back);
        for arguments in [["cp", path(&file), "web:/tmp/file"], ["cp", "web:/tmp/file", path(&back)]] {
            let said = self.run(&arguments, b"");
            assert_eq!(said.code, Some(0), "{self}: {}", said.stderr);
        }
        assert!(std::fs::read(&back).unwrap() == content, "{self}: what comes back is what was copied");
    }

    fn logs(&self) {
        let said = self.run(&["logs", "-f", "talker"], b"");
        let stdout = String::from_utf8_lossy(&said.stdout);
        assert_eq!(stdout, "line 1\nline 2\nline 3\nline 4\nline 5\n", "{self}: {}", said.stderr);
    }

    fn port_forward(&self) {
        let log = self.cluster.scratch("forward");
        let out = File::create(&log).unwrap();
        let mut command = self.command(&["port-forward", "web", "18080:8080", "18009:9"]);
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap();
        let text = || std::fs::read_to_string(&log).unwrap();
        let start = Instant::now();
        while !text().contains("127.0.0.1:18009") {
            assert!(start.elapsed() < SOON, "{self}: {}", text());
            std::thread::sleep(Duration::from_millis(50));
        }
        // into files: kubectl has one queue for all connections, and a reader that waits holds up the others
        let fetch = |(index, page): (usize, &str)| {
            let file = self.cluster.scratch(&format!("page-{index}"));
            let mut command = self.cluster.network.command("timeout");
            let address = format!("http://127.0.0.1:18080/{page}");
            command.args(["20", "busybox", "wget", "-Y", "off", "-q", "-O", "-", &address]);
            command.stdout(File::create(&file).unwrap()).stderr(Stdio::null());
            (command.spawn().unwrap(), file)
        };
        let done = |(mut child, file): (Child, PathBuf)| {
            assert!(child.wait().unwrap().success(), "{self}: {}", text());
            std::fs::read(file).unwrap()
        };
        assert_eq!(done(fetch((0, ""))), b"page\n", "{self}: {}", text());
        let several: Vec<_> =
            ["large", "", "large", "", "", "large"].into_iter().enumerate().map(fetch).collect();
        let pages: Vec<Vec<u8>> = several.into_iter().map(done).collect();
        assert_eq!((pages[0].len(), pages[1].as_slice()), (96 * 65536, &b"page\n"[..]), "{self}: {}", text());
        assert!(pages[0] == pages[2] && pages[0] == pages[5] && pages[1] == pages[4], "{self}: {}", text());

        let mut closed = self.cluster.network.command("timeout");
        closed.args(["10", "busybox", "wget", "-Y", "off", "-q", "-O", "-", "http://127.0.0.1:18009/"]);
        let out = closed.output().unwrap();
        assert!(!out.status.success(), "{self}: nobody listens there");
        let start = Instant::now();
        while !text().contains("error forwarding port 9 to pod") {
            assert!(start.elapsed() < SOON, "{self}: {}", text());
            std::thread::sleep(Duration::from_millis(50));
        }
        end(child);
    }
}

impl std::fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.websockets { "with" } else { "without" };
        write!(f, "{} {how} WebSockets", self.program.display())
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a program writes, as it comes.
struct Screen {
    text: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Screen {
    fn new(mut from: impl Read + Send + 'static) -> Self {
        let text = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let to = text.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size) = from.read(&mut piece)
                && size > 0
            {
                to.lock().unwrap().extend_from_slice(&piece[..size]);
            }
        });
        Self { text }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn wait_for(&mut self, what: &str, who: &Client<'_>) {
        let start = Instant::now();
        while !self.text().contains(what) {
            assert!(start.elapsed() < SOON, "{who}: no {what:?} in {:?}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How many streams of each kind came over WebSocket so far.
fn counted(cluster: &Cluster) -> (u64, u64) {
    let metrics = cluster.run(&["get", "--raw", "/metrics"]).unwrap();
    let sum = |name: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    (sum("apiserver_stream_translator_requests_total"), sum("apiserver_stream_tunnel_requests_total"))
}

#[test]
fn every_kubectl_streams_over_spdy_and_over_websocket() {
    or_skip!();
    let cluster = Cluster::with_node().unwrap();
    cluster.apply(PODS).unwrap();
    cluster.run(&["wait", "--for=condition=Ready", "pod/web", "pod/parrot", "--timeout=60s"]).unwrap();
    for (program, minor) in kubectls() {
        for websockets in [false, true] {
            // kubectl speaks WebSocket since 1.29, and forwards ports with it since 1.30
            if websockets && minor.is_some_and(|minor| minor < 29) {
                continue;
            }
            let before = counted(&cluster);
            let client = Client { cluster: &cluster, program: program.clone(), websockets };
            let start = Instant::now();
            client.exec();
            client.terminal();
            client.attach();
            client.copy();
            client.logs();
            client.port_forward();
            let after = counted(&cluster);
            let (translated, tunneled) = (after.0 - before.0, after.1 - before.1);
            eprintln!("{client}: {translated} commands, {tunneled} forwards, {:?}", start.elapsed());
            if websockets {
                assert!(translated >= 5, "{client}: {translated} commands came over WebSocket");
                assert_eq!(tunneled > 0, minor.is_none_or(|minor| minor >= 30), "{client}: {tunneled}");
            } else {
                assert_eq!((translated, tunneled), (0, 0), "{client}");
            }
        }
    }
}
