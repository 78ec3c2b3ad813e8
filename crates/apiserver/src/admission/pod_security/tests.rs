//! Every check with what it refuses, by level and version, and what is said about it.

use serde_json::json;

use super::policy::Version;
use super::*;

fn level(level: Level, version: &str) -> LevelVersion {
    LevelVersion { level, version: Version::parse(version).expect("a version") }
}

fn found(policy: LevelVersion, pod: &Value) -> String {
    details(&evaluate(policy, &Subject::new(pod.get("metadata"), &pod["spec"])))
}

/// A pod with one container that sets `container`, and `pod` in its spec.
fn pod(spec: Value, container: Value) -> Value {
    let mut one = json!({"name": "a", "image": "i"});
    merge(&mut one, container);
    let mut all = json!({"containers": [one]});
    merge(&mut all, spec);
    json!({"metadata": {"name": "p"}, "spec": all})
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn baseline_refuses_what_gives_power_over_the_node() {
    let security = |value: Value| json!({"securityContext": value});
    let cases: Vec<(&str, Value, &str)> = vec![
        ("latest", pod(json!({}), json!({})), ""),
        (
            "latest",
            pod(json!({"hostNetwork": true, "hostPID": true}), json!({})),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            "latest",
            pod(json!({}), security(json!({"privileged": true}))),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            "latest",
            pod(json!({}), security(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}}))),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            "latest",
            pod(
                json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "emptyDir": {}}]}),
                json!({}),
            ),
            "hostPath volumes (volume \"v\")",
        ),
        (
            "latest",
            pod(json!({}), json!({"ports": [{"hostPort": 80}, {"hostPort": 0}, {"hostPort": 443}]})),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            "latest",
            pod(security(json!({"appArmorProfile": {"type": "Unconfined"}})), json!({})),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            "latest",
            pod(
                security(json!({"seLinuxOptions": {"type": "spc_t"}})),
                security(json!({"seLinuxOptions": {"user": "u", "role": "r"}})),
            ),
            "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may not be set)",
        ),
        (
            "v1.30",
            pod(security(json!({"seLinuxOptions": {"type": "container_engine_t"}})), json!({})),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
        ),
        ("v1.31", pod(security(json!({"seLinuxOptions": {"type": "container_engine_t"}})), json!({})), ""),
        (
            "latest",
            pod(json!({}), security(json!({"procMount": "Unmasked"}))),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        ("v1.35", pod(json!({"hostUsers": false}), security(json!({"procMount": "Unmasked"}))), ""),
        (
            "v1.34",
            pod(json!({"hostUsers": false}), security(json!({"procMount": "Unmasked"}))),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            "latest",
            pod(security(json!({"seccompProfile": {"type": "Unconfined"}})), json!({})),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        ("v1.18", pod(security(json!({"seccompProfile": {"type": "Unconfined"}})), json!({})), ""),
        (
            "v1.31",
            pod(
                security(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.msgmax"}]})),
                json!({}),
            ),
            "forbidden sysctls (net.ipv4.tcp_rmem, kernel.msgmax)",
        ),
        ("v1.32", pod(security(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}]})), json!({})), ""),
        (
            "v1.28",
            pod(security(json!({"sysctls": [{"name": "net.ipv4.tcp_fin_timeout"}]})), json!({})),
            "forbidden sysctls (net.ipv4.tcp_fin_timeout)",
        ),
        (
            "latest",
            pod(
                security(json!({"windowsOptions": {"hostProcess": true}})),
                security(json!({"windowsOptions": {"hostProcess": true}})),
            ),
            "hostProcess (pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "latest",
            pod(
                json!({}),
                json!({"livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}),
            ),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"g\", \"h\")",
        ),
        ("v1.33", pod(json!({}), json!({"livenessProbe": {"httpGet": {"host": "h"}}})), ""),
    ];
    for (version, pod, wanted) in cases {
        assert_eq!(found(level(Level::Baseline, version), &pod), wanted, "{version} {pod}");
        assert_eq!(found(level(Level::Privileged, version), &pod), "");
    }
    let annotated = |key: &str, value: &str| {
        let mut pod = pod(json!({}), json!({}));
        pod["metadata"]["annotations"] = json!({key: value});
        pod
    };
    let armor = annotated("container.apparmor.security.beta.kubernetes.io/a", "unconfined");
    assert_eq!(
        found(level(Level::Baseline, "latest"), &armor),
        "forbidden AppArmor profile (annotation must not set AppArmor profile type to \
         \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
    );
    let seccomp = annotated("seccomp.security.alpha.kubernetes.io/pod", "unconfined");
    assert_eq!(
        found(level(Level::Baseline, "v1.0"), &seccomp),
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
    );
    assert_eq!(found(level(Level::Baseline, "v1.19"), &seccomp), "");
}

fn hardened() -> Value {
    pod(
        json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}),
        json!({"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}),
    )
}

