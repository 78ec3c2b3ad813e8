//! `/livez`, `/readyz`, `/healthz`: each check by name, in upstream's words.

use std::sync::atomic::Ordering;

use http::StatusCode;

use crate::http::body::Response;
use crate::http::request_info::Query;
use crate::http::respond;
use crate::server::Server;

/// Checks in the order in which they are shown, and whether they count for readiness alone.
const CHECKS: [(&str, bool); 7] = [
    ("ping", false),
    ("log", false),
    ("etcd", false),
    ("kms-providers", false),
    ("informer-sync", true),
    ("poststarthook/bootstrap", true),
    ("shutdown", true),
];

/// Whether a server has what is checked.
fn is_there(server: &Server, check: &str) -> bool {
    // upstream has it wherever encryption can change while the server runs, even without such a provider
    check != "kms-providers"
        || server.config.encryption.as_ref().is_some_and(|chosen| chosen.automatic_reload)
}

fn passes(server: &Server, check: &str) -> bool {
    match check {
        "etcd" => !server.store_failed.load(Ordering::Relaxed),
        "informer-sync" => server.registry.cache.revision() > 0,
        "poststarthook/bootstrap" => server.bootstrapped.load(Ordering::Acquire),
        "shutdown" => !server.stopping.is_cancelled(),
        _ => true,
    }
}

pub fn answer(server: &Server, endpoint: &str, one: Option<&str>, query: &Query) -> Response {
    let checks = CHECKS.iter().filter(|(_, ready_only)| endpoint == "readyz" || !ready_only);
    let checks = checks.filter(|(name, _)| is_there(server, name));
    if let Some(one) = one {
        return match checks.into_iter().find(|(name, _)| *name == one) {
            None => respond::text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Some((name, _)) if passes(server, name) => respond::text(StatusCode::OK, "ok"),
            Some((name, _)) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {name} failed: reason withheld\n"),
            ),
        };
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for (name, _) in checks {
        if excluded.contains(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if passes(server, name) {
            lines.push_str(&format!("[+]{name} ok\n"));
        } else {
            failed = true;
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    if failed {
        let body = format!("{lines}{endpoint} check failed\n");
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, body);
    }
    match query.get("verbose") {
        Some(_) => respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        None => respond::text(StatusCode::OK, "ok"),
    }
}
