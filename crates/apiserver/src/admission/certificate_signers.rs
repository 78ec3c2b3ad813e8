//! CertificateApproval, CertificateSigning and ClusterTrustBundleAttest: who approves, signs or attests for a signer
//! needs a right to do so for that very signer.

use apimachinery::{Object, Status};

use super::{Attributes, Operation, Plugin};
use crate::authentication::UserInfo;
use crate::authorization::{Attributes as Asked, Authorizer};
use crate::context::Context;

const GROUP: &str = "certificates.k8s.io";

/// The right that a write takes: its verb, its signer, and how a refusal calls the deed.
struct Need<'a> {
    verb: &'static str,
    signer: &'a str,
    deed: &'static str,
}

pub async fn validate(
    authorizer: &dyn Authorizer,
    ctx: &Context,
    attributes: &Attributes<'_>,
    runs: impl Fn(Plugin) -> bool,
) -> Result<(), Status> {
    let resource = attributes.kind.resource;
    if resource.group != GROUP || attributes.operation == Operation::Delete {
        return Ok(());
    }
    let new = attributes.object.as_ref();
    let old = attributes.old.as_ref();
    let plugin = match (resource.plural, attributes.subresource) {
        ("certificatesigningrequests", "approval") => Plugin::CertificateApproval,
        ("certificatesigningrequests", "status") => Plugin::CertificateSigning,
        ("clustertrustbundles", "") => Plugin::ClusterTrustBundleAttest,
        _ => return Ok(()),
    };
    let Some(need) = need(plugin, new, old).filter(|_| runs(plugin)) else { return Ok(()) };
    if may(authorizer, &ctx.user, need.verb, need.signer).await {
        return Ok(());
    }
    let (deed, signer) = (need.deed, need.signer);
    Err(attributes.forbidden(format_args!("user not permitted to {deed} signerName {signer:?}")))
}

fn need<'a>(plugin: Plugin, new: Option<&'a Object>, old: Option<&'a Object>) -> Option<Need<'a>> {
    let signer = |object: Option<&'a Object>| object.map(|object| object.get_str(&["spec", "signerName"]));
    // what was asked for counts, not what a request claims now
    match plugin {
        Plugin::CertificateApproval => {
            Some(Need { verb: "approve", signer: signer(old)?, deed: "approve requests with" })
        }
        Plugin::CertificateSigning => {
            let part =
                |object: Option<&'a Object>, key: &str| object.and_then(|o| o.get(&["status", key]).cloned());
            let signs = ["certificate", "conditions"].iter().any(|key| part(new, key) != part(old, key));
            signs.then_some(Need { verb: "sign", signer: signer(old)?, deed: "sign requests with" })
        }
        _ => {
            let same = old.is_some_and(|old| new.is_some_and(|new| old.get(&["spec"]) == new.get(&["spec"])));
            let signer = signer(new).filter(|signer| !signer.is_empty() && !same)?;
            Some(Need { verb: "attest", signer, deed: "attest for" })
        }
    }
}

/// A right for the signer, or for all signers of its domain.
async fn may(authorizer: &dyn Authorizer, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, domain.as_str()] {
        let asked = Asked { name, api_version: "*", ..Asked::resource(user, verb, GROUP, "signers") };
        if authorizer.authorize(&asked).await.is_allowed() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::authorization::UserRules;
    use crate::authorization::Verdict;

    #[test]
    fn deeds_take_rights() {
        let request = |status: serde_json::Value| {
            Object::from(json!({"spec": {"signerName": "a.b/c"}, "status": status}))
        };
        let (none, signed) = (request(json!({})), request(json!({"certificate": "x"})));
        let failed = request(json!({"conditions": [{"type": "Failed"}]}));
        let bundle = Object::from(json!({"spec": {"signerName": "", "trustBundle": "x"}}));
        let cases = [
            (Plugin::CertificateApproval, &none, Some(&none), Some("approve a.b/c")),
            (Plugin::CertificateSigning, &none, Some(&none), None),
            (Plugin::CertificateSigning, &signed, Some(&none), Some("sign a.b/c")),
            (Plugin::CertificateSigning, &failed, Some(&none), Some("sign a.b/c")),
            (Plugin::ClusterTrustBundleAttest, &none, None, Some("attest a.b/c")),
            (Plugin::ClusterTrustBundleAttest, &none, Some(&none), None),
            (Plugin::ClusterTrustBundleAttest, &bundle, None, None),
        ];
        for (plugin, new, old, wanted) in cases {
            let found = need(plugin, Some(new), old).map(|need| format!("{} {}", need.verb, need.signer));
            assert_eq!(found.as_deref(), wanted, "{plugin:?} {new:?}");
        }
    }

    struct Only(&'static str);

    #[async_trait]
    impl Authorizer for Only {
        async fn authorize(&self, asked: &Asked<'_>) -> Verdict {
            match asked.name == self.0 && asked.resource == "signers" {
                true => Verdict::allow(""),
                false => Verdict::no_opinion(""),
            }
        }

        async fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
            UserRules::default()
        }
    }

    #[tokio::test]
    async fn a_right_is_for_a_signer_or_its_domain() {
        let user = UserInfo::new("jane", &[]);
        for (name, wanted) in [("a.b/c", true), ("a.b/*", true), ("a.b/d", false), ("*", false)] {
            assert_eq!(may(&Only(name), &user, "sign", "a.b/c").await, wanted, "{name}");
        }
    }
}
