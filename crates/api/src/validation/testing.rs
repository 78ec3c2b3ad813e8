//! How the tables of the rules are run: a valid object, what is changed of it, and what is then wrong with it.

use apimachinery::field::ErrorList;
use apimachinery::{Object, Value};
use serde_json::json;

/// What a case changes, as pointers and new values (null removes), and the errors that follow. An expected error
/// that ends in `…` stands for all that begin so.
pub type Case<'a> = (Value, &'a [&'a str]);

/// Sets what a pointer names, making what is missing on the way.
pub fn set(root: &mut Value, pointer: &str, new: Value) {
    let mut at = root;
    let mut parts =
        pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        if let (true, Some(map), true) = (last, at.as_object_mut(), new.is_null()) {
            map.remove(&part);
            return;
        }
        let next_is_index = parts.peek().is_some_and(|next| next.parse::<usize>().is_ok());
        at = match at {
            Value::Array(list) => {
                let index: usize = part.parse().expect("an index");
                if index == list.len() {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            other => {
                if !other.is_object() {
                    *other = json!({});
                }
                other.as_object_mut().expect("just made one").entry(part).or_insert(Value::Null)
            }
        };
        if at.is_null() && !last {
            *at = if next_is_index { json!([]) } else { json!({}) };
        }
    }
    *at = new;
}

/// A copy with changes.
pub fn with(base: &Value, changes: &Value) -> Value {
    let mut out = base.clone();
    for (pointer, value) in changes.as_object().into_iter().flatten() {
        set(&mut out, pointer, value.clone());
    }
    out
}

/// Compares what rules say with what a table expects.
pub fn same(what: &str, errors: &ErrorList, expected: &[&str], wrong: &mut Vec<String>) {
    let mut actual: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let mut missing = Vec::new();
    for one in expected {
        let fits = |text: &String| match one.strip_suffix('…') {
            Some(start) => text.starts_with(start),
            None => text == one,
        };
        match actual.iter().position(fits) {
            Some(index) => drop(actual.remove(index)),
            None => missing.push(*one),
        }
    }
    if !missing.is_empty() || !actual.is_empty() {
        wrong.push(format!("{what}\n    missing: {missing:#?}\n    too much: {actual:#?}"));
    }
}

/// Runs a table of new objects.
pub fn table(base: &Value, rule: fn(&Object) -> ErrorList, cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    same("the base", &rule(&Object::from(base.clone())), &[], &mut wrong);
    for (changes, expected) in cases {
        let object = Object::from(with(base, changes));
        same(&changes.to_string(), &rule(&object), expected, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Runs a table of updates: what is changed before, what is changed then, and what is wrong.
pub fn updates(base: &Value, rule: fn(&Object, &Object) -> ErrorList, cases: &[(Value, Value, &[&str])]) {
    let mut wrong = Vec::new();
    for (before, changes, expected) in cases {
        let old = with(base, before);
        let new = Object::from(with(&old, changes));
        same(&format!("{before} then {changes}"), &rule(&new, &Object::from(old)), expected, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
