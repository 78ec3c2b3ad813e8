"""What a client relies on beyond the verbs: watches, pages, field validation, apply, quotas, defaults, reviews; by the
typed and the dynamic client."""

import base64
import threading

import driver
from driver import client, refused, test, until
from kubernetes import watch

APPLY = "application/apply-patch+yaml"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
POD = {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"none": "such"}}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def config_map(name, labels=None, **data):
    metadata = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **({"data": data} if data else {})}


# ---- watches ----


def follow(cluster, namespace, version, count, selector=""):
    """The next events of a namespace's ConfigMaps after a version."""
    found = []
    stream = watch.Watch().stream(
        cluster.core.list_namespaced_config_map, namespace, resource_version=version, label_selector=selector, timeout_seconds=60
    )
    for event in stream:
        found.append((event["type"], event["object"].metadata.name, event["object"].metadata.resource_version))
        if len(found) == count:
            return found
    raise AssertionError(f"the watch ended after {found}")


def six_writes(cluster, namespace):
    core = cluster.core
    core.create_namespaced_config_map(namespace, config_map("a", {"l": "x"}))
    core.create_namespaced_config_map(namespace, config_map("b", {"l": "y"}))
    core.patch_namespaced_config_map("a", namespace, {"data": {"k": "1"}})
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"l": "y"}}})
    core.patch_namespaced_config_map("a", namespace, {"metadata": {"labels": {"l": "x"}}})
    core.delete_namespaced_config_map("a", namespace)


def version_of(cluster, namespace):
    return cluster.core.list_namespaced_config_map(namespace).metadata.resource_version


@test
def a_watch_shows_what_its_selector_chooses(cluster):
    with cluster.namespace() as namespace:
        until(lambda: cluster.core.list_namespaced_config_map(namespace).items)  # kube-root-ca.crt
        begin = version_of(cluster, namespace)
        six_writes(cluster, namespace)
        kinds = lambda events: [(kind, name) for kind, name, _ in events]
        chosen = follow(cluster, namespace, begin, 5, "l=x")
        # what leaves the selector is deleted for this watch, and added when it comes back
        assert kinds(chosen) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a"), ("DELETED", "a")], chosen
        other = follow(cluster, namespace, begin, 3, "l=y")
        assert kinds(other) == [("ADDED", "b"), ("ADDED", "a"), ("DELETED", "a")], other


