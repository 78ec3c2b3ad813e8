//! The runtime port against a real containerd: start, import, sandbox, container, exit, adoption.

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_cri::v1 as api;
use kubelet::containerd::Containerd;
use kubelet::containerd::events::{Events, TaskEvent};
use kubelet::images::archives;
use kubelet::runtime::cri::Cri;
use kubelet::runtime::{ContainerState, Runtime, labels};

fn sandbox_config(cgroup: &str, uid: &str, logs: &std::path::Path) -> api::PodSandboxConfig {
    let labels = HashMap::from([
        (labels::POD_UID.to_owned(), uid.to_owned()),
        (labels::POD_NAME.to_owned(), "p".to_owned()),
        (labels::POD_NAMESPACE.to_owned(), "default".to_owned()),
    ]);
    api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: "p".into(),
            uid: uid.into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "p".into(),
        log_directory: logs.to_string_lossy().into_owned(),
        labels,
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: format!("{cgroup}/pod{uid}"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container_config(uid: &str, command: &[&str]) -> api::ContainerConfig {
    api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(api::ImageSpec { image: common::DEMO.into(), ..Default::default() }),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        log_path: "c.log".into(),
        labels: HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]),
        linux: Some(api::LinuxContainerConfig::default()),
        ..Default::default()
    }
}

#[tokio::test]
async fn containers_run_and_outlive_containerd() {
    if !common::isolated("containers_run_and_outlive_containerd", "10.99.1.1") {
        return;
    }
    let node = common::Node::new();
    let config = node.config([10, 99, 1, 1]);
    let network = cluster_network::cni::Network {
        pod_cidrs: vec!["10.244.7.0/24".into()],
        state: config.paths().cni_state(),
        mtu: 0,
    };
    cluster_network::cni::write(&config.paths().cni_config(), &network).expect("a network");
    let containerd = Containerd::prepare(&config).await.expect("prepared");
    let started = Instant::now();
    containerd.ensure_running().await.expect("running");
    eprintln!("containerd took {:?}", started.elapsed());
    archives::import_pause(containerd.channel()).await.expect("a pause image");
    let demo = common::demo_image(&config.paths().images());
    let names =
        archives::import(containerd.channel(), &demo, Default::default()).await.expect("a demo image");
    assert_eq!(names, [common::DEMO]);
    eprintln!("images are there after {:?}", started.elapsed());

    let runtime = Cri::new(containerd.channel());
    while !runtime.status().await.expect("a status").network_ready {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let logs = node.folder.path().join("logs");
    std::fs::create_dir(&logs).expect("a folder");
    let mut events = Events::subscribe(containerd.channel());

    let started = Instant::now();
    let sandbox = sandbox_config(&config.cgroup_root, &uid, &logs);
    let sandbox_id = runtime.run_sandbox(sandbox.clone(), "").await.expect("a sandbox");
    eprintln!("a sandbox took {:?}", started.elapsed());
    let command = ["sh", "-c", "echo hello; while ! [ -e /tmp/stop ]; do sleep 0.05; done; exit 3"];
    let id = runtime
        .create_container(&sandbox_id, container_config(&uid, &command), sandbox.clone())
        .await
        .expect("a container");
    runtime.start_container(&id).await.expect("started");
    eprintln!("a pod took {:?}", started.elapsed());
    let state = runtime.pod_state(&uid).await.expect("a state");
    assert_eq!(state.container("c").map(|c| c.state), Some(ContainerState::Running));
    assert_eq!(state.ips(), ["10.244.7.2"]);

    // containerd dies by kill -9, is found dead and started again; the container goes on.
    let pid = std::fs::read_to_string(config.paths().containerd().join("containerd.pid")).expect("a pid");
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    assert!(events.next().await.is_err(), "the stream ends with containerd");
    tokio::time::sleep(Duration::from_millis(50)).await;
    containerd.ensure_running().await.expect("running again");
    let state = runtime.pod_state(&uid).await.expect("a state");
    let container = state.container("c").expect("a container");
    assert_eq!((container.state, container.id.as_str()), (ContainerState::Running, id.as_str()));

    let mut events = Events::subscribe(containerd.channel());
    let exec = runtime.exec_sync(&id, vec!["touch".into(), "/tmp/stop".into()], Duration::from_secs(5)).await;
    assert_eq!(exec.expect("an answer").exit_code, 0);
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("in time");
    assert_eq!(event.expect("an event"), TaskEvent::Exited { id: id.clone() });
    let exit = Instant::now();
    let exited = loop {
        let state = runtime.pod_state(&uid).await.expect("a state");
        let container = state.container("c").expect("a container").clone();
        if container.state == ContainerState::Exited {
            break container;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    eprintln!("CRI knows of the exit {:?} after the event", exit.elapsed());
    assert_eq!((exited.exit_code, exited.reason.as_str()), (3, "Error"));
    let log = std::fs::read_to_string(logs.join("c.log")).expect("a log");
    assert!(log.contains("stdout F hello"), "{log}");

    runtime.stop_sandbox(&sandbox_id).await.expect("stopped");
    runtime.remove_sandbox(&sandbox_id).await.expect("removed");
    assert!(runtime.list().await.expect("a list").is_empty());
    containerd.stop().await;
}
