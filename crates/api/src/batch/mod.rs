//! The batch group, `batch/v1`.

mod cron_job;
mod indexes;
mod job;
mod job_spec;
mod job_status;
pub mod schedule;

use apimachinery::Object;

use crate::catalogue::{Resource, Selectable, Subresource};

const GROUP: Resource =
    Resource { categories: &["all"], ..Resource::in_group("batch", "v1", "k8s.io.api.batch.v1") };

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