@test
def a_watch_goes_on_from_any_version(cluster):
    with cluster.namespace() as namespace:
        until(lambda: cluster.core.list_namespaced_config_map(namespace).items)
        begin = version_of(cluster, namespace)
        six_writes(cluster, namespace)
        whole = follow(cluster, namespace, begin, 6)
        assert [kind for kind, _, _ in whole] == ["ADDED", "ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
        for position, (_, _, version) in enumerate(whole[:-1]):
            assert follow(cluster, namespace, version, 5 - position) == whole[position + 1 :], version


@test
def concurrent_watches_agree_on_the_order(cluster):
    with cluster.namespace() as namespace:
        until(lambda: cluster.core.list_namespaced_config_map(namespace).items)
        begin = version_of(cluster, namespace)
        count = 60

        def write():
            for number in range(count // 3):
                name = f"m-{number % 4}-{number}"
                cluster.core.create_namespaced_config_map(namespace, config_map(name))
                cluster.core.patch_namespaced_config_map(name, namespace, {"data": {"n": str(number)}})
                cluster.core.delete_namespaced_config_map(name, namespace)

        writing = threading.Thread(target=write)
        writing.start()
        results = [None] * 8

        def look(index):
            results[index] = follow(cluster, namespace, begin, count)

        looking = [threading.Thread(target=look, args=(index,)) for index in range(len(results))]
        [one.start() for one in looking]
        [one.join() for one in [writing, *looking]]
        versions = [int(version) for _, _, version in results[0]]
        assert versions == sorted(set(versions)) and len(versions) == count
        assert all(result == results[0] for result in results)


@test
def old_versions_are_gone(cluster):
    status, answer = cluster.json("GET", "/api/v1/configmaps?resourceVersion=1&resourceVersionMatch=Exact")
    assert status in (200, 410), answer
    status, answer = cluster.json("GET", "/api/v1/configmaps?continue=bm90aGluZw")
    assert (status, answer["reason"]) == (400, "BadRequest"), answer
    future = "/api/v1/configmaps?resourceVersion=99999999&timeoutSeconds=1"
    status, answer = cluster.json("GET", future)
    assert (status, answer["reason"]) == (504, "Timeout"), answer
    assert "Too large resource version" in answer["message"], answer


# ---- lists ----


@test
def lists_come_in_pages(cluster):
    with cluster.namespace() as namespace:
        for number in range(40):
            template = {"metadata": {"name": f"t-{number:02}", "labels": {"of": "pages"}}, "template": TEMPLATE}
            cluster.core.create_namespaced_pod_template(namespace, template)
        names, token, version, left = [], None, None, 40
        while True:
            page = cluster.core.list_namespaced_pod_template(namespace, limit=7, _continue=token)
            names += [item.metadata.name for item in page.items]
            left -= len(page.items)
            version = version or page.metadata.resource_version
            assert page.metadata.resource_version == version, "pages are of one moment"
            assert (page.metadata.remaining_item_count or 0) == left
            # what happens meanwhile is not in the pages
            cluster.core.delete_namespaced_pod_template(f"t-{39 - (len(names) - 1) // 7:02}", namespace)
            token = page.metadata._continue
            if not token:
                break
            assert len(page.items) == 7
        assert names == [f"t-{number:02}" for number in range(40)], names
        whole = cluster.core.list_namespaced_pod_template(namespace)
        assert len(whole.items) == 34 and whole.metadata._continue is None


@test
def a_table_of_what_has_none_is_not_acceptable(cluster):
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status, answer = cluster.json("POST", path, review, table)
    assert (status, answer["reason"]) == (406, "NotAcceptable"), answer


# ---- discovery ----


@test
def every_group_can_be_found(cluster):
    _, groups = cluster.json("GET", "/apis")
    assert len(groups["groups"]) > 15
    for group in groups["groups"]:
        versions = [version["groupVersion"] for version in group["versions"]]
        assert group["preferredVersion"]["groupVersion"] in versions, group
        for version in versions:
            _, found = cluster.json("GET", f"/apis/{version}")
            assert found["groupVersion"] == version and found["resources"], found


@test
def discovery_comes_in_one_piece(cluster):
    for path, part in [("/apis", "apps"), ("/api", "")]:
        status, headers, text = cluster.raw("GET", path, headers={"Accept": AGGREGATED})
        assert status == 200 and "APIGroupDiscoveryList" in headers["Content-Type"], headers
        found = driver.json.loads(text)
        assert part in [item["metadata"].get("name", "") for item in found["items"]], text[:500]
        resources = [one["resource"] for item in found["items"] for version in item["versions"] for one in version["resources"]]
        assert ("pods" if path == "/api" else "deployments") in resources
        again = cluster.raw("GET", path, headers={"Accept": AGGREGATED, "If-None-Match": headers["ETag"]})
        assert again[0] == 304
    # who asks for both gets the better one
    status, headers, _ = cluster.raw("GET", "/apis", headers={"Accept": f"{AGGREGATED},application/json"})
    assert "v=v2" in headers["Content-Type"], headers


@test
def the_server_has_a_version(cluster):
    version = client.VersionApi(cluster.api).get_code()
    assert (int(version.major), int(version.minor)) == (1, 36), version


# ---- fields ----


@test
def unknown_and_duplicate_fields_are_found(cluster):
    with cluster.namespace() as namespace:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        spec = '"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}'
        body = f'{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"}},"spec":{{"paused":true,"paused":true,"unknown":1,{spec}}}}}'
        status, _, text = cluster.raw("POST", f"{path}?fieldValidation=Strict", body)
        said = driver.json.loads(text)["message"]
        assert status == 400 and 'unknown field "spec.unknown"' in said and 'duplicate field "spec.paused"' in said, text
        status, headers, text = cluster.raw("POST", f"{path}?fieldValidation=Warn", body)
        warnings = headers["Warning"].replace("\\", "")
        assert status == 201 and 'unknown field "spec.unknown"' in warnings, (text, warnings)
        assert 'duplicate field "spec.paused"' in warnings, warnings
        status, headers, text = cluster.raw("POST", f"{path}?fieldValidation=Ignore&dryRun=All", body.replace('"d"', '"e"'))
        assert status == 201 and "Warning" not in headers, (text, headers)
        patch = '{"spec":{"paused":true,"paused":false,"unknown":{"a":[1,null]}}}'
        for kind, shown in [("merge", '"unknown":{"a":[1,null]}'), ("strategic-merge", "map[spec:map[paused:false unknown:map[a:[1 <nil>]]]]")]:
            headers = {"Content-Type": f"application/{kind}-patch+json"}
            status, answer = cluster.json("PATCH", f"{path}/d?fieldValidation=Strict", patch, headers)
            cause = answer["details"]["causes"][0]
            assert status == 422 and cause["field"] == "patch" and shown in cause["message"].replace("\\", ""), answer
            assert 'strict decoding error: duplicate field "spec.paused", unknown field "spec.unknown"' in answer["message"].replace("\\", ""), answer


@test
def unknown_fields_of_metadata_are_found(cluster):
    with cluster.namespace() as namespace:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        body = {"metadata": {"name": "a", "unknownMeta": "x"}}
        status, answer = cluster.json("POST", f"{path}?fieldValidation=Strict", body)
        assert status == 400 and 'unknown field "metadata.unknownMeta"' in answer["message"], answer


@test
def keys_may_not_be_empty(cluster):
    with cluster.namespace() as namespace:
        with refused(422, "Invalid", "data[]: Invalid value"):
            cluster.core.create_namespaced_config_map(namespace, config_map("a", **{"": "x"}))
        with refused(422, "Invalid", "data[]: Invalid value"):
            cluster.core.create_namespaced_secret(namespace, {"metadata": {"name": "a"}, "stringData": {"": "x"}})


@test
def immutable_data_stays(cluster):
    kinds = [
        (cluster.core.create_namespaced_config_map, cluster.core.patch_namespaced_config_map, cluster.core.delete_namespaced_config_map, "v"),
        (cluster.core.create_namespaced_secret, cluster.core.patch_namespaced_secret, cluster.core.delete_namespaced_secret, base64.b64encode(b"v").decode()),
    ]
    with cluster.namespace() as namespace:
        for create, patch, delete, value in kinds:
            create(namespace, {"metadata": {"name": "a"}, "data": {"k": value}})
            patch("a", namespace, {"data": {"l": value}})
            patch("a", namespace, {"immutable": True})
            with refused(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set"):
                patch("a", namespace, {"data": {"l": value * 2 if value == "v" else "dnY="}})
            with refused(422, "Invalid", "immutable: Forbidden: field is immutable when `immutable` is set"):
                patch("a", namespace, {"immutable": False})
            assert patch("a", namespace, {"metadata": {"labels": {"x": "y"}}}).metadata.labels == {"x": "y"}
            delete("a", namespace)


@test
def a_dry_run_changes_nothing(cluster):
    with cluster.namespace() as namespace:
        cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "p"}, "spec": POD})
        change = {"spec": {"containers": [{"name": "c", "image": "other"}]}}
        tried = cluster.core.patch_namespaced_pod("p", namespace, change, dry_run="All")
        assert tried.spec.containers[0].image == "other"
        assert cluster.core.read_namespaced_pod("p", namespace).spec.containers[0].image == "i"


