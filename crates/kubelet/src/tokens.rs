//! Service account tokens for pods, asked of the API server and renewed in time.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::pod::spec;
use crate::volumes::payload::TokenKey;

/// A token is renewed when it has lived this long, however long it would last.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// So that the tokens of many pods are not renewed in the same moment.
const MAX_JITTER_SECONDS: i64 = 10;

#[derive(Clone)]
struct Token {
    token: String,
    refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// Tokens by pod and request.
pub struct Tokens {
    client: Client,
    cache: Mutex<HashMap<(String, TokenKey), Token>>,
}

impl Tokens {
    pub fn new(client: Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// A token that is still good, and when it has to be asked for again.
    pub async fn get(
        &self,
        pod: &Pod,
        key: &TokenKey,
        now: Timestamp,
    ) -> Result<(String, Timestamp), String> {
        let slot = (spec::uid(pod).to_owned(), key.clone());
        let cached = self.cache.lock().get(&slot).cloned();
        if let Some(token) = cached.clone().filter(|token| now < token.refresh_at) {
            return Ok((token.token, token.refresh_at));
        }
        match self.request(pod, key, now).await {
            Ok(token) => {
                self.cache.lock().insert(slot, token.clone());
                Ok((token.token, token.refresh_at))
            }
            // an older token that is still good serves until the API answers again
            Err(error) => match cached.filter(|token| now < token.expires_at) {
                Some(token) => {
                    tracing::warn!(pod = spec::format(pod), %error, "a token could not be renewed yet");
                    Ok((token.token, now + SignedDuration::from_secs(30)))
                }
                None => Err(format!("failed to fetch token: {error}")),
            },
        }
    }

    async fn request(&self, pod: &Pod, key: &TokenKey, now: Timestamp) -> Result<Token, String> {
        let account = spec::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), spec::namespace(pod));
        let audiences = if key.audience.is_empty() { Vec::new() } else { vec![key.audience.clone()] };
        let request = TokenRequest {
            metadata: ObjectMeta::default(),
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(spec::name(pod).to_owned()),
                    uid: Some(spec::uid(pod).to_owned()),
                }),
                expiration_seconds: Some(key.expiration_seconds),
            }),
            status: None,
        };
        let answer: TokenRequest = api
            .create_subresource("token", account, &PostParams::default(), &request)
            .await
            .map_err(|error| match error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            })?;
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("the answer holds no token".to_owned());
        };
        Ok(Token { token, refresh_at: refresh_time(now, expires.0), expires_at: expires.0 })
    }

    pub fn release(&self, pod_uid: &str) {
        self.cache.lock().retain(|(uid, _), _| uid != pod_uid);
    }
}

/// After four fifths of its life, or a day.
fn refresh_time(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.duration_since(now);
    let jitter = SignedDuration::from_secs(rand::random_range(0..MAX_JITTER_SECONDS));
    now + (life * 4 / 5).min(MAX_AGE).saturating_sub(jitter).max(SignedDuration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_time() {
        let now = Timestamp::UNIX_EPOCH;
        for (hours, at_most) in [(1, 48), (100, 24 * 60)] {
            let at = refresh_time(now, now + SignedDuration::from_hours(hours));
            let minutes = at.duration_since(now).as_mins();
            assert!(minutes <= at_most && minutes >= at_most - 1, "{hours}: {minutes}");
        }
        assert!(refresh_time(now, now) > now);
    }
}
