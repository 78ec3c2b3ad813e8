//! Webhooks asked again when what went wrong may pass, with growing pauses between.

use std::time::{Duration, Instant};

use apimachinery::{Value, codec};
use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::{Answer, HttpsClient, refusal};

/// How long all tries together may take: as long as a request that waits for them.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often, and with which pauses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub steps: u32,
}

impl Backoff {
    const FACTOR: f64 = 1.5;
    const JITTER: f64 = 0.2;
}

impl Default for Backoff {
    /// As upstream's webhooks of authentication and authorization.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), steps: 5 }
    }
}

/// Posts a review until there is an answer, or no hope of one. The error is worded as upstream's client has it.
pub async fn post_review(
    client: &HttpsClient,
    url: &str,
    review: &Value,
    timeout: Duration,
    backoff: Backoff,
) -> Result<Value, String> {
    let body = Bytes::from(review.to_string());
    let mut pause = backoff.first;
    let mut step = 1;
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (why, may_pass) = match client.post(url, body.clone(), timeout.min(left)).await {
            Ok(answer) if answer.code.is_success() => return understand(review, &answer),
            Ok(answer) => (refusal(answer.code, &answer.body), may_pass(&answer)),
            Err(failure) => (failure.message, failure.reset),
        };
        if !may_pass || step >= backoff.steps || Instant::now() + pause >= end {
            return Err(why);
        }
        step += 1;
        tokio::time::sleep(pause.mul_f64(1.0 + Backoff::JITTER * rand::random::<f64>())).await;
        pause = pause.mul_f64(Backoff::FACTOR);
    }
}

/// The answer, if it is a review of the kind that was asked for.
fn understand(asked: &Value, answer: &Answer) -> Result<Value, String> {
    let value = codec::parse_json(&answer.body).map_err(|error| error.to_string())?;
    let is = |key: &str| value.get(key) == asked.get(key);
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("kind").is_empty() {
        return Err(format!("Object 'Kind' is missing in '{value}'"));
    }
    if !is("kind") || !is("apiVersion") {
        return Err(format!("no kind {:?} is registered for version {:?}", text("kind"), text("apiVersion")));
    }
    Ok(value)
}

/// Server errors, and whatever says itself that it wants to be asked again.
fn may_pass(answer: &Answer) -> bool {
    matches!(
        answer.code,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    ) || answer.headers.contains_key(RETRY_AFTER)
}