# ---- apply ----


@test
def apply_keeps_who_owns_what(cluster):
    resource = cluster.dynamic.resources.get(api_version="v1", kind="ConfigMap")
    with cluster.namespace() as namespace:
        def apply(manager, force=False, **data):
            return resource.server_side_apply(
                body=config_map("m", **data), namespace=namespace, field_manager=manager, force_conflicts=force
            ).to_dict()

        apply("one", a="1", b="1")
        assert apply("two", c="2")["data"] == {"a": "1", "b": "1", "c": "2"}
        with refused(409, "Conflict", 'conflict with "one": .data.a'):
            apply("two", a="2", c="2")
        owned = apply("two", force=True, a="2", c="2")
        assert owned["data"]["a"] == "2"
        managers = {entry["manager"]: entry["fieldsV1"]["f:data"] for entry in owned["metadata"]["managedFields"]}
        assert set(managers["one"]) == {"f:b"} and set(managers["two"]) == {"f:a", "f:c"}, managers
        # what a manager no longer says is gone, if nobody else says it
        assert apply("one")["data"] == {"a": "2", "c": "2"}
        typed = cluster.core.patch_namespaced_config_map(
            "typed", namespace, config_map("typed", x="y"), field_manager="typed", _content_type=APPLY
        )
        assert typed.data == {"x": "y"} and typed.metadata.managed_fields[0].operation == "Apply"


