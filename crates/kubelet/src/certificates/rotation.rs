//! When a certificate is renewed, and the loop that does it.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use kube::Client;
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;

use super::request::{self, Wanted};
use super::store::{Pair, Store};

/// How long one request is waited for before another is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// After a failure, doubled up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(32);
/// Between two renewals, however short certificates live.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the clock is looked at: it may jump.
const LOOK: Duration = Duration::from_secs(60);

/// When a certificate is renewed. `jitter` is between 0 and 1, and drawn once for each certificate, so that nodes that
/// began together do not renew together.
pub fn deadline(pair: &Pair, jitter: f64) -> Timestamp {
    let life = pair.not_after.as_second() - pair.not_before.as_second();
    let used = life as f64 * (0.7 + 0.2 * jitter.clamp(0.0, 1.0));
    let spent = Duration::try_from_secs_f64(used).unwrap_or_default();
    pair.not_before + spent
}

/// Keeps one certificate fresh.
pub struct Rotation {
    pub store: Store,
    pub wanted: Wanted,
    /// Whether the first certificate is renewed whatever it says.
    pub at_once: bool,
}

impl Rotation {
    /// Renews until cancelled. `client` gives who asks, and `changed` is told of each new pair.
    pub async fn run(
        mut self,
        mut current: Option<Pair>,
        client: impl Fn(Option<&Pair>) -> anyhow::Result<Client>,
        changed: impl Fn(&Pair) -> anyhow::Result<()>,
        cancel: CancellationToken,
    ) {
        let rotate = async {
            loop {
                self.wait_until_due(current.as_ref()).await;
                let mut retry = FIRST_RETRY;
                loop {
                    match self.renew(&client, current.as_ref()).await {
                        Ok(pair) => {
                            tracing::info!(signer = self.wanted.signer, until = %pair.not_after, "a certificate was renewed");
                            if let Err(error) = changed(&pair) {
                                tracing::error!(
                                    error = format!("{error:#}"),
                                    "a new certificate is not in use"
                                );
                            }
                            current = Some(pair);
                            break;
                        }
                        Err(error) => {
                            tracing::warn!(
                                signer = self.wanted.signer,
                                error = format!("{error:#}"),
                                "a certificate could not be renewed"
                            );
                        }
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                self.at_once = false;
                tokio::time::sleep(PAUSE).await;
            }
        };
        cancel.run_until_cancelled(rotate).await;
    }

    async fn wait_until_due(&self, current: Option<&Pair>) {
        let Some(pair) = current.filter(|pair| !self.at_once && self.wanted.is_met_by(pair)) else { return };
        let deadline = deadline(pair, rand::random());
        tracing::info!(signer = self.wanted.signer, %deadline, "a certificate is to be renewed");
        while let Ok(left) = Duration::try_from(deadline - Timestamp::now())
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    async fn renew(
        &self,
        client: &impl Fn(Option<&Pair>) -> anyhow::Result<Client>,
        current: Option<&Pair>,
    ) -> anyhow::Result<Pair> {
        let key = KeyPair::generate().context("unable to generate a new private key")?;
        let client = client(current.filter(|pair| !pair.is_over(Timestamp::now())))?;
        let asked = request::certificate(&client, &self.wanted, &key, None);
        let certificate =
            tokio::time::timeout(PATIENCE, asked).await.context("certificate request was not signed")??;
        self.store.update(&certificate, &key.serialize_pem(), Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::store::tests::pair;

    #[test]
    fn certificates_are_renewed_at_70_to_90_percent_of_their_life() {
        let (certificate, key) = pair(1_000_000, 2_000_000, &[]);
        let pair = Pair::parse((certificate + &key).into_bytes()).unwrap();
        for (jitter, wanted) in [(0.0, 1_700_000), (0.5, 1_800_000), (1.0, 1_900_000), (7.0, 1_900_000)] {
            assert_eq!(deadline(&pair, jitter).as_second(), wanted, "{jitter}");
        }
    }
}
