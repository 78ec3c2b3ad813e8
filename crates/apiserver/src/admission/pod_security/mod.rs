//! PodSecurity: pods meet the level that their namespace demands (KEP-2579).

mod baseline;
mod checks;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use apimachinery::{Object, Status, Value};

use self::checks::{Subject, details, evaluate, reasons};
use self::policy::{Configuration, Exemptions, Level, LevelVersion, Policy};
use super::{Attributes, Operation};
use crate::context::Context;
use crate::registry::Registry;

/// How many of a namespace's pods are looked at when its level changes.
const MOST_PODS: usize = 3000;

const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];

/// The level where labels say nothing, and who is not asked.
#[derive(Clone, Debug, Default)]
pub struct PodSecurity {
    pub defaults: Policy,
    pub exemptions: Exemptions,
}

/// What is to be said about a pod.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    refusal: Option<String>,
    warning: Option<String>,
    /// For the audit log, by key below `pod-security.kubernetes.io/`.
    audit: BTreeMap<&'static str, String>,
}

impl PodSecurity {
    pub fn configured(configuration: Configuration) -> Result<Self, String> {
        let (defaults, exemptions) = configuration.resolve()?;
        Ok(Self { defaults, exemptions })
    }

    pub fn validate(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        if attributes.operation == Operation::Delete {
            return Ok(());
        }
        let resource = attributes.kind.resource;
        match (resource.group, resource.plural, attributes.subresource) {
            ("", "namespaces", "") => self.namespace(registry, ctx, attributes),
            ("", "pods", "" | "ephemeralcontainers" | "resize") => self.pod(registry, ctx, attributes),
            (group, plural, "") => match TEMPLATES.iter().find(|(g, p, _)| (*g, *p) == (group, plural)) {
                Some((_, _, path)) => self.template(registry, ctx, attributes, path),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether nobody asks; the reason is for the audit log.
    fn exempt(&self, ctx: &Context, attributes: &Attributes<'_>) -> bool {
        self.exemptions.namespaces.contains(&attributes.namespace)
            || self.exemptions.usernames.contains(&ctx.user.name)
    }

    fn pod(&self, registry: &Registry, ctx: &Context, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(pod) = attributes.object.as_ref().filter(|_| !self.exempt(ctx, attributes)) else {
            return Ok(());
        };
        let namespaces = registry.core("namespaces");
        let namespace = registry.peek(namespaces, "", &attributes.namespace).ok_or_else(|| {
            Status::internal(format_args!("failed to lookup namespace {:?}", attributes.namespace))
        })?;
        let (policy, errors) = Policy::of(&namespace, &self.defaults);
        if errors.is_empty() && policy.is_privileged() {
            return Ok(());
        }
        if let Some(old) = attributes.old.as_ref().filter(|_| attributes.operation == Operation::Update)
            && !is_significant(pod, old)
        {
            return Ok(());
        }
        let verdict = self.judge(&policy, pod.as_value(), true);
        tell(ctx, &verdict);
        match verdict.refusal {
            Some(why) => Err(attributes.forbidden(why)),
            None => Ok(()),
        }
    }

    /// A template is only warned about: its pods are what is refused.
    fn template(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
        path: &str,
    ) -> Result<(), Status> {
        let Some(object) = attributes.object.as_ref().filter(|_| !self.exempt(ctx, attributes)) else {
            return Ok(());
        };
        let Some(namespace) = registry.peek(registry.core("namespaces"), "", &attributes.namespace) else {
            return Ok(());
        };
        let (policy, _) = Policy::of(&namespace, &self.defaults);
        if let Some(template) = object.as_value().pointer(path) {
            tell(ctx, &self.judge(&policy, template, false));
        }
        Ok(())
    }

    fn judge(&self, policy: &Policy, pod: &Value, enforce: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(spec) = pod.get("spec") else { return verdict };
        let class = checks::text(spec, "/runtimeClassName");
        if !class.is_empty() && self.exemptions.runtime_classes.iter().any(|one| one == class) {
            verdict.audit.insert("exempt", "runtimeClass".into());
            return verdict;
        }
        let subject = Subject::new(pod.get("metadata"), spec);
        let against = |level: LevelVersion, verb: &str| {
            let findings = evaluate(level, &subject);
            (!findings.is_empty()).then(|| format!("{verb} PodSecurity \"{level}\": {}", details(&findings)))
        };
        if enforce {
            verdict.audit.insert("enforce-policy", policy.enforce.to_string());
            verdict.refusal = against(policy.enforce, "violates");
        }
        if let Some(violation) = against(policy.audit, "would violate") {
            verdict.audit.insert("audit-violations", violation);
        }
        if verdict.refusal.is_none() {
            verdict.warning = against(policy.warn, "would violate");
        }
        verdict
    }

    fn namespace(
        &self,
        registry: &Registry,
        ctx: &Context,
        attributes: &Attributes<'_>,
    ) -> Result<(), Status> {
        let Some(namespace) = &attributes.object else { return Ok(()) };
        let (policy, errors) = Policy::of(namespace, &self.defaults);
        let exempt = self.exemptions.namespaces.iter().any(|name| name == namespace.name());
        let warn_exempt = || {
            if let Some(warning) = policy.exempt_warning(namespace, &self.defaults) {
                ctx.warn(warning);
            }
        };
        let invalid =
            |errors| Err(Status::invalid(&attributes.kind.resource.group_kind(), namespace.name(), errors));
        let Some(old) = attributes.old.as_ref().filter(|_| attributes.operation == Operation::Update) else {
            if !errors.is_empty() {
                return invalid(&errors);
            }
            if exempt {
                warn_exempt();
            }
            return Ok(());
        };
        let (before, old_errors) = Policy::of(old, &self.defaults);
        if !errors.is_empty() && errors != old_errors {
            return invalid(&errors);
        }
        let looser = policy.enforce == before.enforce
            || policy.enforce.level == Level::Privileged
            || (policy.enforce.version == before.enforce.version
                && policy.enforce.level <= before.enforce.level);
        if looser {
            return Ok(());
        }
        if exempt {
            warn_exempt();
            return Ok(());
        }
        for warning in self.existing(registry, namespace.name(), policy.enforce)? {
            ctx.warn(warning);
        }
        Ok(())
    }

    /// What a new level has against the pods that are there.
    fn existing(
        &self,
        registry: &Registry,
        namespace: &str,
        enforce: LevelVersion,
    ) -> Result<Vec<String>, Status> {
        let kind = registry.core("pods");
        let Some(cache) = registry.cache.resource(kind) else { return Ok(Vec::new()) };
        let (snapshot, prefix) = (cache.snapshot(), kind.key(namespace, ""));
        let pods = snapshot.range(&prefix, None).filter_map(|entry| entry.object().ok());
        Ok(self.warnings(pods.collect(), namespace, enforce))
    }

    fn warnings(&self, pods: Vec<Object>, namespace: &str, enforce: LevelVersion) -> Vec<String> {
        // one pod of each controller first: the others are likely the same
        let mut controllers: HashSet<String> = HashSet::new();
        let (mut first, mut more) = (Vec::new(), Vec::new());
        for pod in pods {
            let class = pod.get_str(&["spec", "runtimeClassName"]);
            if !class.is_empty() && self.exemptions.runtime_classes.iter().any(|one| one == class) {
                continue;
            }
            let controller = pod
                .owner_references()
                .iter()
                .find(|owner| checks::flag(owner, "/controller") == Some(true))
                .map(|owner| checks::text(owner, "/uid").to_owned());
            match controller {
                Some(uid) if !controllers.insert(uid.clone()) => more.push(pod),
                _ => first.push(pod),
            }
        }
        first.append(&mut more);
        let total = first.len();
        first.truncate(MOST_PODS);
        // by what is wrong: the first pod by name, and how many
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in &first {
            let Some(spec) = pod.get(&["spec"]) else { continue };
            let findings = evaluate(enforce, &Subject::new(pod.get(&["metadata"]), spec));
            if findings.is_empty() {
                continue;
            }
            let entry = found.entry(reasons(&findings)).or_insert_with(|| (pod.name().to_owned(), 0));
            if pod.name() < entry.0.as_str() {
                entry.0 = pod.name().to_owned();
            }
            entry.1 += 1;
        }
        let mut out = Vec::new();
        if first.len() < total {
            out.push(format!(
                "new PodSecurity enforce level only checked against the first {} of {total} existing pods",
                first.len()
            ));
        }
        if !found.is_empty() {
            out.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{enforce}\""
            ));
        }
        let mut lines: Vec<String> = found
            .into_iter()
            .map(|(why, (name, count))| match count {
                1 => format!("{name}: {why}"),
                2 => format!("{name} (and 1 other pod): {why}"),
                _ => format!("{name} (and {} other pods): {why}", count - 1),
            })
            .collect();
        lines.sort();
        out.append(&mut lines);
        out
    }
}

fn tell(ctx: &Context, verdict: &Verdict) {
    if let Some(warning) = &verdict.warning {
        ctx.warn(warning.clone());
    }
    for (key, value) in &verdict.audit {
        ctx.annotate(&format!("pod-security.kubernetes.io/{key}"), value);
    }
}

/// Whether an update runs something new: other images, or more containers.
fn is_significant(pod: &Object, old: &Object) -> bool {
    let images = |object: &Object, list: &str| -> Vec<String> {
        let containers = object.get_array(&["spec", list]);
        containers.iter().map(|one| checks::text(one, "/image").to_owned()).collect()
    };
    if ["containers", "initContainers"].iter().any(|list| images(pod, list) != images(old, list)) {
        return true;
    }
    let ephemeral = |object: &Object| object.get_array(&["spec", "ephemeralContainers"]).to_vec();
    let before = ephemeral(old);
    ephemeral(pod).iter().any(|one| {
        let same = before.iter().find(|other| other["name"] == one["name"]);
        same.is_none_or(|other| other["image"] != one["image"])
    })
}
