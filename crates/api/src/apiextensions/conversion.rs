//! How objects of a definition get from one version to another.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::validation as names;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::options::{Options, is_known_review, known_reviews};
use crate::admissionregistration::client_config;
use crate::certificates::check_authorities;
use crate::validation::at::At;

/// What is wrong, at the paths of upstream's internal version.
pub fn validate(conversion: &At<'_>, options: &Options) -> ErrorList {
    if !conversion.is_set() {
        return ErrorList::new();
    }
    let webhook = conversion.child("webhook");
    let inner = |key: &str, shown: &str| {
        At::new(webhook.value.get(key).unwrap_or(&Value::Null), conversion.path.child(shown))
    };
    let config = inner("clientConfig", "webhookClientConfig");
    let reviews = inner("conversionReviewVersions", "conversionReviewVersions");
    let mut errors = conversion.child("strategy").one_of(&["None", "Webhook"]);
    if conversion.text("strategy") != "Webhook" {
        for at in [config, reviews].iter().filter(|at| at.is_set()) {
            errors.push(at.forbidden("should not be set when strategy is not set to Webhook"));
        }
        return errors;
    }
    if config.is_set() {
        errors.extend(client_config(&config));
        let bundle = config.child("caBundle");
        if options.authorities && !bundle.is_empty() {
            errors.extend(authorities(&bundle));
        }
    } else {
        errors.push(config.required("required when strategy is set to Webhook"));
    }
    if reviews.is_empty() {
        errors.push(reviews.required(""));
        return errors;
    }
    for (index, version) in reviews.items().enumerate() {
        if reviews.list()[..index].contains(version.value) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        errors.extend(version.wrong(names::is_dns1035_label(version.str())));
    }
    if options.reviews && !reviews.list().iter().any(is_known_review) {
        let why = format!("must include at least one of {}", known_reviews());
        errors.push(reviews.invalid(why));
    }
    errors
}

/// Why a webhook's bundle cannot be used to verify it.
pub fn authorities(bundle: &At<'_>) -> Option<Error> {
    let text = BASE64_STANDARD.decode(bundle.str()).unwrap_or_default();
    check_authorities(&text).err().map(|why| bundle.invalid(why))
}
