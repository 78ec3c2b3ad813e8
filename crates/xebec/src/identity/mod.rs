//! Flags of the API server that say whom it believes, what for, and what it shows; and what they become.

mod issuers;
mod service_accounts;
mod serving;
mod webhooks;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

pub use issuers::IssuerArgs;
pub use service_accounts::{ServiceAccountArgs, signing_key, token_signer};
pub use serving::{EncryptionArgs, ServingArgs};
pub use webhooks::WebhookArgs;

/// A duration as Go writes it.
fn duration(text: &str) -> Result<Duration, String> {
    let nanos = apimachinery::time::parse_duration(text).map_err(|error| error.to_string())?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text} is less than nothing"))
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("--{flag} {} cannot be read", path.display()))
}

fn text(flag: &str, path: &Path) -> anyhow::Result<String> {
    String::from_utf8(read(flag, path)?).with_context(|| format!("--{flag} {} is no text", path.display()))
}

/// What flags become, alone.
#[cfg(test)]
fn parse<A: clap::Args>(flags: &[&str]) -> Result<A, String> {
    #[derive(clap::Parser)]
    struct Only<A: clap::Args> {
        #[command(flatten)]
        args: A,
    }
    let flags = std::iter::once(&"xebec").chain(flags);
    clap::Parser::try_parse_from(flags).map(|only: Only<A>| only.args).map_err(|error| error.to_string())
}
