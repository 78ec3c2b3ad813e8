//! Server-side apply, told as upstream's documentation tells it: who owns what after which write.

use apimachinery::apply::{
    FieldSet, Filter, LAST_APPLIED, apply, same_but_for_times, update, validate_managed_fields,
};
use apimachinery::codec::{self, decode_yaml};
use apimachinery::schema::{Field, Kind, Message, Schema, Unknown};
use apimachinery::time::{self, Time};
use apimachinery::{GroupVersion, Object};
use proptest::prelude::*;
use serde_json::{Value, json};

fn schema(api_version: &str, kind: &str) -> Schema {
    Schema::for_kind(&GroupVersion::parse(api_version).unwrap().with_kind(kind)).unwrap()
}

fn at(minute: u32) -> Time {
    time::parse(&format!("2024-01-01T00:{minute:02}:00Z")).unwrap()
}

fn raw(yaml: &str) -> Object {
    Object::from(codec::parse_yaml(yaml.as_bytes()).unwrap())
}

fn normal(yaml: &str) -> Object {
    let object = raw(yaml);
    decode_yaml(yaml.as_bytes(), &schema(object.api_version(), object.kind())).unwrap().object
}

/// One object through a series of writes.
struct Story {
    schema: Schema,
    live: Option<Object>,
    minute: u32,
    reset: Option<Filter>,
}

impl Story {
    fn new(api_version: &str, kind: &str) -> Self {
        Self { schema: schema(api_version, kind), live: None, minute: 0, reset: None }
    }

    fn keep(&mut self, mut object: Object) {
        object.set_uid("u");
        self.live = Some(object);
    }

    fn apply(&mut self, manager: &str, force: bool, config: &str) -> Result<(), apimachinery::Status> {
        self.minute += 1;
        let reset = self.reset.as_ref();
        let now = at(self.minute);
        let object = apply(self.live.as_ref(), &raw(config), &self.schema, manager, force, now, "", reset)?;
        self.keep(object);
        Ok(())
    }

    fn update(&mut self, manager: &str, object: Object) {
        self.minute += 1;
        let object = update(
            self.live.as_ref(),
            object,
            &self.schema,
            manager,
            at(self.minute),
            "",
            self.reset.as_ref(),
        );
        self.keep(object);
    }

    fn live(&self) -> &Object {
        self.live.as_ref().unwrap()
    }

    /// `manager operation time: fields`, one line each.
    fn managers(&self) -> Vec<String> {
        let entries = self.live().get_array(&["metadata", "managedFields"]);
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        entries
            .iter()
            .map(|entry| {
                let set = FieldSet::from_fields_v1(&entry["fieldsV1"]).unwrap();
                let paths: Vec<String> =
                    set.paths().iter().map(|path| path.iter().map(ToString::to_string).collect()).collect();
                let minute = text(entry, "time").get(14..16).unwrap_or("-").to_owned();
                format!(
                    "{} {} {minute}: {}",
                    text(entry, "manager"),
                    text(entry, "operation"),
                    paths.join(" ")
                )
            })
            .collect()
    }
}

const CONFIG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ns";

fn config(labels: &str, data: &str) -> String {
    let labels = if labels == "{}" { String::new() } else { format!(", labels: {labels}") };
    format!("{CONFIG}{labels}}}\ndata: {data}\n")
}

