//! Claims for devices: what was allocated, to whom, and how the devices fare.

use std::net::IpAddr;

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Object, Value};
use serde_json::json;

use super::claim::admin_namespace;
use super::forms::{
    MAX_CONFIG, MAX_REQUESTS, RequestNames, binding_conditions, bounded, configuration, pool_name, raw, set,
    set_of, tolerations,
};
use crate::strategy::NamespaceLabel;
use crate::validation::at::At;
use crate::validation::forms::unchanged;
use crate::validation::pod;

const MAX_CONSUMERS: usize = 256;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 * 1024;
const MAX_IPS: usize = 16;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const SOURCES: [&str; 2] = ["FromClaim", "FromClass"];

/// What names a device or a share of one.
fn device_id(device: &Value) -> Value {
    let text = |key: &str| device[key].as_str().unwrap_or_default();
    json!([text("driver"), text("pool"), text("device"), text("shareID")])
}

fn shown_id(device: &Value) -> String {
    let text = |key: &str| device[key].as_str().unwrap_or_default();
    let id = format!("{}/{}/{}", text("driver"), text("pool"), text("device"));
    if text("shareID").is_empty() { id } else { format!("{id}/{}", text("shareID")) }
}

fn allocated(claim: &Object) -> Vec<Value> {
    claim.get_array(&["status", "allocation", "devices", "results"]).iter().map(device_id).collect()
}

/// The status of a device goes with its allocation.
pub fn drop_what_is_not_allocated(claim: &mut Object, old: &Object) {
    let (before, now) = (allocated(old), allocated(claim));
    let gone: Vec<Value> = before.into_iter().filter(|id| !now.contains(id)).collect();
    if let Some(Value::Array(devices)) = claim.as_value_mut().pointer_mut("/status/devices") {
        devices.retain(|device| !gone.contains(&device_id(device)));
        if devices.is_empty() {
            claim.remove(&["status", "devices"]);
        }
    }
}

/// An allocation that was made with admin access keeps it, a new one needs a namespace that allows it.
pub fn admin_access(claim: &Object, old: &Object) -> Option<NamespaceLabel> {
    let granted = |claim: &Object| {
        let results = At::root(claim).child("status").child("allocation").child("devices").child("results");
        let first = results.items().find(|result| result.is_true("adminAccess"));
        first.map(|result| result.path)
    };
    match granted(old) {
        None => granted(claim).map(|path| admin_namespace(&path)),
        Some(_) => None,
    }
}

pub fn validate(claim: &Object, old: &Object) -> ErrorList {
    let root = At::root(claim);
    let status = root.child("status");
    let names = RequestNames::of(&root.child("spec").child("devices"));
    let consumers = status.child("reservedFor");
    let mut errors = set_of(
        &consumers,
        MAX_CONSUMERS,
        |item| item["uid"].clone(),
        |consumer| {
            let fields = ["resource", "name", "uid"].map(|key| consumer.child(key));
            fields.iter().filter(|field| field.is_empty()).map(|field| field.required("")).collect()
        },
    );
    let allocated = allocated(claim);
    errors.extend(set_of(&status.child("devices"), usize::MAX, device_id, |each| device(each, &allocated)));
    let allocation = status.child("allocation");
    if !consumers.is_empty() && !allocation.is_set() {
        errors.push(consumers.forbidden("may not be specified when `allocated` is not set"));
    } else if claim.deletion_timestamp().is_some() {
        let known = old.get_array(&["status", "reservedFor"]);
        if consumers.list().iter().any(|consumer| !known.contains(consumer)) {
            errors.push(consumers.forbidden(
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            ));
        }
    }
    let before = At::root(old).child("status").child("allocation");
    if allocation.is_set() {
        errors.extend(match before.is_set() {
            true => unchanged(&allocation, &before),
            false => result(&allocation, &names),
        });
    }
    errors
}

fn result(allocation: &At<'_>, names: &RequestNames<'_>) -> ErrorList {
    let devices = allocation.child("devices");
    let mut errors = bounded(&devices.child("results"), MAX_REQUESTS, |result| {
        let mut errors = names.reference(&result.child("request"));
        errors.extend(result.child("driver").driver_name());
        errors.extend(pool_name(&result.child("pool")));
        errors.extend(result.child("device").dns_label());
        errors.extend(binding_conditions(result));
        errors.extend(tolerations(&result.child("tolerations")));
        errors.extend(share_id(&result.child("shareID")));
        errors
    });
    errors.extend(bounded(&devices.child("config"), 2 * MAX_CONFIG, |config| {
        let mut errors = config.child("source").one_of(&SOURCES);
        errors.extend(set(&config.child("requests"), MAX_REQUESTS, |name| names.reference(name)));
        errors.extend(configuration(config));
        errors
    }));
    let selector = allocation.child("nodeSelector");
    if selector.is_set() {
        errors.extend(pod::node_selector(&selector, false));
    }
    errors
}

