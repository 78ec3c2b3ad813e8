//! The columns of pods.

use apimachinery::{Object, Value};
use serde_json::json;

use crate::catalogue::Column;
use crate::printers::{AGE, NAME, column, human_duration, or_none, seconds, wide};

pub const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Ready containers of all containers.", |pod, _| {
        let summary = Summary::of(pod);
        json!(format!("{}/{}", summary.ready, summary.total))
    }),
    column("Status", "string", "What the containers of the pod are doing, in a word.", |pod, _| {
        json!(Summary::of(pod).reason)
    }),
    column("Restarts", "string", "How often containers restarted, and when last.", |pod, now| {
        let summary = Summary::of(pod);
        match summary.last_restart {
            Some(at) if summary.restarts > 0 => {
                json!(format!("{} ({} ago)", summary.restarts, human_duration(now.0 - at)))
            }
            _ => json!(summary.restarts.to_string()),
        }
    }),
    AGE,
    wide("IP", "string", "The first address of the pod.", |pod, _| {
        let first = pod.get_array(&["status", "podIPs"]).first();
        or_none(first.and_then(|entry| entry.get("ip")?.as_str()).unwrap_or_default())
    }),
    wide("Node", "string", "The node the pod runs on.", |pod, _| or_none(pod.get_str(&["spec", "nodeName"]))),
    wide("Nominated Node", "string", "The node that room is being made on.", |pod, _| {
        or_none(pod.get_str(&["status", "nominatedNodeName"]))
    }),
    wide("Readiness Gates", "string", "Readiness gates met of all gates.", |pod, _| {
        let gates = pod.get_array(&["spec", "readinessGates"]);
        if gates.is_empty() {
            return json!("<none>");
        }
        let met = gates
            .iter()
            .filter(|gate| {
                let kind = gate.get("conditionType").and_then(Value::as_str).unwrap_or_default();
                condition(pod, kind).is_some_and(|c| c["status"] == "True")
            })
            .count();
        json!(format!("{met}/{}", gates.len()))
    }),
];

fn condition<'a>(pod: &'a Object, kind: &str) -> Option<&'a Value> {
    pod.get_array(&["status", "conditions"]).iter().find(|c| c["type"] == kind)
}

struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<i64>,
    reason: String,
}

fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter().try_fold(value, |at, key| at.get(key)).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, path: &[&str]) -> i64 {
    path.iter().try_fold(value, |at, key| at.get(key)).and_then(Value::as_i64).unwrap_or_default()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// Why a container has ended, as a word.
fn ended(state: &Value, prefix: &str) -> String {
    let reason = text(state, &["terminated", "reason"]);
    let signal = number(state, &["terminated", "signal"]);
    match (reason.is_empty(), signal) {
        (false, _) => format!("{prefix}{reason}"),
        (true, 0) => format!("{prefix}ExitCode:{}", number(state, &["terminated", "exitCode"])),
        (true, signal) => format!("{prefix}Signal:{signal}"),
    }
}

impl Summary {
    fn of(pod: &Object) -> Self {
        let sidecars: Vec<&str> = pod
            .get_array(&["spec", "initContainers"])
            .iter()
            .filter(|c| text(c, &["restartPolicy"]) == "Always")
            .map(|c| text(c, &["name"]))
            .collect();
        let phase = pod.get_str(&["status", "phase"]);
        let mut reason = match pod.get_str(&["status", "reason"]) {
            "" => phase.to_owned(),
            reason => reason.to_owned(),
        };
        if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
            reason = "SchedulingGated".into();
        }
        let mut summary = Self {
            ready: 0,
            total: pod.get_array(&["spec", "containers"]).len() + sidecars.len(),
            restarts: 0,
            last_restart: None,
            reason,
        };
        let initializing = summary.read_init_containers(pod, &sidecars);
        let initialized = condition(pod, "Initialized").is_some_and(|c| c["status"] == "True");
        if !initializing || initialized {
            summary.read_containers(pod, &sidecars);
        }
        summary.read_deletion(pod);
        summary
    }

    fn count_restart(&mut self, status: &Value) {
        self.restarts += number(status, &["restartCount"]);
        let at = seconds(text(status, &["lastState", "terminated", "finishedAt"]));
        self.last_restart = self.last_restart.max(at);
    }

    /// Whether an init container is still on its way; then its state is the pod's reason.
    fn read_init_containers(&mut self, pod: &Object, sidecars: &[&str]) -> bool {
        let all = pod.get_array(&["spec", "initContainers"]).len();
        for (index, status) in pod.get_array(&["status", "initContainerStatuses"]).iter().enumerate() {
            self.count_restart(status);
            let sidecar = sidecars.contains(&text(status, &["name"]));
            let state = &status["state"];
            if state.get("terminated").is_some() && number(state, &["terminated", "exitCode"]) == 0 {
                continue;
            }
            if sidecar && flag(status, "started") {
                self.ready += usize::from(flag(status, "ready"));
                continue;
            }
            self.reason = if state.get("terminated").is_some() {
                ended(state, "Init:")
            } else {
                match text(state, &["waiting", "reason"]) {
                    "" | "PodInitializing" => format!("Init:{index}/{all}"),
                    reason => format!("Init:{reason}"),
                }
            };
            return true;
        }
        false
    }

    fn read_containers(&mut self, pod: &Object, sidecars: &[&str]) {
        self.restarts = 0;
        self.last_restart = None;
        for status in pod.get_array(&["status", "initContainerStatuses"]) {
            if sidecars.contains(&text(status, &["name"])) {
                self.count_restart(status);
            }
        }
        let mut running = false;
        for status in pod.get_array(&["status", "containerStatuses"]).iter().rev() {
            self.count_restart(status);
            let state = &status["state"];
            let waiting = text(state, &["waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if state.get("terminated").is_some() {
                self.reason = ended(state, "");
            } else if flag(status, "ready") && state.get("running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
            self.reason = if ready { "Running" } else { "NotReady" }.into();
        }
    }

    fn read_deletion(&mut self, pod: &Object) {
        if pod.deletion_timestamp().is_none() {
            return;
        }
        if pod.get_str(&["status", "reason"]) == "NodeLost" {
            self.reason = "Unknown".into();
        } else if !matches!(pod.get_str(&["status", "phase"]), "Failed" | "Succeeded") {
            self.reason = "Terminating".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_summed_up_in_a_word() {
        let running = json!({"name": "c", "ready": true, "restartCount": 2, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}});
        let waiting = json!({"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        let killed = json!({"name": "c", "state": {"terminated": {"signal": 9}}});
        let cases = [
            (json!({"phase": "Pending"}), "Pending", 0),
            (json!({"phase": "Running", "containerStatuses": [running]}), "Running", 1),
            (json!({"phase": "Running", "containerStatuses": [waiting]}), "CrashLoopBackOff", 0),
            (json!({"phase": "Failed", "containerStatuses": [killed]}), "Signal:9", 0),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted", 0),
        ];
        for (status, reason, ready) in cases {
            let pod = Object::from(json!({"spec": {"containers": [{"name": "c"}]}, "status": status}));
            let summary = Summary::of(&pod);
            assert_eq!((summary.reason.as_str(), summary.ready), (reason, ready), "{status}");
        }
    }

    #[test]
    fn an_init_container_speaks_for_its_pod() {
        let pod = Object::from(json!({
            "spec": {"initContainers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "c"}]},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": "a", "state": {"terminated": {"exitCode": 0}}},
                {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}},
            ]},
        }));
        assert_eq!(Summary::of(&pod).reason, "Init:1/2");
    }
}