# ---- what the cluster adds, counts and allows ----


@test
def limit_ranges_fill_in_and_bound(cluster):
    with cluster.namespace() as namespace:
        limits = [{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]
        cluster.core.create_namespaced_limit_range(namespace, {"metadata": {"name": "l"}, "spec": {"limits": limits}})
        made = cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "p"}, "spec": POD})
        resources = made.spec.containers[0].resources
        assert (resources.requests, resources.limits) == ({"cpu": "100m"}, {"cpu": "500m"}), resources
        greedy = {**POD, "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]}
        with refused(403, "Forbidden", "maximum cpu usage per Container is 1, but limit is 2"):
            cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "q"}, "spec": greedy})
        limits[0]["max"] = {"cpu": "2"}
        cluster.core.patch_namespaced_limit_range("l", namespace, {"spec": {"limits": limits}})
        until(lambda: cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "q"}, "spec": greedy}))


def used(cluster, namespace, name, **wanted):
    wanted = {key.replace("_", "."): value for key, value in wanted.items()}

    def matches():
        status = cluster.core.read_namespaced_resource_quota(name, namespace).status
        return status.used is not None and all(status.used.get(key) == value for key, value in wanted.items())

    until(matches)


@test
def quotas_follow_what_comes_and_goes(cluster):
    core, apps = cluster.core, client.AppsV1Api(cluster.api)
    with cluster.namespace() as namespace:
        hard = {"configmaps": "3", "secrets": "2", "services": "2", "count/replicasets.apps": "2", "replicationcontrollers": "1", "pods": "2", "requests.cpu": "1", "resourcequotas": "1"}
        core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
        used(cluster, namespace, "q", resourcequotas="1", configmaps="1", secrets="0", services="0", pods="0")
        replicas = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
        cases = [
            ("configmaps", "1", "2", lambda: core.create_namespaced_config_map(namespace, config_map("x")), lambda: core.delete_namespaced_config_map("x", namespace)),
            ("secrets", "0", "1", lambda: core.create_namespaced_secret(namespace, {"metadata": {"name": "x"}}), lambda: core.delete_namespaced_secret("x", namespace)),
            ("services", "0", "1", lambda: core.create_namespaced_service(namespace, {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}), lambda: core.delete_namespaced_service("x", namespace)),
            ("count/replicasets.apps", "0", "1", lambda: apps.create_namespaced_replica_set(namespace, {"metadata": {"name": "x"}, "spec": replicas}), lambda: apps.delete_namespaced_replica_set("x", namespace)),
            ("replicationcontrollers", "0", "1", lambda: core.create_namespaced_replication_controller(namespace, {"metadata": {"name": "x"}, "spec": {**replicas, "selector": {"a": "b"}}}), lambda: core.delete_namespaced_replication_controller("x", namespace)),
        ]
        for name, before, after, create, delete in cases:
            create()
            used(cluster, namespace, "q", **{name: after})
            delete()
            used(cluster, namespace, "q", **{name: before})

        def pod(name, cpu):
            container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
            core.create_namespaced_pod(namespace, {"metadata": {"name": name}, "spec": {**POD, "containers": [container]}})

        pod("one", "600m")
        used(cluster, namespace, "q", pods="1", requests_cpu="600m")
        with refused(403, "Forbidden", "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"):
            pod("two", "500m")
        with refused(422, "Invalid", "pod updates may not change fields other than"):
            container = {"name": "c", "resources": {"requests": {"cpu": "100m"}}}
            core.patch_namespaced_pod("one", namespace, {"spec": {"containers": [container]}})
        core.delete_namespaced_pod("one", namespace, grace_period_seconds=0)
        used(cluster, namespace, "q", pods="0", requests_cpu="0")
        core.patch_namespaced_resource_quota("q", namespace, {"spec": {"hard": {"pods": "5"}}})
        until(lambda: core.read_namespaced_resource_quota("q", namespace).status.hard["pods"] == "5")
        core.delete_namespaced_resource_quota("q", namespace)
        with refused(404, "NotFound"):
            core.read_namespaced_resource_quota("q", namespace)


