//! Who approves and signs certificate requests: only whom a rule lets do so for the request's signer.

use apimachinery::{Object, Status};

use super::Call;
use crate::authorization::Attributes;

const GROUP: &str = "certificates.k8s.io";

impl Call<'_> {
    /// Refuses an approval, or a certificate, of a request whose signer is none of the writer's.
    pub fn confirm_signer(&self, new: &Object, old: Option<&Object>) -> Result<(), Status> {
        let Some(old) = old.filter(|_| self.kind.resource.group == GROUP) else { return Ok(()) };
        let verb = match self.ctx.info.subresource.as_str() {
            "approval" => "approve",
            "status" if result(new) != result(old) => "sign",
            _ => return Ok(()),
        };
        let signer = old.get_str(&["spec", "signerName"]);
        let domain = signer.split('/').next().unwrap_or_default();
        if self.may_for_signer(verb, signer) || self.may_for_signer(verb, &format!("{domain}/*")) {
            return Ok(());
        }
        let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(Status::forbidden(&self.kind.resource.group_resource(), old.name(), why))
    }

    fn may_for_signer(&self, verb: &str, name: &str) -> bool {
        let attributes = Attributes {
            api_version: "*",
            name,
            ..Attributes::resource(&self.ctx.user, verb, GROUP, "signers")
        };
        self.server.access.rbac.decide(&attributes).is_allowed()
    }
}

/// What a signer says of a request: the certificate, or that there will be none.
fn result(request: &Object) -> (&str, bool) {
    let conditions = request.get_array(&["status", "conditions"]);
    (request.get_str(&["status", "certificate"]), conditions.iter().any(|each| each["type"] == "Failed"))
}
