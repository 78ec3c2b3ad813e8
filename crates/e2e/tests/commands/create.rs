//! What `create`, `run`, `expose` and `autoscale` make of their flags, which `--dry-run=server` tries first.

use e2e::or_skip;

use crate::walk::{Walk, controller, deployment, pod};

#[test]
fn every_generator_is_tried_and_then_makes() {
    or_skip!();
    let walk = Walk::new("made");
    let cases = [
        ("configmap x --from-literal=k=v", "configmap/x", "{.data}", r#"{"k":"v"}"#),
        (
            "cronjob x --image=i:1 '--schedule=*/5 * * * *' -- a 'b c'",
            "cronjob.batch/x",
            "{.spec.jobTemplate.spec.template.spec.containers[0].command}",
            r#"["a","b c"]"#,
        ),
        (
            "deployment x --image=i:1 --replicas=2 -- a b",
            "deployment.apps/x",
            "{.spec.replicas} {.spec.revisionHistoryLimit}",
            "2 10",
        ),
        (
            "job x --from=cronjob/x",
            "job.batch/x",
            r"{.metadata.labels.job-name} {.spec.template.spec.containers[0].command}",
            r#"x ["a","b c"]"#,
        ),
        (
            "ingress x --rule=h/p=s:80",
            "ingress.networking.k8s.io/x",
            "{.spec.rules[0].http.paths[0].backend.service.port.number}",
            "80",
        ),
        ("namespace made-x", "namespace/made-x", "{.status.phase}", "Active"),
        ("poddisruptionbudget x --selector=a=b --min-available=50%", "pdb/x", "{.spec.minAvailable}", "50%"),
        ("poddisruptionbudget y --selector=a=b --max-unavailable=2", "pdb/y", "{.spec.maxUnavailable}", "2"),
        (
            "priorityclass x --value=7",
            "priorityclass/x",
            "{.value} {.preemptionPolicy}",
            "7 PreemptLowerPriority",
        ),
        ("quota x --hard=pods=99,services=99", "quota/x", "{.spec.hard}", r#"{"pods":"99","services":"99"}"#),
        (
            "role x --verb=get --resource=pods,deployments.apps/scale",
            "role/x",
            "{.rules[*].apiGroups} {.rules[*].resources}",
            r#"[""] ["apps"] ["pods"] ["deployments/scale"]"#,
        ),
        (
            "rolebinding x --role=x --user=u",
            "rolebinding/x",
            "{.subjects[0].kind} {.roleRef.kind}",
            "User Role",
        ),
        (
            "clusterrole made-x --verb=get --non-resource-url=/logs/*",
            "clusterrole/made-x",
            "{.rules[0].nonResourceURLs}",
            r#"["/logs/*"]"#,
        ),
        (
            "clusterrolebinding made-x --clusterrole=made-x --serviceaccount=a:b",
            "clusterrolebinding/made-x",
            "{.subjects[0].namespace}:{.subjects[0].name}",
            "a:b",
        ),
        (
            "secret generic x --type=test-type --from-literal=k=v",
            "secret/x",
            "{.type} {.data.k}",
            "test-type dg==",
        ),
        (
            "secret docker-registry y --docker-username=u --docker-password=p",
            "secret/y",
            "{.type}",
            "kubernetes.io/dockerconfigjson",
        ),
        ("service clusterip x --tcp=80:8080", "service/x", "{.spec.ports[0].targetPort}", "8080"),
        ("service nodeport y --tcp=80 --node-port=30123", "service/y", "{.spec.ports[0].nodePort}", "30123"),
        ("service externalname z --external-name=example.com", "service/z", "{.spec.type}", "ExternalName"),
        ("serviceaccount x", "sa/x", "{.metadata.name}", "x"),
    ];
    for (line, what, path, wanted) in cases {
        let (before, after) = line.split_once(" -- ").unwrap_or((line, ""));
        let after = if after.is_empty() { String::new() } else { format!(" -- {after}") };
        walk.says(&format!("create {before} --dry-run=server{after}"), "created (server dry run)");
        let template = walk.ok(&format!("create {before} --template={{{{.metadata.name}}}}:{after}"));
        assert!(template.ends_with(':'), "{line}: {template}");
        walk.is(what, path, wanted);
    }
    walk.fails(
        "create poddisruptionbudget z --selector=a=b --min-available=1 --max-unavailable=1",
        "min-available and max-unavailable cannot be both specified",
    );
    walk.fails(
        "create role z --verb=get --resource=oddities",
        "the server doesn't have a resource type \"oddities\"",
    );
    walk.fails("create configmap x", "configmaps \"x\" already exists");

    let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"a":"djE=","b":""},"stringData":{"b":"v2"}}"#;
    walk.ok(&format!("create -f {}", walk.file("s.json", secret)));
    walk.is("secret s", "{.data} {.stringData}", r#"{"a":"djE=","b":"djI="} "#);
    let precise = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"precise"},"spec":{"activeDeadlineSeconds":2147483647,"containers":[{"name":"c","image":"c:1"}],"securityContext":{"supplementalGroups":[0,1000030003,2147483647]}}}"#;
    walk.ok(&format!("create -f {}", walk.file("p.json", precise)));
    walk.ok("label pod precise a=b");
    walk.is(
        "pod precise",
        "{.spec.activeDeadlineSeconds} {.spec.securityContext.supplementalGroups}",
        "2147483647 [0,1000030003,2147483647]",
    );
    let nothing =
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: nothing}\nspec: {hard: {limits.cpu: null}}\n";
    walk.ok(&format!("create -f {}", walk.file("q.yaml", nothing)));
    walk.is("quota nothing", "{.spec.hard}", r#"{"limits.cpu":"0"}"#);
}