#[test]
fn create_change_give_up() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("a", false, &config("{x: '1'}", "{k: v, l: w}")).unwrap();
    assert_eq!(story.managers(), ["a Apply 01: .data.k .data.l .metadata.labels.x"]);
    let entry = &story.live().get_array(&["metadata", "managedFields"])[0];
    assert_eq!(
        entry,
        &json!({"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2024-01-01T00:01:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}, "f:l": {}}, "f:metadata": {"f:labels": {"f:x": {}}}}})
    );
    story.apply("a", false, &config("{x: '2'}", "{k: v}")).unwrap();
    assert_eq!(story.live().get(&["data"]), Some(&json!({"k": "v"})));
    assert_eq!(story.managers(), ["a Apply 02: .data.k .metadata.labels.x"]);
    // The same again changes nothing, not even the time.
    story.apply("a", false, &config("{x: '2'}", "{k: v}")).unwrap();
    assert_eq!(story.managers(), ["a Apply 02: .data.k .metadata.labels.x"]);
}

#[test]
fn conflicts_name_field_and_manager() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("a", false, &config("{}", "{k: v, l: w}")).unwrap();
    let conflict = story.apply("b", false, &config("{}", "{k: other}")).unwrap_err();
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.message, "Apply failed with 1 conflict: conflict with \"a\": .data.k");
    let status = conflict.to_value();
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.k"}])
    );
    let mut changed = story.live().clone();
    changed.set(&["data", "l"], "x");
    story.update("kubectl-edit", changed);
    let conflict = story.apply("b", false, &config("{}", "{k: other, l: other}")).unwrap_err();
    assert_eq!(
        conflict.message,
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .data.k\n\
         conflicts with \"kubectl-edit\" using v1:\n- .data.l"
    );
    // Equal values are shared, forced ones are taken.
    story.apply("b", false, &config("{}", "{k: v}")).unwrap();
    story.apply("b", true, &config("{}", "{k: v, l: mine}")).unwrap();
    assert_eq!(story.managers(), ["a Apply 01: .data.k", "b Apply 06: .data.k .data.l"]);
    // What somebody else still owns stays.
    story.apply("b", false, &config("{}", "{}")).unwrap();
    assert_eq!(story.live().get(&["data"]), Some(&json!({"k": "v"})));
}

#[test]
fn updates_take_what_they_change() {
    let mut story = Story::new("v1", "ConfigMap");
    story.update("kubectl-create", normal(&config("{x: '1'}", "{k: v}")));
    assert_eq!(
        story.managers(),
        ["kubectl-create Update 01: .data .data.k .metadata.labels .metadata.labels.x"]
    );
    let mut changed = story.live().clone();
    changed.set(&["data", "k"], "2");
    changed.set(&["data", "l"], "3");
    story.update("other", changed);
    assert_eq!(
        story.managers(),
        [
            "kubectl-create Update 01: .data .metadata.labels .metadata.labels.x",
            "other Update 02: .data.k .data.l"
        ]
    );
    let mut same = story.live().clone();
    same.set_resource_version("7");
    story.update("third", same);
    assert_eq!(story.managers().len(), 2);
    let mut reset = story.live().clone();
    reset.set(&["metadata", "managedFields"], json!([{}]));
    story.update("other", reset);
    assert_eq!(story.managers(), Vec::<String>::new());
    // From then on nothing is noted until the first apply, which finds what was there before.
    let mut changed = story.live().clone();
    changed.set(&["data", "k"], "9");
    story.update("other", changed);
    assert_eq!(story.managers(), Vec::<String>::new());
    story.apply("a", true, &config("{}", "{k: '9'}")).unwrap();
    // It changed nothing, so it has no time.
    assert_eq!(
        story.managers(),
        [
            "a Apply -: .data.k",
            "before-first-apply Update 06: .data .data.k .data.l .metadata.labels .metadata.labels.x"
        ]
    );
}

#[test]
fn clients_that_drop_managed_fields_do_no_harm() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("a", false, &config("{}", "{k: v}")).unwrap();
    for managed in [None, Some(json!([{"manager": "x", "operation": "Nonsense"}]))] {
        let mut changed = story.live().clone();
        changed.remove(&["metadata", "managedFields"]);
        if let Some(managed) = managed {
            changed.set(&["metadata", "managedFields"], managed);
            assert!(validate_managed_fields(&changed).is_err());
        }
        story.update("b", changed);
        assert_eq!(story.managers(), ["a Apply 01: .data.k"]);
    }
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: ns}\n";