#[test]
fn restricted_wants_pods_hardened() {
    const PLAIN: &str = "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
        unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
        runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
        seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    let but = |change: Value| {
        let mut pod = hardened();
        merge(&mut pod["spec"], change);
        pod
    };
    let container = |change: Value| {
        let mut pod = hardened();
        merge(&mut pod["spec"]["containers"][0], change);
        pod
    };
    let cases: Vec<(&str, Value, &str)> = vec![
        ("latest", hardened(), ""),
        ("latest", pod(json!({}), json!({})), PLAIN),
        (
            "v1.7",
            pod(json!({}), json!({})),
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        ("v1.24", pod(json!({"os": {"name": "windows"}}), json!({})), PLAIN),
        (
            "v1.25",
            pod(json!({"os": {"name": "windows"}}), json!({})),
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            "latest",
            but(
                json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "n", "nfs": {}}, {"name": "s", "secret": {}}]}),
            ),
            "restricted volume types (volumes \"v\", \"n\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        (
            "latest",
            but(json!({"securityContext": {"runAsUser": 0}})),
            "runAsUser=0 (pod must not set runAsUser=0)",
        ),
        ("v1.22", but(json!({"securityContext": {"runAsUser": 0}})), ""),
        (
            "v1.35",
            but(json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": false}})),
            "",
        ),
        (
            "latest",
            container(json!({"securityContext": {"runAsNonRoot": false}})),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (
            "latest",
            container(json!({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE", "CHOWN"]}}})),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "latest",
            container(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "latest",
            but(
                json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked",
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}),
            ),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
    ];
    for (version, pod, wanted) in cases {
        assert_eq!(found(level(Level::Restricted, version), &pod), wanted, "{version} {pod}");
    }
}

#[test]
fn modes_refuse_warn_and_note() {
    let restricted = level(Level::Restricted, "latest");
    let all = Policy { enforce: level(Level::Baseline, "v1.30"), audit: restricted, warn: restricted };
    let plugin = PodSecurity::default();
    let plain = pod(json!({}), json!({}));
    let verdict = plugin.judge(&all, &plain, true);
    assert_eq!(verdict.refusal, None);
    let says = |text: &Option<String>| text.clone().unwrap_or_default();
    assert!(says(&verdict.warning).starts_with("would violate PodSecurity \"restricted:latest\": allowPriv"));
    assert_eq!(verdict.audit["enforce-policy"], "baseline:v1.30");
    assert!(verdict.audit["audit-violations"].starts_with("would violate PodSecurity \"restricted:latest\""));
    let bad = pod(json!({"hostIPC": true}), json!({}));
    let verdict = plugin.judge(&all, &bad, true);
    let wanted = "violates PodSecurity \"baseline:v1.30\": host namespaces (hostIPC=true)";
    assert_eq!(verdict.refusal.as_deref(), Some(wanted));
    assert_eq!(verdict.warning, None, "who is refused is not warned as well");
    let template = plugin.judge(&all, &bad, false);
    assert_eq!((template.refusal.is_none(), template.warning.is_some()), (true, true));
    let exempt = PodSecurity {
        exemptions: Exemptions { runtime_classes: vec!["vm".into()], ..Exemptions::default() },
        ..PodSecurity::default()
    };
    let in_vm = pod(json!({"hostIPC": true, "runtimeClassName": "vm"}), json!({}));
    assert_eq!(exempt.judge(&all, &in_vm, true).refusal, None);
}

#[test]
fn existing_pods_are_counted_by_what_is_wrong() {
    let named = |name: &str, spec: Value, owner: Option<&str>| {
        let mut one = pod(spec, json!({}));
        one["metadata"]["name"] = json!(name);
        if let Some(uid) = owner {
            one["metadata"]["ownerReferences"] = json!([{"uid": uid, "controller": true}]);
        }
        Object::from(one)
    };
    let net = json!({"hostNetwork": true});
    let pods = vec![
        named("c", net.clone(), Some("1")),
        named("b", net.clone(), Some("1")),
        named("d", net, None),
        named("e", json!({"volumes": [{"name": "v", "hostPath": {}}]}), None),
        named("f", json!({}), None),
    ];
    assert_eq!(
        PodSecurity::default().warnings(pods, "ns", level(Level::Baseline, "latest")),
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "b (and 2 other pods): host namespaces",
            "e: hostPath volumes",
        ]
    );
}

#[test]
fn only_new_images_are_judged_again() {
    let old = Object::from(json!({"spec": {"containers": [{"name": "a", "image": "1"}]}}));
    let cases = [
        (json!({"containers": [{"name": "a", "image": "1"}], "activeDeadlineSeconds": 1}), false),
        (json!({"containers": [{"name": "a", "image": "2"}]}), true),
        (json!({"containers": [{"name": "a", "image": "1"}], "ephemeralContainers": [{"name": "e"}]}), true),
    ];
    for (spec, wanted) in cases {
        let new = Object::from(json!({"spec": spec}));
        assert_eq!(is_significant(&new, &old), wanted, "{spec}");
    }
}
