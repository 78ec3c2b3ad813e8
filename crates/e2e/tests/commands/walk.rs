//! A walk through commands: what is typed, and what has to be said.

use std::path::Path;
use std::time::Duration;

use e2e::{Cluster, Output};

pub const SOON: Duration = Duration::from_secs(20);

/// A cluster, and the namespace that commands are about unless they say another.
pub struct Walk {
    pub cluster: Cluster,
    namespace: &'static str,
}

/// The words of a line; what stands in single quotes is not parted.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

impl Walk {
    /// Begins in a new cluster, with this namespace.
    pub fn new(namespace: &'static str) -> Self {
        let walk = Self { cluster: Cluster::control_plane().unwrap(), namespace };
        walk.namespace(namespace);
        walk
    }

    /// Makes a namespace in which pods can be made.
    pub fn namespace(&self, name: &str) {
        self.cluster.run(&["create", "namespace", name]).unwrap();
        let account = ["get", "-n", name, "serviceaccount", "default", "-o", "name"];
        self.cluster.until(SOON, &account, |out| !out.is_empty()).unwrap();
    }

    /// Writes a file and gives back where it lies.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.cluster.scratch(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Types a line, with something on the standard input.
    #[track_caller]
    pub fn fed(&self, line: &str, input: &str) -> Output {
        let mut words = words(line);
        words.insert(0, format!("--namespace={}", self.namespace));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cluster.feed(&words, input).unwrap()
    }

    /// Types a line that has to succeed; gives back what it wrote.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let said = self.fed(line, "");
        assert!(said.ok, "{line}: {said:?}");
        said.stdout
    }

    /// Types a line that is about no namespace and has to succeed.
    #[track_caller]
    pub fn everywhere(&self, line: &str) {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cluster.run(&words).unwrap();
    }

    /// Types a line that succeeds and says this.
    #[track_caller]
    pub fn says(&self, line: &str, part: &str) {
        let said = self.fed(line, "");
        assert!(said.ok && (said.stdout.contains(part) || said.stderr.contains(part)), "{line}: {said:?}");
    }

    /// Types a line that fails and says this.
    #[track_caller]
    pub fn fails(&self, line: &str, part: &str) {
        let said = self.fed(line, "");
        assert!(!said.ok && (said.stderr.contains(part) || said.stdout.contains(part)), "{line}: {said:?}");
    }

    /// A field of what `get` finds.
    #[track_caller]
    pub fn field(&self, what: &str, path: &str) -> String {
        self.ok(&format!("get {what} -o 'jsonpath={path}'"))
    }

    #[track_caller]
    pub fn is(&self, what: &str, path: &str, wanted: &str) {
        assert_eq!(self.field(what, path), wanted, "{what} {path}");
    }

    /// The names of what `get` finds, in order.
    #[track_caller]
    pub fn names(&self, what: &str, wanted: &str) {
        self.is(what, "{.items[*].metadata.name}", wanted);
    }

    /// Waits until a field is so.
    #[track_caller]
    pub fn becomes(&self, what: &str, path: &str, wanted: &str) {
        let path = format!("jsonpath={path}");
        let mut line: Vec<&str> = vec!["get", "-n", self.namespace];
        line.extend(what.split(' '));
        line.extend(["-o", &path]);
        self.cluster.until(SOON, &line, |out| out == wanted).unwrap();
    }
}

/// A pod that nobody runs.
pub fn pod(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{name: {label}}}}}\n\
         spec: {{containers: [{{name: c, image: 'c:1'}}]}}\n---\n"
    )
}

/// A Deployment with two containers, whose pods have the label `of` with its name.
pub fn deployment(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 1\n  \
         selector: {{matchLabels: {{of: {name}}}}}\n  template:\n    metadata: {{labels: {{of: {name}}}}}\n    \
         spec: {{containers: [{{name: web, image: '{image}', ports: [{{containerPort: 80}}]}}, \
         {{name: aside, image: 'aside:1'}}]}}\n---\n"
    )
}

/// A ReplicationController.
pub fn controller(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: {name}}}\nspec:\n  replicas: 3\n  \
         selector: {{of: {name}}}\n  template:\n    metadata: {{labels: {{of: {name}}}}}\n    \
         spec: {{containers: [{{name: web, image: 'web:1', ports: [{{containerPort: 80}}]}}]}}\n---\n"
    )
}

#[test]
fn quoted_words_stay_together() {
    assert_eq!(words("get 'a b' -o 'jsonpath={.x y}'  c"), ["get", "a b", "-o", "jsonpath={.x y}", "c"]);
    assert_eq!(words("get -p='a b' c"), ["get", "-p=a b", "c"]);
}
