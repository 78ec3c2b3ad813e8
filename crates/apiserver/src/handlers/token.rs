//! `serviceaccounts/token`: a token of an account, bound to a pod, secret or node where the caller says so.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status, Value};
use http::StatusCode;

use super::{Call, decode};
use crate::admission::{Attributes, Operation};
use crate::authentication::{BoundObject, TokenRequest};
use crate::http::body::{self, Request, Response};
use crate::http::{negotiate, respond};

const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

impl Call<'_> {
    pub async fn token(&self, request: Request) -> Result<Response, Status> {
        let options = self.ctx.write_options("CreateOptions")?;
        let format = negotiate::content(request.headers())?;
        let bytes = body::read(request.into_body()).await?;
        let gvk = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
        let schema = Schema::builtin("k8s.io.api.authentication.v1", "TokenRequest")
            .ok_or_else(|| Status::internal("no schema of TokenRequest"))?;
        let mut token = decode::decode(self.ctx, &bytes, format, &schema, &gvk, options.field_validation)?;
        let (namespace, name) = (&self.ctx.info.namespace, &self.ctx.info.name);
        let registry = &self.server.registry;
        registry.cache.wait_for_latest().await?;
        let entry = registry.get(self.kind, namespace, name, "0").await?;
        let account = entry.object().map_err(Status::internal)?;
        let meta = apimachinery::field::Path::new("metadata");
        for (key, said, of_account) in
            [("name", token.name(), name), ("namespace", token.namespace(), namespace)]
        {
            if !said.is_empty() && said != of_account {
                let why = format!("must match the service account {key} if specified");
                let error = apimachinery::field::Error::invalid(&meta.child(key), said, why);
                return Err(Status::invalid(&gvk.group_kind(), name, &[error]));
            }
        }
        if token.get_i64(&["spec", "expirationSeconds"]).is_none() {
            token.set(&["spec", "expirationSeconds"], DEFAULT_SECONDS);
        }
        if token.name().is_empty() {
            token.set_name(name);
        }
        if token.namespace().is_empty() {
            token.set_namespace(namespace);
        }
        let mut attributes = Attributes {
            operation: Operation::Create,
            kind: self.kind,
            subresource: "token",
            namespace: namespace.clone(),
            name: name.clone(),
            object: Some(token),
            old: None,
            dry_run: options.dry_run,
        };
        registry.admission.admit(registry, self.ctx, &mut attributes).await?;
        let mut token = attributes.object.take().unwrap_or_default();
        let seconds = token.get_i64(&["spec", "expirationSeconds"]).unwrap_or(DEFAULT_SECONDS);
        let errors = validate(seconds);
        if !errors.is_empty() {
            let kind = apimachinery::GroupKind::new("authentication.k8s.io", "TokenRequest");
            return Err(Status::invalid(&kind, "", &errors));
        }
        let seconds = match self.server.access.max_token_expiration {
            Some(max) if seconds > max => {
                self.ctx
                    .warn(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
                token.set(&["spec", "expirationSeconds"], max);
                max
            }
            _ => seconds,
        };
        let bound = self.bound_object(&token)?;
        let mut audiences: Vec<String> = token
            .get_array(&["spec", "audiences"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences = self.server.access.audiences.clone();
            token.set(&["spec", "audiences"], audiences.clone());
        }
        let bound_to = bound.as_ref().map(|bound| match bound.object.kind() {
            "Pod" => BoundObject::Pod { pod: &bound.object, node: bound.node.as_ref() },
            "Secret" => BoundObject::Secret(&bound.object),
            _ => BoundObject::Node(&bound.object),
        });
        let request = TokenRequest {
            service_account: &account,
            bound_to,
            audiences: &audiences,
            expiration_seconds: seconds,
        };
        let issued = self.server.access.issuer.issue(&request).map_err(Status::internal)?;
        let expiration = chrono::DateTime::from_timestamp(issued.expiration, 0).unwrap_or(self.ctx.now);
        token.set(&["metadata", "creationTimestamp"], self.ctx.timestamp());
        token.set(&["status", "token"], issued.token);
        let expiration = expiration.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        token.set(&["status", "expirationTimestamp"], expiration);
        let accepted = self.accepted;
        Ok(respond::encoded(StatusCode::CREATED, accepted.format, accepted.pretty, &token, &schema))
    }

    /// The object that the token is to be bound to, as it is now.
    fn bound_object(&self, token: &Object) -> Result<Option<Bound>, Status> {
        let reference = |key: &str| token.get_str(&["spec", "boundObjectRef", key]);
        if !token.get(&["spec", "boundObjectRef"]).is_some_and(Value::is_object) {
            return Ok(None);
        }
        let registry = &self.server.registry;
        let namespace = &self.ctx.info.namespace;
        let plural = match (reference("apiVersion"), reference("kind")) {
            ("v1", "Pod") => "pods",
            ("v1", "Secret") => "secrets",
            ("v1", "Node") => "nodes",
            (version, kind) => {
                return Err(Status::bad_request(format!(
                    "cannot bind token to object of type {version}, Kind={kind}"
                )));
            }
        };
        let kind = registry.core(plural);
        let scope = if kind.resource.namespaced { namespace.as_str() } else { "" };
        let resource = kind.resource.group_resource();
        let object = registry
            .peek(kind, scope, reference("name"))
            .ok_or_else(|| Status::not_found(&resource, reference("name")))?;
        let uid = reference("uid");
        if !uid.is_empty() && uid != object.uid() {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict(&resource, reference("name"), why));
        }
        if plural == "pods" && object.get_str(&["spec", "serviceAccountName"]) != self.ctx.info.name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                self.ctx.info.name
            )));
        }
        let node = match plural {
            "pods" => registry.peek(registry.core("nodes"), "", object.get_str(&["spec", "nodeName"])),
            _ => None,
        };
        Ok(Some(Bound { object, node }))
    }
}

struct Bound {
    object: Object,
    /// The node of a bound pod.
    node: Option<Object>,
}

fn validate(seconds: i64) -> ErrorList {
    let path = Path::new("spec").child("expirationSeconds");
    if seconds < MIN_SECONDS {
        return vec![Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes")];
    }
    if seconds > MAX_SECONDS {
        return vec![Error::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds")];
    }
    ErrorList::new()
}
