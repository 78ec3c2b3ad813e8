//! Whom components act as: in one process by the server's word, apart by tokens of their service accounts.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use apiserver::authentication::UserInfo;
use apiserver::{InProcess, Server};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{AuthInfo, Config};
use kube::{Api, Client};

const NAMESPACE: &str = "kube-system";

/// How all controllers are known.
const CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// A client by which the server knows the component, besides the user that it is.
pub fn named(client: Client, component: &str) -> Client {
    client::named(client, &format!("{component}/{}", apiserver::VERSION))
}

/// Controllers in the server's process.
pub struct InOneProcess(pub Arc<Server>);

impl controller_manager::Identities for InOneProcess {
    fn client(&self, controller: &'static str) -> Client {
        let user = UserInfo::service_account(NAMESPACE, controller, "").authenticated();
        named(InProcess::client(self.0.clone(), user), CONTROLLER_MANAGER)
    }
}

/// Controllers apart, each with the token of its service account.
pub struct ByToken(HashMap<&'static str, Client>);

impl ByToken {
    /// Makes the accounts and asks for their tokens.
    pub async fn new(config: &Config, client: &Client) -> anyhow::Result<Self> {
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        let mut clients = HashMap::new();
        for name in controller_manager::CONTROLLERS {
            let mut account = ServiceAccount::default();
            account.metadata.name = Some((*name).to_owned());
            match accounts.create(&PostParams::default(), &account).await {
                Ok(_) => {}
                Err(error) if client::is_already_exists(&error) => {}
                Err(error) => return Err(error).with_context(|| format!("making the account of {name}")),
            }
            // a year: a process that runs longer has been updated in between
            let spec = TokenRequestSpec { expiration_seconds: Some(365 * 24 * 3600), ..Default::default() };
            let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
            let issued = accounts
                .create_token_request(name, &PostParams::default(), &request)
                .await
                .with_context(|| format!("asking for a token of {name}"))?;
            let token = issued.status.and_then(|status| status.token).context("the server sent no token")?;
            let mut config = config.clone();
            config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
            clients.insert(*name, named(Client::try_from(config)?, CONTROLLER_MANAGER));
        }
        Ok(Self(clients))
    }
}

impl controller_manager::Identities for ByToken {
    fn client(&self, controller: &'static str) -> Client {
        self.0.get(controller).cloned().expect("a client was made for every controller")
    }
}