#[test]
fn keyed_lists_merge() {
    let containers =
        |list: &str| format!("{DEPLOYMENT}spec:\n  template:\n    spec:\n      containers: {list}\n");
    let mut story = Story::new("apps/v1", "Deployment");
    story.apply("a", false, &containers("[{name: x, image: i, ports: [{containerPort: 80}]}]")).unwrap();
    assert_eq!(
        story.managers(),
        [concat!(
            "a Apply 01: .spec.template.spec.containers[name=\"x\"] .spec.template.spec.containers[name=\"x\"].image ",
            ".spec.template.spec.containers[name=\"x\"].name ",
            ".spec.template.spec.containers[name=\"x\"].ports[containerPort=80,protocol=\"TCP\"] ",
            ".spec.template.spec.containers[name=\"x\"].ports[containerPort=80,protocol=\"TCP\"].containerPort"
        )]
    );
    story.apply("b", false, &containers("[{name: q, image: i}, {name: z}]")).unwrap();
    let names = |story: &Story| -> Vec<String> {
        let list = story.live().get_array(&["spec", "template", "spec", "containers"]);
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&story), ["x", "q", "z"]);
    story.apply("b", false, &containers("[{name: z}, {name: q, image: i}]")).unwrap();
    assert_eq!(names(&story), ["x", "z", "q"]);
    story.apply("b", false, &containers("[{name: q, image: i}]")).unwrap();
    assert_eq!(names(&story), ["x", "q"]);
    story.apply("a", false, &containers("[{name: x}]")).unwrap();
    let x = &story.live().get_array(&["spec", "template", "spec", "containers"])[0];
    assert_eq!(x, &json!({"name": "x", "resources": {}}));
    // Atomic: the selector has one owner as a whole.
    let error = story.apply("a", false, &containers("[{name: x}, {name: x}]")).unwrap_err();
    assert_eq!(
        error.message,
        "failed to create typed patch object (ns/d; apps/v1, Kind=Deployment): \
         .spec.template.spec.containers: duplicate entries for key [name=\"x\"]"
    );
}

#[test]
fn wrong_configurations() {
    let cases = [
        ("spec: {nope: 1}", ".spec.nope: field not declared in schema"),
        ("spec: {replicas: three}", ".spec.replicas: expected numeric (int or float), got string"),
        ("spec: {paused: 1}", ".spec.paused: expected boolean, got &{1}"),
        ("spec: {template: [x]}", ".spec.template: expected map, got &{[x]}"),
        (
            "spec: {template: {spec: {nodeName: 1}}}",
            ".spec.template.spec.nodeName: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            "spec: {template: {spec: {containers: [{image: i}]}}}",
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all key \
             fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (
            "spec: {a: 1, b: 2}",
            "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema",
        ),
    ];
    for (spec, expected) in cases {
        let mut story = Story::new("apps/v1", "Deployment");
        let error = story.apply("a", false, &format!("{DEPLOYMENT}{spec}")).unwrap_err();
        let text =
            format!("failed to create typed patch object (ns/d; apps/v1, Kind=Deployment): {expected}");
        assert_eq!((error.code, error.message), (500, text), "{spec}");
    }
    let mut story = Story::new("v1", "ConfigMap");
    let error = story.apply("a", false, &format!("{CONFIG}, managedFields: [{{}}]}}")).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "metadata.managedFields must be nil"));
}

#[test]
fn status_is_left_to_its_subresource() {
    let mut story = Story::new("apps/v1", "Deployment");
    story.reset = Some(Filter::all_but(&[&["status"]]));
    story.update("create", normal(&format!("{DEPLOYMENT}spec: {{replicas: 1}}\nstatus: {{replicas: 3}}")));
    assert!(story.managers().iter().all(|m| !m.contains(".status")), "{:?}", story.managers());
    let mut status = story.live().clone();
    status.set(&["status", "replicas"], 2);
    let reset = Filter::all_but(&[&["spec"]]);
    let object = update(story.live.as_ref(), status, &story.schema, "kcm", at(9), "status", Some(&reset));
    let entry = object.get_array(&["metadata", "managedFields"]).last().unwrap().clone();
    assert_eq!((entry["manager"].clone(), entry["subresource"].clone()), (json!("kcm"), json!("status")));
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    let error = apply(
        Some(&object),
        &raw(&format!("{DEPLOYMENT}status: {{replicas: 5}}")),
        &story.schema,
        "x",
        false,
        at(10),
        "",
        None,
    );
    assert_eq!(
        error.unwrap_err().message,
        "Apply failed with 1 conflict: conflict with \"kcm\" with subresource \"status\" using apps/v1: .status.replicas"
    );
}