@test
def quotas_count_what_their_scopes_choose(cluster):
    core = cluster.core
    with cluster.namespace() as namespace:
        for scope in ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating"):
            core.create_namespaced_resource_quota(
                namespace, {"metadata": {"name": scope.lower()}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}}
            )
        counts = lambda *wanted: [used(cluster, namespace, name, pods=str(count)) for name, count in zip(("besteffort", "notbesteffort", "terminating", "notterminating"), wanted)]
        counts(0, 0, 0, 0)
        some = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1m"}}}]
        core.create_namespaced_pod(namespace, {"metadata": {"name": "least"}, "spec": POD})
        counts(1, 0, 0, 1)
        core.create_namespaced_pod(namespace, {"metadata": {"name": "some"}, "spec": {**POD, "containers": some, "activeDeadlineSeconds": 3600}})
        counts(1, 1, 1, 1)
        core.delete_namespaced_pod("least", namespace, grace_period_seconds=0)
        counts(0, 1, 1, 0)
        core.delete_namespaced_pod("some", namespace, grace_period_seconds=0)
        counts(0, 0, 0, 0)


@test
def reviews_say_what_requests_find(cluster):
    core, auth, rbac = cluster.core, client.AuthorizationV1Api(cluster.api), client.RbacAuthorizationV1Api(cluster.api)
    with cluster.namespace() as namespace:
        user = f"system:serviceaccount:{namespace}:default"
        as_account = {"Impersonate-User": user}
        spec = {"user": user, "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "configmaps"}}
        for allowed in (False, True):
            if allowed:
                rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
                rbac.create_namespaced_role(namespace, {"metadata": {"name": "r"}, "rules": rules})
                subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
                role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
                rbac.create_namespaced_role_binding(namespace, {"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]})
                until(lambda: cluster.raw("GET", f"/api/v1/namespaces/{namespace}/configmaps", headers=as_account)[0] == 200)
            else:
                status, answer = cluster.json("GET", f"/api/v1/namespaces/{namespace}/configmaps", headers=as_account)
                assert (status, answer["reason"]) == (403, "Forbidden"), answer
            assert auth.create_subject_access_review({"spec": spec}).status.allowed == allowed
            local = {"metadata": {"namespace": namespace}, "spec": spec}
            assert auth.create_namespaced_local_subject_access_review(namespace, local).status.allowed == allowed
        assert core.list_namespaced_config_map(namespace) is not None


@test
def namespaces_have_a_status_and_finalizers(cluster):
    core = cluster.core
    with cluster.namespace(labels={"a": "b"}) as namespace:
        assert core.read_namespace_status(namespace).status.phase == "Active"
        condition = {"type": "Tested", "status": "True", "reason": "R", "message": "m"}
        core.patch_namespace_status(namespace, {"status": {"conditions": [condition]}})
        assert core.read_namespace(namespace).status.conditions[0].type == "Tested"
        current = core.read_namespace(namespace)
        current.status.conditions[0].message = "replaced"
        assert core.replace_namespace_status(namespace, current).status.conditions[0].message == "replaced"
        current = core.read_namespace(namespace)
        current.spec.finalizers.append("example.com/none")
        core.replace_namespace_finalize(namespace, current)
        assert "example.com/none" in core.read_namespace(namespace).spec.finalizers
        current = core.read_namespace(namespace)
        current.spec.finalizers.remove("example.com/none")
        core.replace_namespace_finalize(namespace, current)
        assert core.read_namespace(namespace).spec.finalizers == ["kubernetes"]
        assert core.patch_namespace(namespace, {"metadata": {"labels": {"c": "d"}}}).metadata.labels["c"] == "d"
        current = core.read_namespace(namespace)
        current.metadata.labels["e"] = "f"
        assert core.replace_namespace(namespace, current).metadata.labels["e"] == "f"


@test
def a_priority_class_keeps_its_value(cluster):
    api = client.SchedulingV1Api(cluster.api)
    api.create_priority_class({"metadata": {"name": "clients"}, "value": 5, "description": "one"})
    try:
        assert "clients" in [item.metadata.name for item in api.list_priority_class().items]
        assert api.patch_priority_class("clients", {"description": "two"}).description == "two"
        with refused(422, "Invalid", "may not be changed in an update"):
            api.patch_priority_class("clients", {"value": 6})
        current = api.read_priority_class("clients")
        current.value = 7
        with refused(422, "Invalid", "may not be changed in an update"):
            api.replace_priority_class("clients", current)
    finally:
        api.delete_priority_class("clients")


@test
def scales_are_read_and_written_alone(cluster):
    apps, core = client.AppsV1Api(cluster.api), cluster.core
    with cluster.namespace() as namespace:
        spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {**TEMPLATE, "spec": POD}}
        controller = {**spec, "selector": {"a": "b"}}
        apps.create_namespaced_deployment(namespace, {"metadata": {"name": "x"}, "spec": spec})
        apps.create_namespaced_replica_set(namespace, {"metadata": {"name": "x"}, "spec": spec})
        apps.create_namespaced_stateful_set(namespace, {"metadata": {"name": "x"}, "spec": {**spec, "serviceName": "s"}})
        core.create_namespaced_replication_controller(namespace, {"metadata": {"name": "x"}, "spec": controller})
        kinds = [(apps, "deployment"), (apps, "replica_set"), (apps, "stateful_set"), (core, "replication_controller")]
        for api, kind in kinds:
            scale = getattr(api, f"read_namespaced_{kind}_scale")("x", namespace)
            assert scale.spec.replicas in (0, None) and scale.kind == "Scale", scale
            scale.spec.replicas = 2
            assert getattr(api, f"replace_namespaced_{kind}_scale")("x", namespace, scale).spec.replicas == 2
            assert getattr(api, f"read_namespaced_{kind}")("x", namespace).spec.replicas == 2
            assert getattr(api, f"patch_namespaced_{kind}_scale")("x", namespace, {"spec": {"replicas": 1}}).spec.replicas == 1


@test
def a_service_is_found_with_its_endpoints(cluster):
    found = [(one.metadata.namespace, one.metadata.name) for one in cluster.core.list_service_for_all_namespaces().items]
    assert ("default", "kubernetes") in found, found
    slices = client.DiscoveryV1Api(cluster.api).list_namespaced_endpoint_slice(
        "default", label_selector="kubernetes.io/service-name=kubernetes"
    )
    endpoints = cluster.core.read_namespaced_endpoints("kubernetes", "default")
    addresses = [address.ip for subset in endpoints.subsets for address in subset.addresses]
    assert addresses == [a for one in slices.items for endpoint in one.endpoints for a in endpoint.addresses], slices


@test
def every_namespace_has_the_root_certificate(cluster):
    core = cluster.core
    with cluster.namespace() as namespace:
        read = lambda: core.list_namespaced_config_map(namespace, field_selector="metadata.name=kube-root-ca.crt").items
        first = until(read)[0]
        assert "BEGIN CERTIFICATE" in first.data["ca.crt"]
        core.delete_namespaced_config_map("kube-root-ca.crt", namespace)
        until(lambda: read() and read()[0].metadata.uid != first.metadata.uid)
        core.patch_namespaced_config_map("kube-root-ca.crt", namespace, {"data": {"ca.crt": "changed"}})
        until(lambda: read()[0].data == first.data)


@test
def a_pod_whose_runtime_class_is_gone_is_refused(cluster):
    api = client.NodeV1Api(cluster.api)
    pod = {"metadata": {"name": "p"}, "spec": {**POD, "runtimeClassName": "clients"}}
    with cluster.namespace() as namespace:
        with refused(403, "Forbidden", "pod rejected: RuntimeClass \"clients\" not found"):
            cluster.core.create_namespaced_pod(namespace, pod)
        overhead = {"podFixed": {"cpu": "10m", "memory": "1Mi"}}
        api.create_runtime_class({"metadata": {"name": "clients"}, "handler": "h", "overhead": overhead})
        until(lambda: api.read_runtime_class("clients"))
        made = cluster.core.create_namespaced_pod(namespace, pod)
        assert made.spec.overhead == {"cpu": "10m", "memory": "1Mi"}, made.spec
        cluster.core.delete_namespaced_pod("p", namespace, grace_period_seconds=0)
        api.delete_runtime_class("clients")
        with refused(403, "Forbidden", "pod rejected"):
            cluster.core.create_namespaced_pod(namespace, pod)


@test
def pods_have_a_class_of_service(cluster):
    full = [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1m", "memory": "8Mi"}}}]
    with cluster.namespace() as namespace:
        made = cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "p"}, "spec": {**POD, "containers": full}})
        assert made.status.qos_class == "Guaranteed", made.status
        made = cluster.core.create_namespaced_pod(namespace, {"metadata": {"name": "q"}, "spec": POD})
        assert made.status.qos_class == "BestEffort", made.status


driver.main()
