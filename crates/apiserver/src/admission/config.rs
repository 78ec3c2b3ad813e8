//! What admission is started with: which plugins run, and how they are configured by `--admission-control-config-file`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apimachinery::field::Error;
use apimachinery::{Value, codec};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::event_rate_limit::{self, Limit};
use super::plugins::{Plugin, Plugins};
use super::pod_node_selector::PodNodeSelector;
use super::pod_security::PodSecurity;
use super::pod_toleration_restriction::PodTolerationRestriction;
use super::resource_quota::LimitedResource;
use super::webhook::Credentials;

/// Which plugins run, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(super) plugins: Plugins,
    pub(super) pod_security: PodSecurity,
    pub(super) pod_node_selector: PodNodeSelector,
    pub(super) pod_tolerations: PodTolerationRestriction,
    pub(super) event_limits: Vec<Limit>,
    pub(super) limited_resources: Vec<LimitedResource>,
    pub(super) mutating_credentials: Credentials,
    pub(super) validating_credentials: Credentials,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AdmissionConfiguration {
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PluginConfiguration {
    name: String,
    #[serde(default)]
    path: PathBuf,
    configuration: Option<Value>,
}

impl Options {
    /// The plugins that the flags name, configured by a file if there is one.
    pub fn new(enable: &[String], disable: &[String], file: Option<&Path>) -> Result<Self, String> {
        let mut out = Self { plugins: Plugins::new(enable, disable)?, ..Self::default() };
        if let Some(file) = file {
            let bytes = std::fs::read(file).map_err(|error| {
                format!("unable to read admission control configuration from {:?} [{error}]", file.display())
            })?;
            out.read(&bytes, file.parent().unwrap_or(Path::new("")))?;
        }
        // it has no use for no limits, and nothing to go by without a configuration
        let errors = event_rate_limit::validate_limits(&out.event_limits);
        if out.plugins.has(Plugin::EventRateLimit) && !errors.is_empty() {
            return Err(of_plugin(Plugin::EventRateLimit, joined(&errors)));
        }
        Ok(out)
    }

    fn read(&mut self, bytes: &[u8], folder: &Path) -> Result<(), String> {
        let file: AdmissionConfiguration = versioned(
            yaml(bytes)?,
            "apiserver.config.k8s.io",
            &["v1", "v1alpha1"],
            "AdmissionConfiguration",
        )?;
        for configured in file.plugins {
            let Some(plugin) = Plugin::parse(&configured.name) else { continue };
            let value = match configured.configuration {
                Some(value) => value,
                None if configured.path.as_os_str().is_empty() => continue,
                None => {
                    let path = folder.join(&configured.path);
                    let read = std::fs::read(&path);
                    let bytes = read.map_err(|error| {
                        let path = path.display();
                        format!("Couldn't open admission plugin configuration {path}: {error}")
                    })?;
                    yaml(&bytes)?
                }
            };
            self.configure(plugin, value).map_err(|error| of_plugin(plugin, error))?;
        }
        Ok(())
    }

    /// Configures one plugin. Those that have nothing to configure take whatever stands there, as upstream's do.
    fn configure(&mut self, plugin: Plugin, value: Value) -> Result<(), String> {
        const API_SERVER: &str = "apiserver.config.k8s.io";
        match plugin {
            Plugin::PodSecurity => {
                let group = "pod-security.admission.config.k8s.io";
                let versions = ["v1", "v1beta1", "v1alpha1"];
                let configuration = versioned(value, group, &versions, "PodSecurityConfiguration")?;
                self.pod_security = PodSecurity::configured(configuration)?;
            }
            Plugin::EventRateLimit => {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Configuration {
                    #[serde(default)]
                    limits: Vec<Limit>,
                }
                let group = "eventratelimit.admission.k8s.io";
                let Configuration { limits } = versioned(value, group, &["v1alpha1"], "Configuration")?;
                self.event_limits = limits;
            }
            Plugin::PodTolerationRestriction => {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Configuration {
                    #[serde(default)]
                    default: Vec<Value>,
                    #[serde(default)]
                    whitelist: Vec<Value>,
                }
                let group = "podtolerationrestriction.admission.k8s.io";
                let Configuration { default, whitelist } =
                    versioned(value, group, &["v1alpha1"], "Configuration")?;
                self.pod_tolerations = PodTolerationRestriction { default, allowed: whitelist };
            }
            Plugin::PodNodeSelector => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Configuration {
                    #[serde(default)]
                    pod_node_selector_plugin_config: BTreeMap<String, String>,
                }
                let Configuration { pod_node_selector_plugin_config: selectors } = parse(value)?;
                self.pod_node_selector = PodNodeSelector::configured(selectors);
            }
            Plugin::ResourceQuota => {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields, rename_all = "camelCase")]
                struct Configuration {
                    #[serde(default)]
                    limited_resources: Vec<LimitedResource>,
                }
                let versions = ["v1", "v1beta1", "v1alpha1"];
                let Configuration { limited_resources } =
                    versioned(value, API_SERVER, &versions, "ResourceQuotaConfiguration")?;
                if let Some(index) = limited_resources.iter().position(LimitedResource::is_nameless) {
                    return Err(format!("limitedResources[{index}].resource: Required value"));
                }
                self.limited_resources = limited_resources;
            }
            Plugin::MutatingAdmissionWebhook => self.mutating_credentials = credentials(value)?,
            Plugin::ValidatingAdmissionWebhook => self.validating_credentials = credentials(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// The credentials that webhooks are shown, by a kubeconfig.
fn credentials(value: Value) -> Result<Credentials, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Configuration {
        #[serde(default)]
        kube_config_file: PathBuf,
    }
    let versions = ["v1", "v1alpha1"];
    let Configuration { kube_config_file: file } =
        versioned(value, "apiserver.config.k8s.io", &versions, "WebhookAdmissionConfiguration")?;
    if file.as_os_str().is_empty() {
        return Ok(Credentials::default());
    }
    if !file.is_absolute() {
        let path = apimachinery::field::Path::new("kubeConfigFile");
        let shown = file.display().to_string();
        return Err(Error::invalid(&path, shown, "must be an absolute file path").to_string());
    }
    Credentials::read(&file)
}

fn of_plugin(plugin: Plugin, error: String) -> String {
    format!("couldn't init admission plugin {:?}: {error}", plugin.name())
}

fn joined(errors: &[Error]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match errors.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn yaml(bytes: &[u8]) -> Result<Value, String> {
    codec::parse_yaml(bytes).map_err(|error| error.to_string())
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("strict decoding error: {error}"))
}

/// Reads a document of a kind; upstream takes older versions for the same.
fn versioned<T: DeserializeOwned>(
    mut value: Value,
    group: &str,
    versions: &[&str],
    kind: &str,
) -> Result<T, String> {
    let mut take = |key: &str| match value.as_object_mut().and_then(|map| map.remove(key)) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (api_version, own_kind) = (take("apiVersion"), take("kind"));
    let known = versions.iter().any(|version| api_version == format!("{group}/{version}"));
    if !known || own_kind != kind {
        return Err(format!("no kind {own_kind:?} is registered for version {api_version:?}"));
    }
    parse(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, String> {
        let mut options = Options::default();
        options.read(text.as_bytes(), Path::new("/nowhere")).map(|()| options)
    }

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";

    #[test]
    fn plugins_are_configured_in_place() {
        let options = read(&format!(
            "{HEAD}
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits: [{{type: Server, qps: 1, burst: 2}}]
- name: PodTolerationRestriction
  configuration:
    apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1
    kind: Configuration
    default: [{{key: a, operator: Exists}}]
- name: PodNodeSelector
  configuration:
    podNodeSelectorPluginConfig: {{clusterDefaultNodeSelector: a=b, ns: c=d}}
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources: [{{resource: pods, matchContains: [cpu]}}]
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {{enforce: baseline, enforce-version: v1.30}}
    exemptions: {{namespaces: [kube-system]}}
- name: LimitRanger
  configuration: {{whatever: true}}
"
        ))
        .unwrap();
        assert_eq!(options.event_limits.len(), 1);
        assert_eq!(options.pod_tolerations.default.len(), 1);
        assert_eq!(options.limited_resources.len(), 1);
        assert_ne!(options.pod_node_selector, PodNodeSelector::default());
        assert_eq!(options.pod_security.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(options.pod_security.exemptions.namespaces, ["kube-system"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let webhook = "apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration";
        for (text, wanted) in [
            ("kind: x", "no kind \"x\" is registered for version \"\""),
            (&format!("{HEAD}- {{name: PodSecurity, configuration: {{}}}}"), "no kind \"\" is registered"),
            (&format!("{HEAD}- {{nam: PodSecurity}}"), "unknown field `nam`"),
            (&format!("{HEAD}- {{name: PodSecurity, path: x.yaml}}"), "/nowhere/x.yaml"),
            (
                &format!(
                    "{HEAD}- {{name: ValidatingAdmissionWebhook, configuration: {{apiVersion: {webhook}, kubeConfigFile: a}}}}"
                ),
                "kubeConfigFile: Invalid value: \"a\": must be an absolute file path",
            ),
        ] {
            let error = read(text).err().unwrap_or_default();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let on = Options::new(&["EventRateLimit".to_owned()], &[], None).err().unwrap_or_default();
        assert!(
            on.starts_with("couldn't init admission plugin \"EventRateLimit\": limits: Invalid value"),
            "{on}"
        );
        assert!(Options::new(&[], &[], Some(Path::new("/no/such/file"))).is_err());
    }
}
