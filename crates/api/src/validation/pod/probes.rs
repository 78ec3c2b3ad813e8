//! Probes and lifecycle hooks.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation as names;

use crate::validation::value::{field, int, invalid, list, non_negative, number, require, supported, text};

const PROBE: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// All probes of a container.
pub fn probes(container: &Value, grace: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = field(container, key) {
            errors.extend(one_probe(probe, key == "readinessProbe", grace, &path.child(key)));
        }
    }
    errors
}

fn one_probe(probe: &Value, readiness: bool, grace: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = handler(probe, &PROBE, grace, path);
    for key in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.extend(non_negative(&path.child(key), int(probe, key)));
    }
    let at = path.child("terminationGracePeriodSeconds");
    let own_grace = int(probe, "terminationGracePeriodSeconds");
    if let Some(seconds) = own_grace.filter(|seconds| *seconds <= 0) {
        errors.push(Error::invalid(&at, seconds, "must be greater than 0"));
    }
    if readiness {
        if let Some(seconds) = own_grace {
            errors.push(Error::invalid(&at, seconds, "must not be set for readinessProbes"));
        }
    } else if number(probe, "successThreshold") != 1 {
        let successes = number(probe, "successThreshold");
        errors.push(Error::invalid(&path.child("successThreshold"), successes, "must be 1"));
    }
    errors
}

/// `postStart` and `preStop`.
pub fn lifecycle(lifecycle: &Value, grace: Option<i64>, path: &Path) -> ErrorList {
    ["postStart", "preStop"]
        .iter()
        .filter_map(|key| Some(handler(field(lifecycle, key)?, &HOOK, grace, &path.child(key))))
        .flatten()
        .collect()
}

/// What is done: exactly one thing of those that are possible here.
fn handler(handler: &Value, kinds: &[&str], grace: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut found = false;
    for kind in kinds {
        let Some(action) = field(handler, kind) else { continue };
        let at = path.child(kind);
        if found {
            errors.push(Error::forbidden(&at, "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        errors.extend(match *kind {
            "exec" => require(action, "command", &at),
            "httpGet" => http_get(action, &at),
            "sleep" => sleep(action, grace, &at),
            "grpc" => {
                let port = number(action, "port");
                invalid(&at.child("port"), port, names::is_valid_port_num(port))
            }
            _ => port(action.get("port"), &at.child("port")),
        });
    }
    if !found {
        errors.push(Error::required(path, "must specify a handler type"));
    }
    errors
}

fn http_get(action: &Value, path: &Path) -> ErrorList {
    let mut errors = require(action, "path", path);
    errors.extend(port(action.get("port"), &path.child("port")));
    errors.extend(supported(text(action, "scheme"), &["HTTP", "HTTPS"], &path.child("scheme")));
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        errors.extend(invalid(&path.child("httpHeaders"), name, names::is_http_header_name(name)));
    }
    errors
}

fn sleep(action: &Value, grace: Option<i64>, path: &Path) -> ErrorList {
    let seconds = number(action, "seconds");
    match grace {
        Some(grace) if seconds < 0 || seconds > grace => {
            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            vec![Error::invalid(path, seconds, why)]
        }
        _ => ErrorList::new(),
    }
}

/// A port by number or by name.
pub fn port(port: Option<&Value>, path: &Path) -> ErrorList {
    match port {
        Some(Value::String(name)) => invalid(path, name.as_str(), names::is_valid_port_name(name)),
        port => {
            let number = port.and_then(Value::as_i64).unwrap_or_default();
            invalid(path, number, names::is_valid_port_num(number))
        }
    }
}
