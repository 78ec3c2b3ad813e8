//! Approves what kubelets ask for on their own, if who asks may: the API server is asked whether they may create
//! `certificatesigningrequests/nodeclient` or `selfnodeclient`.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use client::runner::{self, Again};
use client::{ObjectKey, Queue};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::request::{self, Request};
use super::{KUBE_APISERVER_CLIENT_KUBELET, add_condition, has_condition, issued};
use crate::Shared;

const WORKERS: usize = 5;

/// A kind of request that is approved for whoever may create a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    subresource: &'static str,
    message: &'static str,
}

/// A node renews its own certificate.
const SELF_NODE_CLIENT: Kind = Kind {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};

/// Somebody asks for the certificate of any node.
const NODE_CLIENT: Kind = Kind {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// As what a request may be approved, the narrowest first. Nothing for those that are for people to judge.
fn plan(object: &CertificateSigningRequest) -> Result<Vec<Kind>, String> {
    if issued(object).is_some() || has_condition(object, "Approved") || has_condition(object, "Denied") {
        return Ok(Vec::new());
    }
    let request = Request::parse(&object.spec.request.0)?;
    let usages = object.spec.usages.as_deref().unwrap_or_default();
    if object.spec.signer_name != KUBE_APISERVER_CLIENT_KUBELET
        || request::check_kubelet_client(&request, usages).is_err()
    {
        return Ok(Vec::new());
    }
    match object.spec.username.as_deref() == Some(&request.common_name) {
        true => Ok(vec![SELF_NODE_CLIENT, NODE_CLIENT]),
        false => Ok(vec![NODE_CLIENT]),
    }
}

/// What is asked about whoever asks for a certificate.
fn review(object: &CertificateSigningRequest, kind: Kind) -> SubjectAccessReview {
    let spec = &object.spec;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                verb: Some("create".to_owned()),
                subresource: Some(kind.subresource.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

pub async fn run(shared: Shared, client: Client, cancel: CancellationToken) {
    let requests = shared.informers.all::<CertificateSigningRequest>();
    let queue: Arc<Queue<ObjectKey>> = Arc::default();
    requests.on_change({
        let queue = queue.clone();
        move |change| queue.add(ObjectKey::of(change.object().as_ref()))
    });
    requests.wait_for_sync().await;
    runner::run("csrapproving", queue, WORKERS, cancel, |key| {
        let (requests, client) = (requests.clone(), client.clone());
        async move {
            let Some(object) = requests.store().get_key(&key) else { return Ok(Again::OnChange) };
            let kinds = plan(&object).map_err(|why| anyhow!("unable to parse csr {:?}: {why}", key.name))?;
            let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
            for kind in &kinds {
                let answer = reviews.create(&PostParams::default(), &review(&object, *kind)).await?;
                if !answer.status.is_some_and(|status| status.allowed) {
                    continue;
                }
                let mut object = object.as_ref().clone();
                add_condition(&mut object, "Approved", "AutoApproved", kind.message);
                let api: Api<CertificateSigningRequest> = Api::all(client);
                let written =
                    api.replace_subresource("approval", &key.name, &PostParams::default(), &object).await;
                return match written {
                    Err(error) if !client::is_not_found(&error) => {
                        Err(error).context("error updating approval for csr")
                    }
                    _ => Ok(Again::OnChange),
                };
            }
            if kinds.is_empty() {
                return Ok(Again::OnChange);
            }
            // whoever asked may be allowed to later
            let tried: Vec<&str> = kinds.iter().map(|kind| kind.subresource).collect();
            tracing::debug!(
                csr = key.name,
                ?tried,
                "recognized csr but subject access review was not approved"
            );
            Ok(Again::RateLimited)
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::testing::{object, request_pem};
    use crate::certificates::{KUBE_APISERVER_CLIENT, KUBELET_SERVING};

    const USAGES: &[&str] = &["digital signature", "client auth"];

    fn node_request() -> CertificateSigningRequest {
        let pem = request_pem("system:node:n1", &["system:nodes"], &[]);
        let mut object = object(&pem, KUBE_APISERVER_CLIENT_KUBELET, USAGES);
        object.spec.username = Some("system:bootstrap:abcdef".to_owned());
        object.spec.groups = Some(vec!["system:bootstrappers".to_owned()]);
        object
    }

    #[test]
    fn only_kubelets_client_certificates_are_approved() {
        let bootstrap = node_request();
        assert_eq!(plan(&bootstrap), Ok(vec![NODE_CLIENT]));
        let mut renewal = bootstrap.clone();
        renewal.spec.username = Some("system:node:n1".to_owned());
        assert_eq!(plan(&renewal), Ok(vec![SELF_NODE_CLIENT, NODE_CLIENT]));
        let mut other = bootstrap.clone();
        other.spec.username = Some("system:node:n2".to_owned());
        assert_eq!(plan(&other), Ok(vec![NODE_CLIENT]));

        let nothing = Ok(Vec::new());
        for signer in [KUBE_APISERVER_CLIENT, KUBELET_SERVING, "example.com/kubelet"] {
            let mut object = bootstrap.clone();
            object.spec.signer_name = signer.to_owned();
            assert_eq!(plan(&object), nothing, "{signer}");
        }
        let admin = request_pem("system:node:n1", &["system:masters"], &[]);
        assert_eq!(plan(&object(&admin, KUBE_APISERVER_CLIENT_KUBELET, USAGES)), nothing);
        let mut object = bootstrap.clone();
        object.spec.usages = Some(vec!["server auth".to_owned()]);
        assert_eq!(plan(&object), nothing);
        for decision in ["Approved", "Denied"] {
            let mut object = bootstrap.clone();
            add_condition(&mut object, decision, "By", "hand");
            assert_eq!(plan(&object), nothing, "{decision}");
        }
        let mut object = bootstrap;
        object.spec.request.0 = b"nothing".to_vec();
        assert!(plan(&object).is_err());
    }

    #[test]
    fn the_review_is_about_who_asked() {
        let object = node_request();
        let review = review(&object, NODE_CLIENT).spec;
        assert_eq!(review.user.as_deref(), Some("system:bootstrap:abcdef"));
        assert_eq!(review.groups, object.spec.groups);
        let attributes = review.resource_attributes.unwrap();
        assert_eq!(attributes.subresource.as_deref(), Some("nodeclient"));
        assert_eq!(attributes.verb.as_deref(), Some("create"));
    }
}
