//! Probes and lifecycle hooks.

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::validation as names;

use crate::validation::at::At;

const PROBE: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// All probes of a container.
pub fn probes(container: &At<'_>, grace: Option<i64>) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.field(key) {
            errors.extend(one_probe(&probe, key == "readinessProbe", grace));
        }
    }
    errors
}

fn one_probe(probe: &At<'_>, readiness: bool, grace: Option<i64>) -> ErrorList {
    let mut errors = handler(probe, &PROBE, grace);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.extend(probe.child(key).non_negative());
    }
    let own_grace = probe.child("terminationGracePeriodSeconds");
    if own_grace.int().is_some_and(|seconds| seconds <= 0) {
        errors.push(own_grace.invalid("must be greater than 0"));
    }
    let successes = probe.child("successThreshold");
    if readiness {
        if own_grace.is_set() {
            errors.push(own_grace.invalid("must not be set for readinessProbes"));
        }
    } else if successes.int_or_zero() != 1 {
        errors.push(successes.invalid_number("must be 1"));
    }
    errors
}

/// `postStart` and `preStop`.
pub fn lifecycle(lifecycle: &At<'_>, grace: Option<i64>) -> ErrorList {
    let hooks = ["postStart", "preStop"].iter().filter_map(|key| lifecycle.field(key));
    hooks.flat_map(|hook| handler(&hook, &HOOK, grace)).collect()
}

/// What is done: exactly one thing of those that are possible here.
fn handler(handler: &At<'_>, kinds: &[&str], grace: Option<i64>) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut found = false;
    for kind in kinds {
        let Some(action) = handler.field(kind) else { continue };
        if found {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        errors.extend(match *kind {
            "exec" => action.child("command").must_be_set(),
            "httpGet" => http_get(&action),
            "sleep" => sleep(&action, grace),
            "grpc" => action.child("port").port_number(),
            _ => port(&action.child("port")),
        });
    }
    if !found {
        errors.push(handler.required("must specify a handler type"));
    }
    errors
}

fn http_get(action: &At<'_>) -> ErrorList {
    let mut errors = action.child("path").must_be_set();
    errors.extend(port(&action.child("port")));
    errors.extend(action.child("scheme").among(&["HTTP", "HTTPS"]));
    let headers = action.child("httpHeaders");
    for header in headers.items() {
        let name = At::new(header.child("name").value, headers.path.clone());
        errors.extend(name.follows(names::is_http_header_name));
    }
    errors
}

/// The error stands at the action, not at its field.
fn sleep(action: &At<'_>, grace: Option<i64>) -> ErrorList {
    let seconds = At::new(action.child("seconds").value, action.path.clone());
    match grace {
        Some(grace) if !(0..=grace).contains(&seconds.int_or_zero()) => {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            vec![seconds.invalid_number(why)]
        }
        _ => ErrorList::new(),
    }
}

/// A port by number or by name.
pub fn port(port: &At<'_>) -> ErrorList {
    match port.value {
        Value::String(_) => port.follows(names::is_valid_port_name),
        _ => port.port_number(),
    }
}
