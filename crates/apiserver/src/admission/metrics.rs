//! `apiserver_admission_…`: how long plugins and webhooks took, and how they ended.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Operation, Plugin};

/// Whether objects may be changed or are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Admit,
    Validate,
}

impl Step {
    const COUNT: usize = 2;

    pub fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }

    /// As the series of webhooks say it.
    fn of_webhooks(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validating",
        }
    }
}

/// Why a webhook refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    Calling,
    Internal,
    /// It said no.
    NoError,
}

impl Rejection {
    fn name(self) -> &'static str {
        match self {
            Self::Calling => "calling_webhook_error",
            Self::Internal => "apiserver_internal_error",
            Self::NoError => "no_error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    r#type: &'static str,
    operation: &'static str,
    rejected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    name: &'static str,
    r#type: &'static str,
    operation: &'static str,
    rejected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookRequestLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailOpenLabels {
    name: String,
    r#type: &'static str,
}

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// How long plugins took. A write passes a score of them, so that their series are looked up once.
#[derive(Clone, Debug)]
struct PluginDurations {
    family: Durations<PluginLabels>,
    found: Arc<[OnceLock<Histogram>]>,
}

impl PluginDurations {
    fn new(constructor: fn() -> Histogram) -> Self {
        let count = Plugin::COUNT * Step::COUNT * Operation::COUNT * 2;
        Self {
            family: Family::new_with_constructor(constructor),
            found: std::iter::repeat_with(OnceLock::new).take(count).collect(),
        }
    }

    fn of(&self, plugin: Plugin, step: Step, operation: Operation, rejected: bool) -> &Histogram {
        let at = (plugin as usize * Step::COUNT + step as usize) * Operation::COUNT + operation as usize;
        self.found[at * 2 + usize::from(rejected)].get_or_init(|| {
            let (name, r#type, operation) = (plugin.name(), step.name(), operation.name());
            self.family.get_or_create(&PluginLabels { name, r#type, operation, rejected }).clone()
        })
    }
}

/// Clones count together.
#[derive(Clone, Debug)]
pub struct AdmissionMetrics {
    steps: Durations<StepLabels>,
    plugins: PluginDurations,
    webhooks: Durations<WebhookLabels>,
    requests: Family<WebhookRequestLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    failed_open: Family<FailOpenLabels, Counter>,
}

/// Codes beyond are counted as this one: what webhooks make up must not make series.
const MAX_CODE: u16 = 600;

impl Default for AdmissionMetrics {
    fn default() -> Self {
        let own: fn() -> Histogram = || Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5]);
        Self {
            steps: Family::new_with_constructor(own),
            plugins: PluginDurations::new(own),
            webhooks: Family::new_with_constructor(|| {
                Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0])
            }),
            requests: Family::default(),
            rejections: Family::default(),
            failed_open: Family::default(),
        }
    }
}

impl AdmissionMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("apiserver_admission_{name}");
        let steps = "Seconds that all of admission took, by step, operation and outcome";
        registry.register(name("step_admission_duration_seconds"), steps, self.steps.clone());
        let plugins = "Seconds that a plugin took, by step, operation and outcome";
        registry.register(
            name("controller_admission_duration_seconds"),
            plugins,
            self.plugins.family.clone(),
        );
        let webhooks = "Seconds that a webhook took, by step, operation and outcome";
        registry.register(name("webhook_admission_duration_seconds"), webhooks, self.webhooks.clone());
        let requests = "Webhooks that were asked, by step, operation, code and outcome";
        registry.register(name("webhook_request"), requests, self.requests.clone());
        let rejections = "Writes that webhooks refused, by step, operation, sort of error and code";
        registry.register(name("webhook_rejection_count"), rejections, self.rejections.clone());
        let open = "Writes that went on though a webhook could not be asked";
        registry.register(name("webhook_fail_open_count"), open, self.failed_open.clone());
    }

    pub fn step(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let labels = StepLabels { r#type: step.name(), operation: operation.name(), rejected };
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Measures plugins one after the other.
    pub fn laps(&self, step: Step, operation: Operation) -> Laps<'_> {
        Laps { metrics: self, step, operation, begun: Instant::now() }
    }

    /// A webhook was asked and answered with a code, or with none that could be used.
    pub fn webhook(
        &self,
        name: &str,
        step: Step,
        operation: Operation,
        code: u16,
        rejected: bool,
        took: Duration,
    ) {
        let (name, r#type, operation) = (name.to_owned(), step.of_webhooks(), operation.name());
        let labels = WebhookRequestLabels {
            name: name.clone(),
            r#type,
            operation,
            code: code.min(MAX_CODE),
            rejected,
        };
        self.requests.get_or_create(&labels).inc();
        let labels = WebhookLabels { name, r#type, operation, rejected };
        self.webhooks.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub fn rejection(&self, name: &str, step: Step, operation: Operation, why: Rejection, code: u16) {
        let labels = RejectionLabels {
            name: name.to_owned(),
            r#type: step.of_webhooks(),
            operation: operation.name(),
            error_type: why.name(),
            rejection_code: code.min(MAX_CODE),
        };
        self.rejections.get_or_create(&labels).inc();
    }

    pub fn failed_open(&self, name: &str, step: Step) {
        let labels = FailOpenLabels { name: name.to_owned(), r#type: step.of_webhooks() };
        self.failed_open.get_or_create(&labels).inc();
    }
}

/// The time between one plugin's end and the next one's.
pub struct Laps<'a> {
    metrics: &'a AdmissionMetrics,
    step: Step,
    operation: Operation,
    begun: Instant,
}

impl Laps<'_> {
    pub fn ended(&mut self, plugin: Plugin, rejected: bool) {
        let now = Instant::now();
        let took = now - self.begun;
        let durations = self.metrics.plugins.of(plugin, self.step, self.operation, rejected);
        durations.observe(took.as_secs_f64());
        self.begun = now;
    }
}
