//! `AuthenticationConfiguration`: which issuers of tokens are believed and what their claims mean. Pure.

use api::validation::url;
use apimachinery::field::{Error, ErrorList, Path, aggregate};
use apimachinery::validation::{is_dns1123_subdomain, regex_error};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::configuration::FileKind;

const FILE: FileKind = FileKind {
    kind: "AuthenticationConfiguration",
    versions: &["v1", "v1beta1", "v1alpha1"],
    messages: &[
        "AuthenticationConfiguration: jwt [JWTAuthenticator], anonymous AnonymousAuthConfig",
        "AnonymousAuthConfig: enabled bool, conditions [AnonymousAuthCondition]",
        "AnonymousAuthCondition: path string",
        "JWTAuthenticator: issuer Issuer, claimValidationRules [ClaimValidationRule], \
         claimMappings ClaimMappings, userValidationRules [UserValidationRule]",
        "Issuer: url string, discoveryURL string, certificateAuthority string, audiences [string], \
         audienceMatchPolicy string, egressSelectorType string",
        "ClaimValidationRule: claim string, requiredValue string, expression string, message string",
        "ClaimMappings: username PrefixedClaimOrExpression, groups PrefixedClaimOrExpression, \
         uid ClaimOrExpression, extra [ExtraMapping]",
        "PrefixedClaimOrExpression: claim string, prefix string, expression string",
        "ClaimOrExpression: claim string, expression string",
        "ExtraMapping: key string, valueExpression string",
        "UserValidationRule: expression string, message string",
    ],
};

