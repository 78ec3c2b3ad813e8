//! An object of every stored kind, as small as its rules let it be.

use std::collections::BTreeMap;

use api::{Access, Resource, catalogue};
use serde_json::{Value, json};

pub struct Stub {
    pub row: &'static Resource,
    /// With a name and its type, for the namespace `default`.
    pub object: Value,
}

impl Stub {
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().expect("a name")
    }

    /// The kind without its version, as upstream's tests name it.
    pub fn group_resource(&self) -> String {
        self.row.group_resource().to_string()
    }

    pub fn has_status(&self) -> bool {
        self.row.subresource("status").is_some()
    }

    /// A merge patch of what the kind is for; none where nothing of it can change.
    pub fn change(&self) -> Option<Value> {
        let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
        let change = match self.row.kind {
            "Namespace" => json!({"finalizers": ["example.com/f"]}),
            "Node" => json!({"unschedulable": false}),
            "PersistentVolume" => json!({"capacity": {"storage": "23M"}}),
            "PersistentVolumeClaim" => json!({"resources": {"requests": {"storage": "21M"}}}),
            "Pod" => image["spec"].clone(),
            "ReplicationController" => json!({"replicas": 7}),
            "ResourceQuota" => json!({"hard": {"cpu": "25M"}}),
            "Service" => json!({"sessionAffinity": "ClientIP"}),
            "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet" => json!({"template": image}),
            "HorizontalPodAutoscaler" => json!({"maxReplicas": 23}),
            "Job" => json!({"parallelism": 7}),
            "CronJob" => json!({"schedule": "1 * * * *"}),
            "FlowSchema" => json!({"priorityLevelConfiguration": {"name": "catch-all"}}),
            "PriorityLevelConfiguration" => json!({"limited": {"nominalConcurrencyShares": 23}}),
            "Ingress" => json!({"defaultBackend": {"service": {"name": "other"}}}),
            "PodDisruptionBudget" => json!({"minAvailable": 7}),
            "ValidatingAdmissionPolicy" => json!({"failurePolicy": "Ignore"}),
            "CustomResourceDefinition" => json!({"names": {"shortNames": ["th"]}}),
            "APIService" => json!({"versionPriority": 23}),
            _ => return None,
        };
        Some(json!({"spec": change}))
    }

    /// Two merge patches of `status` that say something different.
    pub fn statuses(&self) -> [Value; 2] {
        let addresses = |ip: &str| match self.row.kind {
            "Service" => json!({"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"}]}}),
            _ => json!({"loadBalancer": {"ingress": [{"ip": ip}]}}),
        };
        let condition = |status: &str| {
            json!({"conditions": [{"type": "Mine", "status": status, "reason": "Because", "message": "m",
                "lastTransitionTime": "2026-01-02T03:04:05Z"}]})
        };
        let of_node = |value: &str| {
            json!({"nodeSelector": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]}]}})
        };
        let both = match self.row.kind {
            "Service" | "Ingress" => [addresses("127.0.0.1"), addresses("127.0.0.2")],
            "ResourceQuota" => [json!({"used": {"cpu": "5M"}}), json!({"used": {"cpu": "25M"}})],
            "PersistentVolume" => [json!({"message": "one"}), json!({"message": "two"})],
            "HorizontalPodAutoscaler" => [json!({"currentReplicas": 5}), json!({"currentReplicas": 25})],
            "CronJob" => {
                ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"].map(|t| json!({"lastScheduleTime": t}))
            }
            "PodDisruptionBudget" => [json!({"currentHealthy": 5}), json!({"currentHealthy": 25})],
            "VolumeAttachment" => [json!({"attached": true}), json!({"attached": false})],
            "ResourceClaim" => ["a", "b"].map(|value| json!({"allocation": of_node(value)})),
            _ => ["True", "False"].map(condition),
        };
        both.map(|status| json!({"status": status}))
    }
}

