//! The batch group, `batch/v1`.

mod cron_job;
mod indexes;
mod job;
mod job_spec;
mod job_status;
pub mod schedule;

use apimachinery::Object;

use crate::catalogue::{Access, Resource, Selectable, Subresource};
use crate::printers;
use crate::strategy::Plain;

const GROUP: Resource = Resource {
    group: "batch",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: true,
    short_names: &[],
    categories: &["all"],
    access: Access::Stored,
    package: "k8s.io.api.batch.v1",
    prefix: "",
    stored_as: None,
    subresources: &[],
    returns_deleted: false,
    selectable: &[],
    columns: printers::DEFAULT,
    strategy: &Plain,
};

pub const RESOURCES: &[Resource] = &[
    Resource {
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        prefix: "cronjobs",
        subresources: &[Subresource::status("CronJob")],
        columns: cron_job::COLUMNS,
        strategy: &cron_job::CronJobs,
        ..GROUP
    },
    Resource {
        kind: "Job",
        plural: "jobs",
        singular: "job",
        prefix: "jobs",
        subresources: &[Subresource::status("Job")],
        selectable: &[Selectable { name: "status.successful", read: succeeded }],
        columns: job::COLUMNS,
        strategy: &job::Jobs,
        ..GROUP
    },
];

fn succeeded(job: &Object) -> String {
    job.get_i64(&["status", "succeeded"]).unwrap_or_default().to_string()
}