#[test]
fn fields_that_do_not_belong_are_treated_as_asked() {
    or_skip!();
    let walk = Walk::new("validated");
    let wrong =
        deployment("d", "web:1").replace("  replicas: 1\n", "  replicas: 1\n  foo: bar\n  baz: qux\n");
    let file = walk.file("wrong.yaml", &wrong);
    let why = "strict decoding error: unknown field \"spec.baz\", unknown field \"spec.foo\"";
    for mode in ["", "--validate", "--validate=true", "--validate=strict"] {
        walk.fails(&format!("create -f {file} {mode}"), why);
    }
    for (mode, warns) in [("false", false), ("ignore", false), ("warn", true)] {
        let said = walk.fed(&format!("create -f {file} --validate={mode}"), "");
        assert!(
            said.ok && said.stderr.contains("Warning: unknown field \"spec.foo\"") == warns,
            "{mode}: {said:?}"
        );
        walk.ok("delete deployment d");
    }
    walk.fails(&format!("create -f {file} --validate=odd"), "invalid - validate option \"odd\"");
    let pod = walk.file("pod.yaml", &pod("p", "p"));
    walk.fails(
        &format!("create --raw /api/v1/namespaces -f {pod}"),
        "the object provided is unrecognized (must be of type Namespace)",
    );
    let folder = walk.file("folder/a.yaml", &crate::walk::pod("a", "a"));
    walk.file("folder/b/c.yaml", "apiVersion: v1\nmetadata: {name: c}\n");
    let folder = folder.trim_end_matches("/a.yaml");
    walk.fails(&format!("create -R -f {folder}"), "kind not set");
    walk.fails(&format!("label -R -f {folder} l=m"), "Object 'Kind' is missing");
    walk.names("pods -l l=m", "a");
}

#[test]
fn what_runs_is_exposed_and_scaled() {
    or_skip!();
    let walk = Walk::new("exposed");
    walk.says(
        "run web --image=i:1 --port=80 --expose --dry-run=server",
        "service/web created (server dry run)",
    );
    walk.ok("run web --image=i:1 --port=80 --expose");
    walk.is("service web", "{.spec.selector} {.spec.ports[0].port}", r#"{"run":"web"} 80"#);
    walk.ok(&format!("create -f {}", walk.file("d.yaml", &deployment("d", "web:1"))));
    let file = walk.file("rc.yaml", &controller("rc"));
    walk.ok(&format!("create -f {file}"));
    for (line, name, wanted) in [
        ("pod web --port=1000 --target-port=80 --type=NodePort --name=a", "a", r#"{"run":"web"} 1000 80"#),
        ("deployment d", "d", r#"{"of":"d"} 80 80"#),
        (&format!("-f {file} --port=81"), "rc", r#"{"of":"rc"} 81 81"#),
        ("service rc --port=443 --name=b", "b", r#"{"of":"rc"} 443 443"#),
    ] {
        walk.ok(&format!("expose {line}"));
        walk.is(
            &format!("service {name}"),
            "{.spec.selector} {.spec.ports[0].port} {.spec.ports[0].targetPort}",
            wanted,
        );
    }
    walk.fails(
        "expose rc rc --port=80 --name=a-name-that-has-more-than-sixty-three-characters-is-too-long-for-it",
        "metadata.name: Invalid value",
    );
    walk.fails("scale rc rc --current-replicas=9 --replicas=2", "Expected replicas to be 9, was 3");
    walk.ok("scale rc/rc deployment/d --replicas=2");
    walk.is("rc/rc deployment/d", "{.items[*].spec.replicas} {.items[*].metadata.generation}", "2 2 2 2");
    walk.ok("scale deployment --all --replicas=4 --dry-run=server");
    walk.fails("scale deployment -l of=nothing --replicas=4", "no objects passed to scale");
    walk.is("deployment d", "{.spec.replicas}", "2");
    walk.fails("scale deployment d --replicas=2 --resource-version=1", "Expected resource version to be 1");
    walk.ok(&format!("autoscale -f {file} --min=2 --max=3"));
    walk.is(
        "hpa rc",
        "{.apiVersion} {.spec.minReplicas} {.spec.metrics[0].resource.target.averageUtilization}",
        "autoscaling/v2 2 80",
    );
    walk.is(
        "horizontalpodautoscalers.v1.autoscaling rc",
        "{.apiVersion} {.spec.targetCPUUtilizationPercentage}",
        "autoscaling/v1 80",
    );
    walk.fails("autoscale rc rc", "max");
}
