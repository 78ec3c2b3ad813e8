//! The configuration of the containerd that belongs to a node.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, Registry};

/// The name that the built-in pause image goes by.
pub const PAUSE_IMAGE: &str = "xebec.local/pause:1";

/// Where this containerd keeps what.
#[derive(Clone, Debug)]
pub struct Layout {
    pub base: PathBuf,
}

impl Layout {
    pub fn config(&self) -> PathBuf {
        self.base.join("config.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.base.join("containerd.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.base.join("containerd.log")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.base.join("containerd.pid")
    }

    pub fn registry_hosts(&self) -> PathBuf {
        self.base.join("certs.d")
    }
}

/// What the machine allows, as far as the configuration depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Without CAP_SYS_RESOURCE nobody may lower an OOM score, and every container would fail to start.
    pub restrict_oom_score_adj: bool,
    pub apparmor: bool,
}

/// A string for TOML's basic syntax.
fn quoted(path: &Path) -> String {
    let mut out = String::from("\"");
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The configuration file, in format version 2: containerd 1.6 knows no newer, and 2.x still reads it.
pub fn render(config: &Config, layout: &Layout, machine: Machine, cni_bin: &Path) -> String {
    let runtime = layout.base.join("runc");
    format!(
        r#"version = 2
root = {root}
state = {state}
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[debug]
  level = "warn"

[timeouts]
  "io.containerd.timeout.bolt.open" = "10s"

[grpc]
  address = {socket}

[ttrpc]
  address = {ttrpc}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {restrict}
  disable_apparmor = {no_apparmor}
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  tolerate_missing_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    discard_unpacked_layers = false

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = {runtime}
        SystemdCgroup = false

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {hosts}
"#,
        root = quoted(&layout.base.join("root")),
        state = quoted(&layout.base.join("state")),
        socket = quoted(&layout.socket()),
        ttrpc = quoted(&layout.base.join("containerd.sock.ttrpc")),
        restrict = machine.restrict_oom_score_adj,
        no_apparmor = !machine.apparmor,
        cni_bin = quoted(cni_bin),
        cni_conf = quoted(&config.paths().cni_config()),
        runtime = quoted(&runtime),
        hosts = quoted(&layout.registry_hosts()),
    )
}

/// `hosts.toml` of one registry.
pub fn render_hosts(registry: &Registry) -> String {
    let mut out = String::new();
    for mirror in &registry.mirrors {
        let _ = writeln!(out, "[host.{}]", quoted(Path::new(mirror)));
        let _ = writeln!(out, "  capabilities = [\"pull\", \"resolve\"]");
        if registry.skip_verify {
            let _ = writeln!(out, "  skip_verify = true");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_under_the_data_directory() {
        let config = Config::new("n1", [10, 0, 0, 1].into(), "/data \"x\"");
        let layout = Layout { base: config.paths().containerd() };
        let machine = Machine { restrict_oom_score_adj: true, apparmor: false };
        insta::assert_snapshot!(render(&config, &layout, machine, Path::new("/usr/lib/cni")));
    }

    #[test]
    fn mirrors_are_tried_in_order() {
        let registry = Registry {
            host: "docker.io".into(),
            mirrors: vec!["http://10.0.0.1:5000".into(), "https://mirror".into()],
            skip_verify: true,
        };
        insta::assert_snapshot!(render_hosts(&registry), @r#"
        [host."http://10.0.0.1:5000"]
          capabilities = ["pull", "resolve"]
          skip_verify = true
        [host."https://mirror"]
          capabilities = ["pull", "resolve"]
          skip_verify = true
        "#);
    }
}