#[test]
fn kubectl_goes_from_client_side_to_server_side() {
    let mut story = Story::new("v1", "ConfigMap");
    let mut object = normal(&config("{}", "{k: v}"));
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}, "data": {"k": "v"}});
    object.set(&["metadata", "annotations"], json!({LAST_APPLIED: last.to_string()}));
    story.update("kubectl-client-side-apply", object);
    assert_eq!(story.apply("kubectl", false, &config("{}", "{k: new}")), Ok(()));
    assert_eq!(story.live().get_str(&["data", "k"]), "new");
    let noted: Value = serde_json::from_str(story.live().annotation(LAST_APPLIED).unwrap()).unwrap();
    assert_eq!(noted["data"], json!({"k": "new"}));
    let error = story.apply("somebody", false, &config("{}", "{k: newer}")).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"kubectl\": .data.k");
}

#[test]
fn old_updates_are_merged() {
    let mut story = Story::new("v1", "ConfigMap");
    story.update("m0", normal(&config("{}", "{k0: v}")));
    for at in 1..15 {
        let mut changed = story.live().clone();
        changed.set(&["data", &format!("k{at}")], "v");
        story.update(&format!("m{at}"), changed);
    }
    let managers = story.managers();
    assert_eq!(managers.len(), 10);
    assert_eq!(
        managers[0],
        "ancient-changes Update 06: .data .data.k0 .data.k1 .data.k2 .data.k3 .data.k4 .data.k5"
    );
}

#[test]
fn writes_of_nothing_keep_their_time() {
    let mut story = Story::new("v1", "ConfigMap");
    story.apply("a", false, &config("{}", "{k: v}")).unwrap();
    let old = story.live().clone();
    let mut new = old.clone();
    new.set(&["metadata", "managedFields"], {
        let mut entries = old.get_array(&["metadata", "managedFields"]).to_vec();
        entries[0]["time"] = json!("2030-01-01T00:00:00Z");
        entries
    });
    let mut changed = new.clone();
    changed.set(&["data", "k"], "w");
    assert!(same_but_for_times(&new, &old) && same_but_for_times(&old, &old));
    assert!(!same_but_for_times(&changed, &old));
    let mut others = new.clone();
    others.set(&["metadata", "managedFields"], {
        let mut entries = new.get_array(&["metadata", "managedFields"]).to_vec();
        entries[0]["manager"] = json!("another");
        entries
    });
    assert!(!same_but_for_times(&others, &old));
    let mut more = old.clone();
    more.set(&["metadata", "labels", "a"], "b");
    assert!(!same_but_for_times(&more, &old) && !same_but_for_times(&old, &more));
}

#[test]
fn custom_resources_without_a_schema_own_maps_by_key_and_lists_as_a_whole() {
    let meta = Schema::builtin("k8s.io.apimachinery.pkg.apis.meta.v1", "ObjectMeta").unwrap();
    let fields = vec![
        Field::unstructured("apiVersion", Kind::String),
        Field::unstructured("kind", Kind::String),
        Field::unstructured("metadata", Kind::Foreign(meta)),
    ];
    let message =
        Message { package: "".into(), name: "Foo".into(), fields, unknown: Unknown::Keep, atomic: false };
    let mut story = Story { schema: Schema::unstructured(vec![message]), live: None, minute: 0, reset: None };
    let foo = |spec: &str| format!("apiVersion: e.com/v1\nkind: Foo\nmetadata: {{name: f}}\nspec: {spec}\n");
    story.apply("a", false, &foo("{x: {q: 1}, list: [1, {z: 2}]}")).unwrap();
    assert_eq!(story.managers(), ["a Apply 01: .spec .spec.list .spec.x .spec.x.q"]);
    story.apply("b", false, &foo("{x: {w: 2}}")).unwrap();
    assert_eq!(story.live().get(&["spec"]), Some(&json!({"x": {"q": 1, "w": 2}, "list": [1, {"z": 2}]})));
    let error = story.apply("b", false, &foo("{list: []}")).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"a\": .spec.list");
    story.apply("a", false, &foo("{x: {q: 1}}")).unwrap();
    assert_eq!(story.live().get(&["spec"]), Some(&json!({"x": {"q": 1, "w": 2}})));
}

