//! Turns the facts read off the Go API types into the compact table that `apimachinery::schema` loads.
//!
//! The table is text, one line per item, so that a change of version shows as a readable diff:
//!
//! ```text
//! p <package> <group, "-" when it has none> <version>
//! n <named scalar> <values, comma separated>
//! a <alias> <message it stands for>
//! m <message> [atomic]
//! <json name> \t <protobuf tag path> \t <kind> \t <presence in Go and JSON> \t <list or map type> \t <list map keys>
//!     \t <patch strategy> \t <patch merge key> \t <default> \t <optional|required> \t <feature gate>
//! ```
//!
//! Fields of inlined structs are flattened; their tag path holds the tags on the way (`2.1`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Structs that server-side apply owns as a whole (`+structType=atomic`); the field table does not say so.
const ATOMIC_STRUCTS: &[(&str, &str)] = &[
    (
        "k8s.io.api.admissionregistration.v1",
        "MatchResources NamedRuleWithOperations ParamKind ParamRef Variable",
    ),
    (
        "k8s.io.api.admissionregistration.v1alpha1",
        "MatchResources NamedRuleWithOperations ParamKind ParamRef",
    ),
    (
        "k8s.io.api.admissionregistration.v1beta1",
        "MatchResources NamedRuleWithOperations ParamKind ParamRef Variable",
    ),
    ("k8s.io.api.autoscaling.v1", "CrossVersionObjectReference"),
    (
        "k8s.io.api.core.v1",
        "ConfigMapKeySelector EndpointAddress EndpointPort FileKeySelector LocalObjectReference NodeSelector \
         NodeSelectorTerm ObjectFieldSelector ObjectReference ResourceFieldSelector ScopeSelector \
         SecretKeySelector SecretReference TopologySelectorTerm TypedLocalObjectReference",
    ),
    ("k8s.io.api.discovery.v1", "EndpointPort"),
    ("k8s.io.api.networking.v1", "ServiceBackendPort"),
    ("k8s.io.api.rbac.v1", "RoleRef Subject"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1", "LabelSelector OwnerReference"),
];

/// Structs without fields, which the field table cannot list.
const EMPTY_STRUCTS: &[(&str, &str)] = &[
    ("k8s.io.api.apiserverinternal.v1alpha1", "StorageVersionSpec"),
    ("k8s.io.api.scheduling.v1alpha2", "BasicSchedulingPolicy"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1", "CustomResourceSubresourceStatus"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1beta1", "CustomResourceSubresourceStatus"),
];

/// Go types whose JSON or protobuf form no field list describes.
const SPECIAL: &[(&str, &str)] = &[
    ("resource.Quantity", "quantity"),
    ("runtime.RawExtension", "rawextension"),
    ("intstr.IntOrString", "intorstring"),
    ("metav1.Time", "time"),
    ("metav1.MicroTime", "microtime"),
    ("metav1.Duration", "duration"),
    ("interface{}", "any"),
    ("[]byte", "bytes"),
    ("float64", "float64"),
    ("string", "string"),
    ("bool", "bool"),
    ("int32", "int32"),
    ("int64", "int64"),
    ("uint32", "uint32"),
    // Plain strings with a name of their own (`types.UID`): the name shows in error messages only.
    ("types.UID", "string"),
    ("types.NodeName", "string"),
];

/// Packages with nothing but building blocks that are kinds of the table.
const UNSERVED_PACKAGES: &[&str] = &[
    "k8s.io.apimachinery.pkg.apis.testapigroup.v1",
    "k8s.io.apimachinery.pkg.runtime",
    "k8s.io.apimachinery.pkg.util.intstr",
];

/// Defaults that Go declares by the name of a constant.
const DEFAULT_CONSTANTS: &[(&str, &str)] =
    &[("ref(AzureDataDiskCachingReadWrite)", "\"ReadWrite\""), ("ref(AzureSharedBlobDisk)", "\"Shared\"")];

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";
const CORE: &str = "k8s.io.api.core.v1";

struct Row {
    field: String,
    tag: String,
    go_type: String,
    go_kind: String,
    json: String,
    rest: Vec<String>,
}

struct Facts {
    /// package -> message -> rows, in Go's order.
    messages: BTreeMap<String, Vec<(String, Vec<Row>)>>,
    /// package.type -> what it stands for.
    types: BTreeMap<String, String>,
    enums: BTreeMap<String, String>,
}

/// Reads the fact files in `folder` and writes the table to `table`.
pub fn write_table(folder: &Path, table: &Path) -> Result<()> {
    let facts = Facts::read(folder)?;
    let text = facts.table()?;
    std::fs::write(table, &text).with_context(|| format!("write {}", table.display()))?;
    println!("{}: {} lines, {} bytes", table.display(), text.lines().count(), text.len());
    Ok(())
}

fn rows(folder: &Path, name: &str) -> Result<Vec<Vec<String>>> {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

impl Facts {
    fn read(folder: &Path) -> Result<Self> {
        let mut messages: BTreeMap<String, Vec<(String, Vec<Row>)>> = BTreeMap::new();
        for columns in rows(folder, "fields.tsv")? {
            let [package, message, field, tag, go_type, go_kind, json, rest @ ..] = columns.as_slice() else {
                bail!("fields.tsv: short line {columns:?}");
            };
            let list = messages.entry(package.clone()).or_default();
            if list.last().is_none_or(|(name, _)| name != message) {
                list.push((message.clone(), Vec::new()));
            }
            let row = Row {
                field: field.clone(),
                tag: tag.clone(),
                go_type: go_type.clone(),
                go_kind: go_kind.clone(),
                json: json.clone(),
                rest: rest.to_vec(),
            };
            list.last_mut().expect("pushed above").1.push(row);
        }
        for (package, name) in EMPTY_STRUCTS {
            messages.entry((*package).to_owned()).or_default().push(((*name).to_owned(), Vec::new()));
        }
        let pairs = |name| -> Result<BTreeMap<String, String>> {
            rows(folder, name)?
                .into_iter()
                .map(|columns| match columns.as_slice() {
                    [a, b, ..] => Ok((a.clone(), b.clone())),
                    _ => bail!("{name}: short line {columns:?}"),
                })
                .collect()
        };
        Ok(Self { messages, types: pairs("types.tsv")?, enums: pairs("enums.tsv")? })
    }

    fn message(&self, package: &str, name: &str) -> Option<&[Row]> {
        self.messages.get(package)?.iter().find(|(m, _)| m == name).map(|(_, rows)| rows.as_slice())
    }

    /// The package that a Go import alias in `package` means, for the type `name` looked up in it.
    fn resolve(&self, package: &str, alias: &str, name: &str) -> Result<String> {
        let candidates: Vec<String> = match alias {
            "" => vec![package.to_owned()],
            "metav1" => vec![META.to_owned()],
            "corev1" | "apiv1" | "k8s_io_api_core_v1" => vec![CORE.to_owned()],
            "runtime" => vec!["k8s.io.apimachinery.pkg.runtime".to_owned()],
            _ => {
                let (family, _) = package.rsplit_once('.').context("a package has a version")?;
                let split = alias.rfind('v').unwrap_or(0);
                let (group, version) = alias.split_at(split);
                if group.is_empty() {
                    vec![format!("{family}.{version}"), CORE.to_owned(), META.to_owned()]
                } else {
                    vec![format!("k8s.io.api.{group}.{version}")]
                }
            }
        };
        candidates
            .into_iter()
            .find(|p| self.message(p, name).is_some() || self.types.contains_key(&format!("{p}.{name}")))
            .with_context(|| format!("{alias}.{name} as named in {package} is nowhere"))
    }

    /// The table's name for a Go type as written in `package`, collecting the scalars it names.
    fn kind(&self, package: &str, go_type: &str, named: &mut BTreeSet<(String, String)>) -> Result<String> {
        let go_type = go_type.strip_prefix('*').unwrap_or(go_type);
        if let Some((_, kind)) = SPECIAL.iter().find(|(name, _)| *name == go_type) {
            return Ok((*kind).to_owned());
        }
        if let Some(element) = go_type.strip_prefix("[]") {
            return Ok(format!("list {}", self.kind(package, element, named)?));
        }
        if let Some(rest) = go_type.strip_prefix("map[") {
            let (_, value) = rest.split_once(']').context("a map type has a value")?;
            return Ok(format!("map {}", self.kind(package, value, named)?));
        }
        let (alias, name) = go_type.split_once('.').unwrap_or(("", go_type));
        let home = self.resolve(package, alias, name)?;
        let short = |name: &str| if home == package { name.to_owned() } else { format!("{home}.{name}") };
        if home == META {
            let special = match name {
                "Time" => "time",
                "MicroTime" => "microtime",
                "Duration" => "duration",
                "FieldsV1" => "fieldsv1",
                _ => "",
            };
            if !special.is_empty() {
                return Ok(special.to_owned());
            }
        }
        if home.contains("apiextensions") {
            match name {
                "JSON" => return Ok("json".to_owned()),
                "JSONSchemaPropsOrBool" => return Ok("schemaorbool JSONSchemaProps".to_owned()),
                "JSONSchemaPropsOrArray" => return Ok("schemaorarray JSONSchemaProps".to_owned()),
                "JSONSchemaPropsOrStringArray" => return Ok("schemaorstrings JSONSchemaProps".to_owned()),
                _ => {}
            }
        }
        if home.ends_with(".runtime") && name == "RawExtension" {
            return Ok("rawextension".to_owned());
        }
        if self.message(&home, name).is_some() {
            return Ok(short(name));
        }
        let under = &self.types[&format!("{home}.{name}")];
        if under == "string" {
            named.insert((home.clone(), name.to_owned()));
            return Ok(format!("string({})", short(name)));
        }
        let kind = self.kind(&home, under, named)?;
        // `Verbs` and `ExtraValue` are lists in JSON and a message that holds one in protobuf.
        if under == "[]string" { Ok("wrappedstrings".to_owned()) } else { Ok(qualify(&kind, &home, package)) }
    }

    fn table(&self) -> Result<String> {
        let mut named = BTreeSet::new();
        let mut bodies: Vec<(String, String)> = Vec::new();
        for (package, messages) in &self.messages {
            if UNSERVED_PACKAGES.contains(&package.as_str()) {
                continue;
            }
            let mut body = String::new();
            for (message, rows) in messages {
                if skipped(package, message) {
                    continue;
                }
                let atomic = ATOMIC_STRUCTS
                    .iter()
                    .any(|(p, names)| p == package && names.split_whitespace().any(|n| n == message));
                writeln!(body, "m {message}{}", if atomic { " atomic" } else { "" })?;
                self.fields(package, rows, "", &mut named, &mut body)
                    .with_context(|| format!("{package}.{message}"))?;
            }
            bodies.push((package.clone(), body));
        }
        let mut out = String::from("# The Kubernetes API, 1.36: written by `cargo run -p xtask -- facts`.\n");
        for (package, body) in bodies {
            let (family, version) = package.rsplit_once('.').context("a package has a version")?;
            writeln!(out, "p {package} {} {version}", group(family))?;
            for (home, name) in named.iter().filter(|(home, _)| *home == package) {
                let values = self.enums.get(&format!("{home}.{name}")).map_or("", String::as_str);
                writeln!(out, "n {name} {values}")?;
            }
            for (full, under) in &self.types {
                let Some((home, name)) = full.rsplit_once('.') else { continue };
                if home != package
                    || name.starts_with("Internal")
                    || under.starts_with(['[', 'm']) && !under.contains('.')
                {
                    continue;
                }
                let (alias, base) = under.split_once('.').unwrap_or(("", under));
                if let Ok(target) = self.resolve(&package, alias, base)
                    && self.message(&target, base).is_some()
                {
                    writeln!(out, "a {name} {target}.{base}")?;
                }
            }
            out.push_str(&body);
        }
        Ok(out)
    }

    fn fields(
        &self,
        package: &str,
        rows: &[Row],
        tags: &str,
        named: &mut BTreeSet<(String, String)>,
        out: &mut String,
    ) -> Result<()> {
        self.fields_seen_from(package, package, rows, tags, named, out)
    }

    /// Writes the fields of a struct of `package`, as they read when inlined into a struct of `reader`.
    fn fields_seen_from(
        &self,
        reader: &str,
        package: &str,
        rows: &[Row],
        tags: &str,
        named: &mut BTreeSet<(String, String)>,
        out: &mut String,
    ) -> Result<()> {
        for row in rows {
            let tag = match (row.tag.as_str(), tags) {
                ("", _) => String::new(),
                (tag, "") => tag.to_owned(),
                (tag, outer) => format!("{outer}.{tag}"),
            };
            if row.json == "inline" {
                let (alias, name) = row.go_type.split_once('.').unwrap_or(("", &row.go_type));
                let mut home = self.resolve(package, alias, name)?;
                if let Some(under) = self.types.get(&format!("{home}.{name}")) {
                    let (alias, _) = under.split_once('.').unwrap_or(("", under));
                    home = self.resolve(&home, alias, name)?;
                }
                let inner = self.message(&home, name).context("an inlined struct has fields")?;
                if name == "TypeMeta" {
                    for key in ["kind", "apiVersion"] {
                        writeln!(out, "{key}\t\tstring\tvalue omitempty")?;
                    }
                } else {
                    self.fields_seen_from(reader, &home, inner, &tag, named, out)?;
                }
                continue;
            }
            let kind = qualify(&self.kind(package, &row.go_type, named)?, package, reader);
            let json = row.json.replace("omitempty,omitzero", "omitzero");
            let go_kind = if kind.starts_with("list ") || kind == "wrappedstrings" {
                "slice"
            } else if kind.starts_with("map ") {
                "map"
            } else {
                row.go_kind.as_str()
            };
            let mut line = format!("{}\t{tag}\t{kind}\t{go_kind} {json}", row.field);
            for column in &row.rest {
                line.push('\t');
                let constant = DEFAULT_CONSTANTS.iter().find(|(name, _)| name == column);
                line.push_str(constant.map_or(column, |(_, value)| value));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Messages that are kinds of their own in the table, or never objects of the API.
fn skipped(package: &str, message: &str) -> bool {
    match package {
        META => matches!(message, "Time" | "MicroTime" | "Duration" | "FieldsV1" | "Timestamp" | "TypeMeta"),
        _ => {
            package.contains("apiextensions")
                && (message == "JSON" || message.starts_with("JSONSchemaPropsOr"))
        }
    }
}

/// Rewrites a kind as named in package `home` so that it means the same in package `reader`.
fn qualify(kind: &str, home: &str, reader: &str) -> String {
    if home == reader {
        return kind.to_owned();
    }
    let (outer, name) = match kind.rsplit_once(' ') {
        Some((outer, name)) => (format!("{outer} "), name),
        None => (String::new(), kind),
    };
    let named = name.strip_prefix("string(").and_then(|n| n.strip_suffix(')'));
    let plain = named.unwrap_or(name);
    if plain.contains('.') || !plain.starts_with(|c: char| c.is_ascii_uppercase()) {
        return kind.to_owned();
    }
    match named {
        Some(n) => format!("{outer}string({home}.{n})"),
        None => format!("{outer}{home}.{name}"),
    }
}

/// The API group that a Go package's types are served in; "-" for the core group and for no group.
fn group(family: &str) -> String {
    let last = family.rsplit('.').next().unwrap_or(family);
    match last {
        "core" | "meta" => "-".to_owned(),
        "apps" | "autoscaling" | "batch" | "extensions" | "policy" => last.to_owned(),
        "apiserverinternal" => "internal.apiserver.k8s.io".to_owned(),
        "flowcontrol" => "flowcontrol.apiserver.k8s.io".to_owned(),
        "rbac" => "rbac.authorization.k8s.io".to_owned(),
        "custom_metrics" => "custom.metrics.k8s.io".to_owned(),
        "external_metrics" => "external.metrics.k8s.io".to_owned(),
        other => format!("{other}.k8s.io"),
    }
}
