"""Every kind through its verbs by the dynamic client: discovery, create, get, list here and everywhere, watch, patch,
update, status where there is one, delete, and delete of a collection."""

import copy
import threading

import driver
from driver import test, until

POD = {"containers": [{"name": "c", "image": "i"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
ONCE = {**TEMPLATE, "spec": {**POD, "restartPolicy": "Never"}}
SELECTOR = {"matchLabels": {"a": "b"}}
RULES = {"resourceRules": [{"apiGroups": ["none.example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nones"]}]}
HOOK = [{
    "name": "a.b.c", "clientConfig": {"url": "https://127.0.0.1:1"}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
    "rules": [{"apiGroups": ["none.example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nones"]}],
    "matchConditions": [{"name": "m", "expression": "true"}],
}]
# a request for the certificate of CN=tester, O=testers
REQUEST = (
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIZE1JR0ZBZ0VBTUNNeEVEQU9CZ05WQkFvTUIzUmxjM1JsY25NeER6QU5CZ05W"
    "QkFNTUJuUmxjM1JsY2pCWgpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQUJDQUJDbXA0cTdHdXR2M3hFTmQveGt2bHpoMGNvVFBLClll"
    "SEhRdkN1K0RWRFFWYzhNdEVVRnJrNGN5TnY4djErVEROc0FwV3U0U3dyUzFJTkFFVUhUTUNnQURBS0JnZ3EKaGtqT1BRUURBZ05IQURCRUFpQmta"
    "YkdDdEUya2RpdnkxVzNWWWhyRVBCRWxYOVBpWDVuTy8zKzVqYXMrWFFJZwpYSnF2V3pXZFVyYmkwMi9DUmQxdEo1NHFrR2h6a1dtNkxRWHBnKzhJ"
    "dEFFPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"
)
CONDITION = {"type": "Tested", "status": "True", "reason": "Because", "message": "of a test", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def condition(**more):
    return {"conditions": [{**CONDITION, **more}]}


# group and version, kind, what an object has besides its name, what is patched into its status
KINDS = [
    ("v1", "ConfigMap", {"data": {"k": "v"}}, None),
    ("v1", "Secret", {"stringData": {"k": "v"}}, None),
    ("v1", "Service", {"spec": {"ports": [{"port": 80}]}}, condition()),
    ("v1", "ServiceAccount", {}, None),
    ("v1", "PodTemplate", {"template": TEMPLATE}, None),
    ("v1", "LimitRange", {"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}, None),
    ("v1", "ResourceQuota", {"spec": {"hard": {"count/nones.none.example": "1"}}}, {"hard": {"count/nones.none.example": "1"}}),
    ("v1", "Endpoints", {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}, None),
    ("v1", "Event", {"involvedObject": {"namespace": "?"}, "reason": "R", "message": "m"}, None),
    ("v1", "ReplicationController", {"spec": {"replicas": 0, "selector": {"a": "b"}, "template": TEMPLATE}}, {"replicas": 0}),
    ("v1", "PersistentVolumeClaim", {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}, condition()),
    ("v1", "PersistentVolume", {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/nowhere"}}}, {"message": "m", "reason": "r"}),
    ("v1", "Pod", {"spec": {**POD, "nodeSelector": {"none": "such"}}}, condition()),
    ("v1", "Node", {}, condition()),
    ("apps/v1", "Deployment", {"spec": {"replicas": 0, "selector": SELECTOR, "template": TEMPLATE}}, condition()),
    ("apps/v1", "ReplicaSet", {"spec": {"replicas": 0, "selector": SELECTOR, "template": TEMPLATE}}, condition()),
    ("apps/v1", "StatefulSet", {"spec": {"replicas": 0, "serviceName": "s", "selector": SELECTOR, "template": TEMPLATE}}, condition()),
    ("apps/v1", "DaemonSet", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}, condition()),
    ("apps/v1", "ControllerRevision", {"revision": 1, "data": {"a": 1}}, None),
    ("batch/v1", "Job", {"spec": {"suspend": True, "template": ONCE}}, condition()),
    ("batch/v1", "CronJob", {"spec": {"suspend": True, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": ONCE}}}}, {"lastScheduleTime": "2026-01-01T00:00:00Z"}),
    ("policy/v1", "PodDisruptionBudget", {"spec": {"minAvailable": 1, "selector": SELECTOR}}, condition()),
    ("networking.k8s.io/v1", "Ingress", {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}, {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}),
    ("networking.k8s.io/v1", "IngressClass", {"spec": {"controller": "a.b/c"}}, None),
    ("networking.k8s.io/v1", "NetworkPolicy", {"spec": {"podSelector": {}}}, None),
    ("discovery.k8s.io/v1", "EndpointSlice", {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}, None),
    ("events.k8s.io/v1", "Event", {"regarding": {"namespace": "?"}, "reason": "R", "action": "A", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "a.b/c", "reportingInstance": "i"}, None),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", {"spec": {"request": REQUEST, "signerName": "example.com/none", "usages": ["client auth"]}}, condition()),
    ("coordination.k8s.io/v1", "Lease", {"spec": {"holderIdentity": "h"}}, None),
    ("node.k8s.io/v1", "RuntimeClass", {"handler": "h"}, None),
    ("scheduling.k8s.io/v1", "PriorityClass", {"value": 7}, None),
    ("storage.k8s.io/v1", "StorageClass", {"provisioner": "a.b/c"}, None),
    ("storage.k8s.io/v1", "CSIDriver", {"spec": {}}, None),
    ("storage.k8s.io/v1", "CSINode", {"spec": {"drivers": []}}, None),
    ("storage.k8s.io/v1", "CSIStorageCapacity", {"storageClassName": "c"}, None),
    ("storage.k8s.io/v1", "VolumeAttachment", {"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}, {"attached": True}),
    ("rbac.authorization.k8s.io/v1", "Role", {"rules": []}, None),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", {"rules": []}, None),
    ("autoscaling/v2", "HorizontalPodAutoscaler", {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "maxReplicas": 3}}, {"currentReplicas": 1, "desiredReplicas": 1}),
    ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", {"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"}}}, condition()),
    ("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}, condition()),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", {"webhooks": HOOK}, None),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", {"webhooks": HOOK}, None),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", {"spec": {"matchConstraints": RULES, "validations": [{"expression": "true"}]}}, condition()),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", {"spec": {"policyName": "none", "validationActions": ["Deny"]}}, None),
]

# kinds whose deletion waits for somebody: a kubelet, a controller
GRACEFUL = {"Pod"}


def body_of(version, kind, more, name, namespace, labels):
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **copy.deepcopy(more)}
    for reference in ("involvedObject", "regarding"):
        if reference in body:
            body[reference] = {"kind": "ConfigMap", "name": "x", "namespace": namespace}
    return body


class Watcher(threading.Thread):
    """Gathers the events of objects with a label."""

    def __init__(self, resource, namespace, selector, version):
        super().__init__(daemon=True)
        self.arguments = dict(namespace=namespace, label_selector=selector, resource_version=version, timeout=120)
        self.resource, self.events, self.failure = resource, [], None

    def run(self):
        try:
            for event in self.resource.watch(**self.arguments):
                self.events.append((event["type"], event["object"].metadata.name))
        except Exception as failure:
            self.failure = failure

    def until(self, kind, name):
        until(lambda: self.failure or (kind, name) in self.events)
        assert self.failure is None, self.failure


def discovered(cluster, version, kind, has_status):
    """The kind is in the discovery documents from the top down, with all verbs."""
    if "/" in version:
        group = version.split("/")[0]
        _, groups = cluster.json("GET", "/apis")
        found = [entry for entry in groups["groups"] if entry["name"] == group]
        assert version in [entry["groupVersion"] for entry in found[0]["versions"]], groups
        _, one = cluster.json("GET", f"/apis/{group}")
        assert version in [entry["groupVersion"] for entry in one["versions"]], one
    _, resources = cluster.json("GET", f"/{'apis' if '/' in version else 'api'}/{version}")
    names = {entry["name"]: entry for entry in resources["resources"] if entry["kind"] == kind}
    whole = [entry for name, entry in names.items() if "/" not in name][0]
    assert {"create", "get", "list", "watch", "update", "patch", "delete", "deletecollection"} <= set(whole["verbs"]), whole
    status = f"{whole['name']}/status"
    assert (status in names) == has_status, names
    return whole["name"]


def round_of(cluster, version, kind, more, status, namespace):
    plural = discovered(cluster, version, kind, status is not None)
    resource = cluster.dynamic.resources.get(api_version=version, kind=kind)
    if not resource.namespaced:
        namespace = None
    stem = f"{plural}-of-clients"
    mark = {"of": stem}
    selector = f"of={stem}"
    listed = resource.get(namespace=namespace, label_selector=selector)
    assert listed.items == [], listed
    watcher = Watcher(resource, namespace, selector, listed.metadata.resourceVersion)
    watcher.start()

    name = f"{stem}-1"
    made = resource.create(body=body_of(version, kind, more, name, namespace, mark), namespace=namespace)
    assert made.metadata.uid and made.metadata.creationTimestamp and made.metadata.resourceVersion
    watcher.until("ADDED", name)
    got = resource.get(name=name, namespace=namespace)
    assert got.metadata.uid == made.metadata.uid
    # here, and in all namespaces
    for where in {namespace, None}:
        listed = resource.get(namespace=where, label_selector=selector)
        assert [item.metadata.name for item in listed.items] == [name], listed

    change = {"metadata": {"labels": {"patched": "yes"}}}
    patched = resource.patch(name=name, namespace=namespace, body=change, content_type="application/merge-patch+json")
    assert patched.metadata.labels.patched == "yes"
    watcher.until("MODIFIED", name)

    def update():
        current = resource.get(name=name, namespace=namespace).to_dict()
        current["metadata"].setdefault("annotations", {})["updated"] = "yes"
        try:
            return resource.replace(body=current, namespace=namespace)
        except driver.dynamic.exceptions.ConflictError:
            # a controller was faster
            return None

    updated = until(update)
    assert updated.metadata.annotations.updated == "yes"
    assert updated.metadata.labels.patched == "yes"
    stale = updated.to_dict()
    stale["metadata"]["resourceVersion"] = made.metadata.resourceVersion
    with driver.refused(409, "Conflict", "the object has been modified"):
        resource.replace(body=stale, namespace=namespace)

    if status is not None:
        status_round(resource, name, namespace, status)

    grace = {"gracePeriodSeconds": 0} if kind in GRACEFUL else {}
    resource.delete(name=name, namespace=namespace, body={"propagationPolicy": "Background", **grace})
    watcher.until("DELETED", name)
    with driver.refused(404, "NotFound", f'"{name}" not found'):
        resource.get(name=name, namespace=namespace)

    others = [f"{stem}-{number}" for number in (2, 3, 4)]
    for number, other in enumerate(others):
        labels = {**mark, "half": "first" if number < 2 else "second"}
        resource.create(body=body_of(version, kind, more, other, namespace, labels), namespace=namespace)
    resource.delete(namespace=namespace, label_selector=f"{selector},half=first", body=grace)
    until(lambda: [item.metadata.name for item in resource.get(namespace=namespace, label_selector=selector).items] == others[2:])
    resource.delete(namespace=namespace, label_selector=selector, body=grace)
    until(lambda: not resource.get(namespace=namespace, label_selector=selector).items)
    assert watcher.failure is None, watcher.failure


def status_round(resource, name, namespace, status):
    """Status is read, patched and replaced on its own, and leaves the rest alone."""
    before = resource.get(name=name, namespace=namespace).to_dict()
    patch = {"status": status, "metadata": {"annotations": {"of": "status"}}}
    resource.status.patch(name=name, namespace=namespace, body=patch, content_type="application/merge-patch+json")

    def put():
        current = resource.status.get(name=name, namespace=namespace).to_dict()
        for condition in current["status"].get("conditions", []):
            if condition["type"] == CONDITION["type"]:
                condition["message"] = "replaced"
        try:
            return resource.status.replace(body=current, namespace=namespace)
        except driver.dynamic.exceptions.ConflictError:
            return None

    replaced = until(put).to_dict()
    expected = {**status}
    if "conditions" in status:
        found = [entry for entry in replaced["status"]["conditions"] if entry["type"] == CONDITION["type"]]
        assert found and found[0]["message"] == "replaced", replaced["status"]
        expected.pop("conditions")
    for field, value in expected.items():
        assert replaced["status"].get(field, 0) == value, (field, replaced["status"])
    assert replaced.get("spec") == before.get("spec"), "a write to the status changed the spec"


def run(cluster, *kinds):
    with cluster.namespace() as namespace:
        for version, kind, more, status in KINDS:
            if kind in kinds:
                try:
                    round_of(cluster, version, kind, more, status, namespace)
                except Exception as error:
                    raise AssertionError(f"{version} {kind}: {error}") from error


@test
def core_kinds(cluster):
    run(cluster, "ConfigMap", "Secret", "Service", "ServiceAccount", "PodTemplate", "LimitRange", "ResourceQuota", "Endpoints", "Pod", "Node")


@test
def workload_kinds(cluster):
    run(cluster, "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ControllerRevision", "ReplicationController", "Job", "CronJob", "PodDisruptionBudget", "HorizontalPodAutoscaler")


@test
def network_kinds(cluster):
    run(cluster, "Ingress", "IngressClass", "NetworkPolicy", "EndpointSlice")


@test
def events_in_both_groups(cluster):
    run(cluster, "Event")


@test
def storage_kinds(cluster):
    run(cluster, "PersistentVolume", "PersistentVolumeClaim", "StorageClass", "CSIDriver", "CSINode", "CSIStorageCapacity", "VolumeAttachment")


@test
def kinds_that_rule_the_cluster(cluster):
    run(cluster, "Lease", "RuntimeClass", "PriorityClass", "Role", "ClusterRole", "FlowSchema", "PriorityLevelConfiguration", "CertificateSigningRequest")


@test
def admission_kinds(cluster):
    run(cluster, "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


driver.main()