fn any_config() -> impl Strategy<Value = Object> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let container = (proptest::option::of("[i-k]"), proptest::collection::vec(80..83i64, 0..3));
    let containers = proptest::collection::btree_map("[p-r]", container, 0..3);
    (labels, containers, proptest::option::of(0..3i64)).prop_map(|(labels, containers, replicas)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (image, mut ports))| {
                ports.sort_unstable();
                ports.dedup();
                let ports: Vec<Value> = ports.into_iter().map(|p| json!({"containerPort": p, "protocol": "TCP"})).collect();
                let mut container = json!({"name": name, "ports": ports});
                if let Some(image) = image {
                    container["image"] = json!(image);
                }
                container
            })
            .collect();
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels},
            "spec": {"template": {"spec": {"containers": containers}}}});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        Object::from(object)
    })
}

fn without_managers(mut object: Object) -> Object {
    object.remove(&["metadata", "managedFields"]);
    object
}

/// Trees that are nearly objects: right names, any values.
fn any_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!("a")),
        Just(json!(1)),
        Just(json!(true)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("FieldsV1")),
        Just(json!("Apply")),
        Just(json!("Update")),
        Just(json!("v1")),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        let name = prop_oneof![
            Just("metadata"),
            Just("spec"),
            Just("template"),
            Just("containers"),
            Just("name"),
            Just("ports"),
            Just("labels"),
            Just("managedFields"),
            Just("fieldsV1"),
            Just("fieldsType"),
            Just("operation"),
            Just("apiVersion"),
            Just("manager"),
            Just("f:spec"),
            Just("f:template"),
            Just("f:containers"),
            Just("k:{\"name\":\"a\"}"),
            Just("."),
            Just("finalizers"),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// What two managers say, of which nothing is said by both.
fn any_disjoint() -> impl Strategy<Value = (Object, Object)> {
    let text = || "[a-z]{1,2}";
    let entries = || proptest::collection::btree_map("[a-f]", (any::<bool>(), text()), 0..5);
    let replicas = proptest::option::of((any::<bool>(), 0..5));
    (entries(), entries(), entries(), replicas).prop_map(|(labels, annotations, images, replicas)| {
        let of = |first: bool| {
            let some =
                |entries: &std::collections::BTreeMap<String, (bool, String)>| -> Vec<(String, String)> {
                    let own = entries.iter().filter(|(_, (side, _))| *side == first);
                    own.map(|(key, (_, value))| (key.clone(), value.clone())).collect()
                };
            let mut object = Object::from(
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}),
            );
            for (key, value) in some(&labels) {
                object.set(&["metadata", "labels", &key], value);
            }
            for (key, value) in some(&annotations) {
                object.set(&["spec", "template", "metadata", "annotations", &key], value);
            }
            let containers: Vec<Value> = some(&images)
                .into_iter()
                .map(|(name, image)| json!({"name": name, "image": image}))
                .collect();
            if !containers.is_empty() {
                object.set(&["spec", "template", "spec", "containers"], containers);
            }
            if let Some((_, count)) = replicas.filter(|(side, _)| *side == first) {
                object.set(&["spec", "replicas"], count);
            }
            object
        };
        (of(true), of(false))
    })
}

/// An object without its managers and the order of its containers, and its managers' fields.
fn unordered(object: Object) -> (Object, Vec<(String, String)>) {
    let entries = object.get_array(&["metadata", "managedFields"]).iter();
    let mut managers: Vec<_> =
        entries.map(|entry| (entry["manager"].to_string(), entry["fieldsV1"].to_string())).collect();
    managers.sort();
    let mut object = without_managers(object);
    let containers = ["spec", "template", "spec", "containers"];
    let mut sorted = object.get_array(&containers).to_vec();
    if !sorted.is_empty() {
        sorted.sort_by_key(|container| container["name"].to_string());
        object.set(&containers, sorted);
    }
    (object, managers)
}

