//! Options of Windows containers.

use apimachinery::field::{Error, ErrorList};

use super::visit_containers;
use crate::validation::at::At;

const MAX_SPEC_KIB: usize = 64;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

pub fn options(options: &At<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(name) = options.field("gmsaCredentialSpecName") {
        errors.extend(name.subdomain());
    }
    if let Some(spec) = options.field("gmsaCredentialSpec") {
        if spec.is_empty() {
            errors.push(spec.invalid("gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > MAX_SPEC_KIB * 1024 {
            let why = format!("gmsaCredentialSpec size must be under {MAX_SPEC_KIB} KiB");
            errors.push(spec.invalid(why));
        }
    }
    if let Some(name) = options.field("runAsUserName") {
        errors.extend(name.follows(user_name));
    }
    errors
}

/// What is wrong with `user` or `domain\user`.
fn user_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".into()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".into()];
    }
    let (domain, user) = match name.split_once('\\') {
        None => (None, name),
        Some((_, user)) if user.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash".into()];
        }
        Some((domain, user)) => (Some(domain), user),
    };
    let mut out = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= MAX_DOMAIN) {
        out.push(format!("runAsUserName's Domain length must be under {MAX_DOMAIN} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        out.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        out.push("runAsUserName's User cannot be empty".into());
    } else if user.len() > MAX_USER {
        out.push(format!("runAsUserName's User length must not be longer than {MAX_USER} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        out.push("runAsUserName's User cannot contain only periods or spaces".into());
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        out.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".into());
    }
    out
}

fn is_net_bios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Containers that run as processes of the host: all of a pod, or none, and on the host's network.
pub fn host_process(spec: &At<'_>) -> ErrorList {
    let of = |owner: &At<'_>| owner.value.pointer("/securityContext/windowsOptions/hostProcess")?.as_bool();
    let of_pod = of(spec);
    let (mut all, mut host) = (0, 0);
    let mut errors = ErrorList::new();
    visit_containers(spec, &mut |container| {
        all += 1;
        let own = of(&container);
        host += usize::from(own.or(of_pod) == Some(true));
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let own = container.child("securityContext").child("windowsOptions").child("hostProcess");
            let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.push(own.invalid(why));
        }
    });
    if host == 0 {
        return errors;
    }
    if host != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(Error::invalid(&spec.path, "", why));
    }
    if !spec.is_true("hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(Error::invalid(&spec.child("hostNetwork").path, false, why));
    }
    errors
}