/// How many issuers there may be.
const MAX_ISSUERS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthenticationConfiguration {
    pub jwt: Vec<JwtAuthenticatorConfig>,
    pub anonymous: Option<AnonymousConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AnonymousConfig {
    pub enabled: bool,
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AnonymousCondition {
    pub path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtAuthenticatorConfig {
    pub issuer: Issuer,
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    pub claim_mappings: ClaimMappings,
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Issuer {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; the system's authorities when empty.
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimMappings {
    pub username: PrefixedClaim,
    pub groups: PrefixedClaim,
    pub uid: Claim,
    pub extra: Vec<ExtraMapping>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PrefixedClaim {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Claim {
    pub claim: String,
    pub expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

impl AuthenticationConfiguration {
    /// Reads and checks a file. `disallowed` are the issuers of service account tokens, which are believed already.
    pub fn parse(bytes: &[u8], disallowed: &[String]) -> Result<Self, String> {
        let config: Self = FILE.decode(bytes)?;
        config.check(disallowed)?;
        Ok(config)
    }

    /// All that is wrong with it, in one line.
    pub fn check(&self, disallowed: &[String]) -> Result<(), String> {
        let errors = self.validate(disallowed);
        if errors.is_empty() { Ok(()) } else { Err(aggregate(&errors)) }
    }

    fn validate(&self, disallowed: &[String]) -> ErrorList {
        let root = Path::new("jwt");
        if self.jwt.len() > MAX_ISSUERS {
            return vec![Error::too_many(&root, self.jwt.len(), MAX_ISSUERS)];
        }
        let mut errors = ErrorList::new();
        let (mut issuers, mut discoveries) = (Seen::default(), Seen::default());
        for (index, one) in self.jwt.iter().enumerate() {
            let at = root.index(index);
            one.validate(&at, disallowed, &mut errors);
            let issuer = at.child("issuer");
            issuers.check(&issuer.child("url"), &one.issuer.url, &mut errors);
            if !one.issuer.discovery_url.is_empty() {
                discoveries.check(&issuer.child("discoveryURL"), &one.issuer.discovery_url, &mut errors);
            }
        }
        if let Some(anonymous) = self.anonymous.as_ref().filter(|it| !it.enabled && !it.conditions.is_empty())
        {
            let paths: Vec<String> =
                anonymous.conditions.iter().map(|condition| format!("{{{}}}", condition.path)).collect();
            let why = "enabled should be set to true when conditions are defined";
            let at = Path::new("anonymous").child("conditions");
            errors.push(Error::invalid_unseen(&at, why).showing(format!("[{}]", paths.join(" "))));
        }
        errors
    }
}

/// What came before, to find what comes twice.
#[derive(Default)]
struct Seen<'t>(Vec<&'t str>);

impl<'t> Seen<'t> {
    /// Whether it is new; if it is not, that is an error.
    fn check(&mut self, at: &Path, value: &'t str, errors: &mut ErrorList) -> bool {
        let is_new = !self.0.contains(&value);
        if is_new {
            self.0.push(value);
        } else {
            errors.push(Error::duplicate(at, value));
        }
        is_new
    }
}

/// The place where expressions will be compiled. Until they can be, there is no file with one that starts a server:
/// to ignore a rule that refuses tokens would let them in.
fn compile(at: &Path, expression: &str, errors: &mut ErrorList) {
    let why = "CEL expressions are not supported yet";
    errors.push(Error::invalid(at, expression, why));
}

impl JwtAuthenticatorConfig {
    fn validate(&self, at: &Path, disallowed: &[String], errors: &mut ErrorList) {
        self.issuer.validate(&at.child("issuer"), disallowed, errors);
        self.validate_rules(&at.child("claimValidationRules"), errors);
        self.claim_mappings.validate(&at.child("claimMappings"), errors);
        let rules = at.child("userValidationRules");
        let mut expressions = Seen::default();
        for (index, rule) in self.user_validation_rules.iter().enumerate() {
            let at = rules.index(index).child("expression");
            if rule.expression.is_empty() {
                errors.push(Error::required(&at, ""));
            } else if expressions.check(&at, &rule.expression, errors) {
                compile(&at, &rule.expression, errors);
            }
        }
    }

    fn validate_rules(&self, path: &Path, errors: &mut ErrorList) {
        let (mut claims, mut expressions) = (Seen::default(), Seen::default());
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let at = path.index(index);
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => errors.push(Error::required(&at, "claim or expression is required")),
                (claim, "") => {
                    if !rule.message.is_empty() {
                        let why = "may not be specified when claim is set";
                        errors.push(Error::invalid(&at.child("message"), rule.message.as_str(), why));
                    }
                    claims.check(&at.child("claim"), claim, errors);
                }
                ("", expression) => {
                    if !rule.required_value.is_empty() {
                        let why = "may not be specified when expression is set";
                        let at = at.child("requiredValue");
                        errors.push(Error::invalid(&at, rule.required_value.as_str(), why));
                    }
                    let at = at.child("expression");
                    if expressions.check(&at, expression, errors) {
                        compile(&at, expression, errors);
                    }
                }
                (claim, _) => {
                    errors.push(Error::invalid(&at, claim, "claim and expression can't both be set"));
                }
            }
        }
    }
}

impl Issuer {
    fn validate(&self, at: &Path, disallowed: &[String], errors: &mut ErrorList) {
        let url_at = at.child("url");
        match self.url.as_str() {
            "" => errors.push(Error::required(&url_at, "")),
            url => validate_url(url, disallowed, &url_at, errors),
        }
        if !self.discovery_url.is_empty() {
            let at = at.child("discoveryURL");
            let bare = |url: &str| url.trim_end_matches('/').to_owned();
            if !self.url.is_empty() && bare(&self.url) == bare(&self.discovery_url) {
                let why = "discoveryURL must be different from URL";
                errors.push(Error::invalid(&at, self.discovery_url.as_str(), why));
            }
            validate_url(&self.discovery_url, &[], &at, errors);
        }
        self.validate_audiences(at, errors);
        if !self.certificate_authority.is_empty() {
            let parsed: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(self.certificate_authority.as_bytes()).collect();
            if !parsed
                .is_ok_and(|list| list.iter().any(|der| x509_parser::parse_x509_certificate(der).is_ok()))
            {
                let why = "data does not contain any valid RSA or ECDSA certificates";
                errors.push(Error::invalid(&at.child("certificateAuthority"), "<omitted>", why));
            }
        }
        let selector = self.egress_selector_type.as_str();
        let selector_at = at.child("egressSelectorType");
        match selector {
            "" => {}
            // upstream as well refuses one for which no way out is configured
            "controlplane" | "cluster" => {
                let why = format!("egress lookup for {selector:?} is not configured");
                errors.push(Error::invalid(&selector_at, selector, why));
            }
            _ => {
                let why = "egress selector must be either controlplane or cluster";
                errors.push(Error::invalid(&selector_at, selector, why));
            }
        }
    }

    fn validate_audiences(&self, at: &Path, errors: &mut ErrorList) {
        let (path, policy_at) = (at.child("audiences"), at.child("audienceMatchPolicy"));
        if self.audiences.is_empty() {
            errors.push(Error::required(&path, format!("at least one {path} is required")));
            return;
        }
        let mut seen = Seen::default();
        for (index, audience) in self.audiences.iter().enumerate() {
            let at = path.index(index);
            if audience.is_empty() {
                errors.push(Error::required(&at, ""));
            }
            seen.check(&at, audience, errors);
        }
        let policy = self.audience_match_policy.as_str();
        if self.audiences.len() > 1 && policy != "MatchAny" {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            errors.push(Error::invalid(&policy_at, policy, why));
        }
        if self.audiences.len() == 1 && !matches!(policy, "" | "MatchAny") {
            let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
            errors.push(Error::invalid(&policy_at, policy, why));
        }
    }
}

fn validate_url(text: &str, disallowed: &[String], at: &Path, errors: &mut ErrorList) {
    if disallowed.iter().any(|issuer| issuer == text) {
        let mut sorted = disallowed.to_vec();
        sorted.sort();
        let why = format!("URL must not overlap with disallowed issuers: [{}]", sorted.join(" "));
        errors.push(Error::invalid(at, text, why));
    }
    let url = match url::parse(text) {
        Ok(url) => url,
        Err(why) => {
            errors.push(Error::invalid(at, text, why));
            return;
        }
    };
    for (is_wrong, why) in [
        (url.scheme != "https", "URL scheme must be https"),
        (url.user.is_some(), "URL must not contain a username or password"),
        (!url.query.is_empty(), "URL must not contain a query"),
        (!url.fragment.is_empty(), "URL must not contain a fragment"),
    ] {
        if is_wrong {
            errors.push(Error::invalid(at, text, why));
        }
    }
}

impl ClaimMappings {
    fn validate(&self, at: &Path, errors: &mut ErrorList) {
        self.username.validate(&at.child("username"), true, errors);
        self.groups.validate(&at.child("groups"), false, errors);
        let uid = at.child("uid");
        match (self.uid.claim.as_str(), self.uid.expression.as_str()) {
            (_, "") => {}
            ("", expression) => compile(&uid.child("expression"), expression, errors),
            _ => errors.push(Error::invalid(&uid, "", "claim and expression can't both be set")),
        }
        let mut keys = Seen::default();
        for (index, mapping) in self.extra.iter().enumerate() {
            let at = at.child("extra").index(index);
            let (key_at, key) = (at.child("key"), mapping.key.as_str());
            errors.extend(validate_extra_key(&key_at, key));
            if !keys.check(&key_at, key, errors) {
                continue;
            }
            let at = at.child("valueExpression");
            match mapping.value_expression.as_str() {
                "" => errors.push(Error::required(&at, "")),
                expression => compile(&at, expression, errors),
            }
        }
    }
}

fn validate_extra_key(at: &Path, key: &str) -> ErrorList {
    const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let mut errors = ErrorList::new();
    match key.split_once('/') {
        _ if key.is_empty() => errors.push(Error::required(at, "")),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            errors
                .extend(is_dns1123_subdomain(domain).into_iter().map(|why| Error::invalid(at, domain, why)));
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(fits) {
                errors.push(Error::invalid(at, path, regex_error("Invalid path", HTTP_PATH, &[])));
            }
        }
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(Error::invalid(at, key, why));
        }
    }
    if key != key.to_lowercase() {
        errors.push(Error::invalid(at, key, "must be lowercase"));
    }
    let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
    let reserved = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if reserved("kubernetes.io") || reserved("k8s.io") {
        let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
        errors.push(Error::invalid(at, key, why));
    }
    errors
}

impl PrefixedClaim {
    fn validate(&self, at: &Path, required: bool, errors: &mut ErrorList) {
        match (self.claim.as_str(), self.expression.as_str()) {
            ("", "") if required => errors.push(Error::required(at, "claim or expression is required")),
            ("", "") => {}
            ("", expression) => {
                if let Some(prefix) = &self.prefix {
                    let why = "may not be specified when expression is set";
                    errors.push(Error::invalid(&at.child("prefix"), prefix.as_str(), why));
                }
                compile(&at.child("expression"), expression, errors);
            }
            (_, "") => {
                if self.prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    errors.push(Error::required(&at.child("prefix"), why));
                }
            }
            _ => errors.push(Error::invalid(at, "", "claim and expression can't both be set")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
issuer:
  url: https://issuer.example
  audiences: [a]
claimMappings:
  username: {claim: sub, prefix: "o:"}
"#;

    fn file(jwt: &[&str], more: &str) -> String {
        let items: String = jwt
            .iter()
            .map(|text| {
                let mut lines = text.trim().lines();
                let first = lines.next().unwrap_or_default();
                lines.fold(format!("- {first}\n"), |all, line| format!("{all}  {line}\n"))
            })
            .collect();
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n{items}{more}"
        )
    }

    fn wrong(jwt: &[&str], more: &str) -> String {
        let own = ["https://own.example".to_owned()];
        AuthenticationConfiguration::parse(file(jwt, more).as_bytes(), &own).expect_err("refused")
    }

    #[test]
    fn files_are_read() {
        for version in ["v1", "v1beta1", "v1alpha1"] {
            let text = file(&[GOOD], "anonymous: {enabled: true, conditions: [{path: /livez}]}\n")
                .replace("/v1\n", &format!("/{version}\n"));
            let config = AuthenticationConfiguration::parse(text.as_bytes(), &[]).expect("good");
            assert_eq!(config.jwt[0].claim_mappings.username.prefix.as_deref(), Some("o:"));
            assert_eq!(config.anonymous.expect("there").conditions[0].path, "/livez");
        }
        let none = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        assert_eq!(AuthenticationConfiguration::parse(none.as_bytes(), &[]), Ok(Default::default()));
    }

    #[test]
    fn what_is_wrong_is_said_in_upstreams_words() {
        let with = |from: &str, to: &str| GOOD.replace(from, to);
        let mappings = "username: {claim: sub, prefix: \"o:\"}";
        let mapped = |more: &str| GOOD.replace(mappings, &format!("{mappings}\n  {more}"));
        let rules = |text: &str| format!("{GOOD}claimValidationRules: [{text}]\n");
        let issuer = |more: &str| with("audiences: [a]", &format!("audiences: [a]\n  {more}"));
        let cases: Vec<(String, &str)> = vec![
            (with("https://issuer.example", "\"\""), "jwt[0].issuer.url: Required value"),
            (
                with("https:", "http:"),
                "jwt[0].issuer.url: Invalid value: \"http://issuer.example\": URL scheme must be https",
            ),
            (
                with("issuer.example", "own.example"),
                "jwt[0].issuer.url: Invalid value: \"https://own.example\": URL must not overlap with disallowed issuers: [https://own.example]",
            ),
            (
                with("issuer.example", "u@issuer.example?q=1#f"),
                "[jwt[0].issuer.url: Invalid value: \"https://u@issuer.example?q=1#f\": URL must not contain a username or password, jwt[0].issuer.url: Invalid value: \"https://u@issuer.example?q=1#f\": URL must not contain a query, jwt[0].issuer.url: Invalid value: \"https://u@issuer.example?q=1#f\": URL must not contain a fragment]",
            ),
            (
                issuer("discoveryURL: https://issuer.example/"),
                "jwt[0].issuer.discoveryURL: Invalid value: \"https://issuer.example/\": discoveryURL must be different from URL",
            ),
            (
                with("[a]", "[]"),
                "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
            ),
            (
                with("[a]", "[a, b]"),
                "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
            (
                with("[a]", "[a, a]\n  audienceMatchPolicy: MatchAny"),
                "jwt[0].issuer.audiences[1]: Duplicate value: \"a\"",
            ),
            (
                issuer("audienceMatchPolicy: MatchAll"),
                "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"MatchAll\": audienceMatchPolicy must be empty or MatchAny for single audience",
            ),
            (
                issuer("certificateAuthority: nonsense"),
                "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain any valid RSA or ECDSA certificates",
            ),
            (
                issuer("egressSelectorType: etcd"),
                "jwt[0].issuer.egressSelectorType: Invalid value: \"etcd\": egress selector must be either controlplane or cluster",
            ),
            (
                issuer("egressSelectorType: cluster"),
                "jwt[0].issuer.egressSelectorType: Invalid value: \"cluster\": egress lookup for \"cluster\" is not configured",
            ),
            (
                with(mappings, "username: {claim: sub}"),
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
            (
                with(mappings, "groups: {claim: g, prefix: \"\"}"),
                "jwt[0].claimMappings.username: Required value: claim or expression is required",
            ),
            (
                with(mappings, "username: {claim: a, expression: b}"),
                "jwt[0].claimMappings.username: Invalid value: \"\": claim and expression can't both be set",
            ),
            (
                with(mappings, "username: {expression: claims.sub}"),
                "jwt[0].claimMappings.username.expression: Invalid value: \"claims.sub\": CEL expressions are not supported yet",
            ),
            (
                mapped("uid: {claim: a, expression: b}"),
                "jwt[0].claimMappings.uid: Invalid value: \"\": claim and expression can't both be set",
            ),
            (
                mapped("extra: [{key: Foo}]"),
                "[jwt[0].claimMappings.extra[0].key: Invalid value: \"Foo\": must be a domain-prefixed path (such as \"acme.io/foo\"), jwt[0].claimMappings.extra[0].key: Invalid value: \"Foo\": must be lowercase, jwt[0].claimMappings.extra[0].valueExpression: Required value]",
            ),
            (
                mapped("extra: [{key: a.k8s.io/foo, valueExpression: c}]"),
                "[jwt[0].claimMappings.extra[0].key: Invalid value: \"a.k8s.io/foo\": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use, jwt[0].claimMappings.extra[0].valueExpression: Invalid value: \"c\": CEL expressions are not supported yet]",
            ),
            (rules("{}"), "jwt[0].claimValidationRules[0]: Required value: claim or expression is required"),
            (
                rules("{claim: a, expression: b}"),
                "jwt[0].claimValidationRules[0]: Invalid value: \"a\": claim and expression can't both be set",
            ),
            (
                rules("{claim: a, message: m}, {claim: a}"),
                "[jwt[0].claimValidationRules[0].message: Invalid value: \"m\": may not be specified when claim is set, jwt[0].claimValidationRules[1].claim: Duplicate value: \"a\"]",
            ),
            (
                rules("{expression: x, requiredValue: v}"),
                "[jwt[0].claimValidationRules[0].requiredValue: Invalid value: \"v\": may not be specified when expression is set, jwt[0].claimValidationRules[0].expression: Invalid value: \"x\": CEL expressions are not supported yet]",
            ),
            (
                format!("{GOOD}userValidationRules: [{{}}]\n"),
                "jwt[0].userValidationRules[0].expression: Required value",
            ),
            (issuer("audience: b"), "strict decoding error: unknown field \"jwt[0].issuer.audience\""),
        ];
        for (text, why) in cases {
            assert_eq!(wrong(&[&text], ""), why, "{text}");
        }
        assert_eq!(
            wrong(&[GOOD, GOOD], ""),
            "jwt[1].issuer.url: Duplicate value: \"https://issuer.example\""
        );
        assert_eq!(wrong(&[GOOD; 65], ""), "jwt: Too many: 65: must have at most 64 items");
        assert_eq!(
            wrong(&[GOOD], "anonymous: {enabled: false, conditions: [{path: /livez}]}\n"),
            "anonymous.conditions: Invalid value: [{/livez}]: enabled should be set to true when conditions are defined"
        );
    }
}