proptest! {
    #[test]
    fn who_says_nothing_of_the_others_may_go_first((first, second) in any_disjoint()) {
        let schema = schema("apps/v1", "Deployment");
        let both = |one: (&str, &Object), other: (&str, &Object)| {
            let live = apply(None, one.1, &schema, one.0, false, at(1), "", None).unwrap();
            apply(Some(&live), other.1, &schema, other.0, false, at(1), "", None)
        };
        let (a, b) = (("a", &first), ("b", &second));
        let (here, there) = (both(a, b), both(b, a));
        prop_assert!(here.is_ok() && there.is_ok(), "a conflict of nothing: {here:?} {there:?}");
        prop_assert_eq!(unordered(here.unwrap()), unordered(there.unwrap()));
    }

    #[test]
    fn what_one_gives_up_stays_where_another_wants_it(
        a in proptest::collection::btree_set("[a-f]", 0..5),
        kept in proptest::collection::btree_set("[a-f]", 0..5),
        b in proptest::collection::btree_set("[a-f]", 0..5),
    ) {
        let schema = schema("v1", "ConfigMap");
        let config = |keys: &std::collections::BTreeSet<String>| {
            let mut object = raw(&format!("{CONFIG}}}"));
            for key in keys {
                object.set(&["data", key], "v");
            }
            object
        };
        let live = apply(None, &config(&a), &schema, "a", false, at(1), "", None).unwrap();
        let live = apply(Some(&live), &config(&b), &schema, "b", false, at(2), "", None).unwrap();
        let live = apply(Some(&live), &config(&kept), &schema, "a", false, at(3), "", None).unwrap();
        let there: Vec<String> =
            live.get(&["data"]).and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(there, kept.union(&b).cloned().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_panics(live in any_tree(), applied in any_tree(), new in any_tree()) {
        let schema = schema("apps/v1", "Deployment");
        let live = Object::from(live);
        let _ = apply(Some(&live), &Object::from(applied), &schema, "kubectl", true, at(1), "", None);
        let _ = update(Some(&live), Object::from(new), &schema, "m", at(2), "", None);
    }

    #[test]
    fn applying_again_changes_nothing(configs in proptest::collection::vec(any_config(), 1..4)) {
        let schema = schema("apps/v1", "Deployment");
        let mut live = None;
        for (n, config) in configs.iter().enumerate() {
            live = Some(apply(live.as_ref(), config, &schema, &format!("m{n}"), true, at(n as u32), "", None).unwrap());
        }
        let live = live.unwrap();
        let last = configs.last().unwrap();
        let again = apply(Some(&live), last, &schema, &format!("m{}", configs.len() - 1), false, at(50), "", None).unwrap();
        prop_assert!(same_but_for_times(&again, &live), "{:?} {:?}", again, live);
    }

    #[test]
    fn giving_up_alone_leaves_nothing(config in any_config()) {
        let schema = schema("apps/v1", "Deployment");
        let bare = Object::from(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}));
        let start = apply(None, &bare, &schema, "a", false, at(0), "", None).unwrap();
        let full = apply(Some(&start), &config, &schema, "a", false, at(1), "", None).unwrap();
        let end = apply(Some(&full), &bare, &schema, "a", false, at(2), "", None).unwrap();
        prop_assert_eq!(without_managers(end), without_managers(start));
    }

    #[test]
    fn what_was_applied_is_there(first in any_config(), second in any_config()) {
        let schema = schema("apps/v1", "Deployment");
        let live = apply(None, &first, &schema, "a", false, at(0), "", None).unwrap();
        let live = apply(Some(&live), &second, &schema, "b", true, at(1), "", None).unwrap();
        let wanted = second.get(&["spec", "replicas"]).or(first.get(&["spec", "replicas"]));
        prop_assert_eq!(live.get(&["spec", "replicas"]), wanted);
        for container in second.get_array(&["spec", "template", "spec", "containers"]) {
            let there = live.get_array(&["spec", "template", "spec", "containers"]).iter().find(|c| c["name"] == container["name"]);
            prop_assert!(there.is_some_and(|c| container.get("image").is_none() || c["image"] == container["image"]));
        }
    }
}