/// A UUID in its usual form.
fn share_id(id: &At<'_>) -> ErrorList {
    if !id.is_set() {
        return ErrorList::new();
    }
    let text = id.str();
    if text.len() != 36 {
        let why = format!("error validating uid: invalid UUID length: {}", text.len());
        return vec![id.invalid(why)];
    }
    let dash = |index: usize| matches!(index, 8 | 13 | 18 | 23);
    if text.bytes().enumerate().any(|(index, b)| if dash(index) { b != b'-' } else { !b.is_ascii_hexdigit() })
    {
        return vec![id.invalid("error validating uid: invalid UUID format")];
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return vec![id.invalid(
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
             hexadecimal characters",
        )];
    }
    ErrorList::new()
}

fn device(device: &At<'_>, allocated: &[Value]) -> ErrorList {
    let mut errors = device.child("driver").driver_name();
    errors.extend(pool_name(&device.child("pool")));
    errors.extend(device.child("device").dns_label());
    errors.extend(share_id(&device.child("shareID")));
    if !allocated.contains(&device_id(device.value)) {
        let why = "must be an allocated device in the claim";
        errors.push(Error::invalid(&device.path, shown_id(device.value), why));
    }
    let conditions = device.child("conditions");
    if conditions.len() > MAX_CONDITIONS {
        errors.push(conditions.too_many(MAX_CONDITIONS));
    }
    errors.extend(conditions.conditions());
    let data = device.child("data");
    if data.is_set() {
        errors.extend(raw(&data, MAX_DATA));
    }
    let network = device.child("networkData");
    for (key, max) in [("interfaceName", MAX_INTERFACE_NAME), ("hardwareAddress", MAX_HARDWARE_ADDRESS)] {
        let field = network.child(key);
        if field.len() > max {
            errors.push(field.too_long(max));
        }
    }
    errors.extend(set(&network.child("ips"), MAX_IPS, interface_address));
    errors
}

/// An address with the length of its network, as an interface has it.
fn interface_address(address: &At<'_>) -> ErrorList {
    const WHY: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
    let parsed = address.str().split_once('/').and_then(|(ip, length)| {
        let (ip, length): (IpAddr, u8) = (ip.parse().ok()?, length.parse().ok()?);
        (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
    });
    match parsed {
        None => vec![address.invalid(WHY)],
        Some((ip, length)) if format!("{ip}/{length}") != address.str() => {
            vec![address.invalid(format!("must be in canonical form (\"{ip}/{length}\")"))]
        }
        Some(_) => ErrorList::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::forms::check;

    fn claim(status: Value) -> Object {
        Object::from(json!({"metadata": {"name": "c"}, "status": status, "spec": {"devices": {"requests": [
            {"name": "a", "firstAvailable": [{"name": "x"}]},
        ]}}}))
    }

    fn allocation() -> Value {
        json!({"devices": {"results": [{"request": "a/x", "driver": "d.io", "pool": "p/q", "device": "one"}]}})
    }

    #[test]
    fn allocations() {
        let id = "d.io/p/two";
        let device = |name: &str| json!({"driver": "d.io", "pool": "p", "device": name});
        let cases: Vec<(Value, Vec<String>)> = vec![
            (json!({"allocation": allocation()}), vec![]),
            (
                json!({"reservedFor": [{"resource": "pods", "name": "p"}]}),
                vec![
                    "status.reservedFor[0].uid: Required value".into(),
                    "status.reservedFor: Forbidden: may not be specified when `allocated` is not set".into(),
                ],
            ),
            (
                json!({"devices": [device("two")]}),
                vec![format!("status.devices[0]: Invalid value: \"{id}\": must be an allocated device in the claim")],
            ),
            (
                json!({"allocation": {"devices": {"results": [{"request": "b", "driver": "", "pool": "", "device": "one",
                    "bindingConditions": ["x"], "shareID": "1"}], "config": [{"source": "Else"}]}}}),
                vec![
                    "status.allocation.devices.results[0].request: Invalid value: \"b\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'".into(),
                    "status.allocation.devices.results[0].driver: Required value".into(),
                    "status.allocation.devices.results[0].pool: Required value".into(),
                    "status.allocation.devices.results[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions".into(),
                    "status.allocation.devices.results[0].shareID: Invalid value: \"1\": error validating uid: invalid UUID length: 1".into(),
                    "status.allocation.devices.config[0].source: Unsupported value: \"Else\": supported values: \"FromClaim\", \"FromClass\"".into(),
                    "status.allocation.devices.config[0].opaque: Required value".into(),
                ],
            ),
        ];
        for (status, expected) in cases {
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            check(validate(&claim(status), &claim(json!({}))), &expected);
        }
        let mut other = allocation();
        other["devices"]["results"][0]["device"] = json!("two");
        let changed =
            validate(&claim(json!({"allocation": other})), &claim(json!({"allocation": allocation()})));
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].field, "status.allocation");
    }

    #[test]
    fn the_status_of_a_device_goes_with_it() {
        let device = json!({"driver": "d.io", "pool": "p/q", "device": "one"});
        let old = claim(json!({"allocation": allocation(), "devices": [device]}));
        let mut new = claim(json!({"devices": [device]}));
        drop_what_is_not_allocated(&mut new, &old);
        assert!(new.get(&["status", "devices"]).is_none());
    }
}