/// One of each version of each kind.
pub fn all() -> Vec<Stub> {
    let objects = objects();
    let stored = catalogue::catalogue().all().filter(|row| row.access == Access::Stored);
    let stub = |row: &'static Resource| {
        let object = objects.get(&(row.group, row.kind));
        let mut object = object.unwrap_or_else(|| panic!("a stub of {}", row.gvk())).clone();
        object["apiVersion"] = json!(row.group_version().to_string());
        object["kind"] = json!(row.kind);
        if object["metadata"].get("name").is_none() {
            object["metadata"]["name"] = json!("one");
        }
        Stub { row, object }
    };
    stored.map(stub).collect()
}

/// Where the objects of a kind are.
pub fn collection(row: &Resource, namespace: &str) -> String {
    let root = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
    let namespace = if row.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
    format!("{root}/{}{namespace}/{}", row.version, row.plural)
}

pub fn certificate_request(organization: &str) -> String {
    use base64::Engine;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "someone");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    base64::engine::general_purpose::STANDARD.encode(pem)
}

fn objects() -> BTreeMap<(&'static str, &'static str), Value> {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let once = {
        let mut template = template.clone();
        template["spec"]["restartPolicy"] = json!("Never");
        template
    };
    let selector = json!({"matchLabels": {"a": "b"}});
    let role = json!({"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"});
    let local_role = json!({"kind": "Role", "name": "one", "apiGroup": "rbac.authorization.k8s.io"});
    let subject = json!([{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]);
    let hook = json!([{"name": "a.b.c", "clientConfig": {"url": "https://a.b"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"]}]);
    let matches = json!({"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
        "resources": ["*"]}]});
    let scale = json!({"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
        "maxReplicas": 3});
    let claim = json!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}}]}});
    let admission = "admissionregistration.k8s.io";
    BTreeMap::from([
        (("", "ConfigMap"), json!({"data": {"a": "b"}})),
        (
            ("", "Endpoints"),
            json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}]}),
        ),
        (
            ("", "Event"),
            json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "message": "m"}),
        ),
        (("", "LimitRange"), json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2"}}]}})),
        (("", "Namespace"), json!({})),
        (("", "Node"), json!({"spec": {"unschedulable": true}})),
        (
            ("", "PersistentVolume"),
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "3M"},
                "hostPath": {"path": "/tmp/a"}}}),
        ),
        (
            ("", "PersistentVolumeClaim"),
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2M"}}}}),
        ),
        (("", "Pod"), json!({"spec": template["spec"]})),
        (("", "PodTemplate"), json!({"template": template})),
        (
            ("", "ReplicationController"),
            json!({"spec": {"replicas": 1, "selector": {"a": "b"}, "template": template}}),
        ),
        (("", "ResourceQuota"), json!({"spec": {"hard": {"cpu": "5M"}}})),
        (("", "Secret"), json!({"data": {"a": "YQ=="}})),
        (
            ("", "Service"),
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "None", "ports": [{"port": 80}], "selector": {"a": "b"}}}),
        ),
        (("", "ServiceAccount"), json!({"secrets": [{"name": "s"}]})),
        ((admission, "MutatingWebhookConfiguration"), json!({"webhooks": hook})),
        ((admission, "ValidatingWebhookConfiguration"), json!({"webhooks": hook})),
        (
            (admission, "ValidatingAdmissionPolicy"),
            json!({"spec": {"failurePolicy": "Fail", "matchConstraints": matches, "validations": [{"expression": "true"}]}}),
        ),
        (
            (admission, "ValidatingAdmissionPolicyBinding"),
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        ),
        (
            (admission, "MutatingAdmissionPolicy"),
            json!({"spec": {"matchConstraints": matches, "reinvocationPolicy": "Never", "failurePolicy": "Fail",
                "mutations": [{"patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{}"}}]}}),
        ),
        ((admission, "MutatingAdmissionPolicyBinding"), json!({"spec": {"policyName": "p"}})),
        (
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
                "names": {"plural": "things", "kind": "Thing", "shortNames": ["tg"]}, "versions": [{"name": "v1", "served": true,
                    "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
        ),
        (
            ("apiregistration.k8s.io", "APIService"),
            json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
                "groupPriorityMinimum": 1000, "versionPriority": 10, "insecureSkipTLSVerify": true,
                "service": {"namespace": "default", "name": "s"}}}),
        ),
        (("apps", "ControllerRevision"), json!({"revision": 1, "data": {"a": 1}})),
        (("apps", "DaemonSet"), json!({"spec": {"selector": selector, "template": template}})),
        (("apps", "Deployment"), json!({"spec": {"selector": selector, "template": template}})),
        (("apps", "ReplicaSet"), json!({"spec": {"selector": selector, "template": template}})),
        (
            ("apps", "StatefulSet"),
            json!({"spec": {"serviceName": "s", "selector": selector, "template": template}}),
        ),
        (("autoscaling", "HorizontalPodAutoscaler"), json!({"spec": scale})),
        (("batch", "Job"), json!({"spec": {"parallelism": 1, "template": once}})),
        (
            ("batch", "CronJob"),
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}}),
        ),
        (
            ("certificates.k8s.io", "CertificateSigningRequest"),
            json!({"spec": {"signerName": "a.example/b", "usages": ["any"],
                "request": certificate_request("cars")}}),
        ),
        (("coordination.k8s.io", "Lease"), json!({"spec": {"holderIdentity": "h"}})),
        (("discovery.k8s.io", "EndpointSlice"), json!({"addressType": "IPv4", "endpoints": []})),
        (
            ("events.k8s.io", "Event"),
            json!({"regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "note": "m", "type": "Normal",
                "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "a.b/c",
                "reportingInstance": "c-1", "action": "Nothing", "reason": "Because"}),
        ),
        (
            ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
            json!({"spec": {"priorityLevelConfiguration": {"name": "system"}}}),
        ),
        (
            ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 3, "limitResponse": {"type": "Reject"}}}}),
        ),
        (
            ("networking.k8s.io", "IPAddress"),
            json!({"metadata": {"name": "10.96.0.77"}, "spec": {"parentRef": {"resource": "services",
                "namespace": "default", "name": "s"}}}),
        ),
        (
            ("networking.k8s.io", "Ingress"),
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        ),
        (("networking.k8s.io", "IngressClass"), json!({"spec": {"controller": "a.b/c"}})),
        (("networking.k8s.io", "NetworkPolicy"), json!({"spec": {"podSelector": {}}})),
        (("networking.k8s.io", "ServiceCIDR"), json!({"spec": {"cidrs": ["10.97.0.0/16"]}})),
        (("node.k8s.io", "RuntimeClass"), json!({"handler": "h"})),
        (("policy", "PodDisruptionBudget"), json!({"spec": {"minAvailable": 1, "selector": selector}})),
        (("rbac.authorization.k8s.io", "ClusterRole"), json!({"rules": []})),
        (("rbac.authorization.k8s.io", "ClusterRoleBinding"), json!({"roleRef": role, "subjects": subject})),
        (("rbac.authorization.k8s.io", "Role"), json!({"rules": []})),
        (("rbac.authorization.k8s.io", "RoleBinding"), json!({"roleRef": local_role, "subjects": subject})),
        (("resource.k8s.io", "DeviceClass"), json!({"spec": {}})),
        (("resource.k8s.io", "ResourceClaim"), json!({"spec": claim})),
        (("resource.k8s.io", "ResourceClaimTemplate"), json!({"spec": {"spec": claim}})),
        (
            ("resource.k8s.io", "ResourceSlice"),
            json!({"spec": {"driver": "d.io", "nodeName": "n", "pool": {"name": "p", "generation": 1,
                "resourceSliceCount": 1}, "devices": [{"name": "a", "taints": [{"key": "k", "effect": "NoSchedule"}]}]}}),
        ),
        (("scheduling.k8s.io", "PriorityClass"), json!({"value": 7})),
        (("storage.k8s.io", "CSIDriver"), json!({"spec": {}})),
        (("storage.k8s.io", "CSINode"), json!({"spec": {"drivers": []}})),
        (("storage.k8s.io", "CSIStorageCapacity"), json!({"storageClassName": "c"})),
        (("storage.k8s.io", "StorageClass"), json!({"provisioner": "a.b/c"})),
        (
            ("storage.k8s.io", "VolumeAttachment"),
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
        (
            ("storage.k8s.io", "VolumeAttributesClass"),
            json!({"driverName": "d.io", "parameters": {"a": "b"}}),
        ),
    ])
}
