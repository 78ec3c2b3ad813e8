//! Tokens that are known from the start, such as those of a token file.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::{Authenticated, TokenAuthenticator, UserInfo, csv};

/// Fixed tokens, kept as digests: looking one up takes the same time however much of it is right.
#[derive(Clone, Default)]
pub struct StaticTokens(HashMap<[u8; 32], Arc<UserInfo>>);

impl StaticTokens {
    pub fn new(tokens: impl IntoIterator<Item = (String, UserInfo)>) -> Self {
        Self(tokens.into_iter().map(|(token, user)| (digest(&token), Arc::new(user))).collect())
    }

    /// From the text of a token file: token, user name, user uid, and optionally groups with commas between.
    /// `path` is for messages.
    pub fn from_csv(path: &str, text: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (index, mut record) in csv::read(text)?.into_iter().enumerate() {
            let [token, name, uid, more @ ..] = record.as_mut_slice() else {
                let found = record.len();
                return Err(format!(
                    "token file '{path}' must have at least 3 columns (token, user name, user uid), found {found}"
                ));
            };
            let number = index + 1;
            if token.is_empty() {
                tracing::warn!("empty token has been found in token file '{path}', record number '{number}'");
                continue;
            }
            let user = UserInfo {
                name: std::mem::take(name),
                uid: std::mem::take(uid),
                groups: more
                    .first()
                    .map(|list| list.split(',').map(str::to_owned).collect())
                    .unwrap_or_default(),
                ..UserInfo::default()
            };
            if tokens.insert(digest(token), Arc::new(user)).is_some() {
                tracing::warn!(
                    "duplicate token has been found in token file '{path}', record number '{number}'"
                );
            }
        }
        Ok(Self(tokens))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<Option<Authenticated>, String> {
        Ok(self.0.get(&digest(token)).cloned().map(Authenticated::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_read() {
        let text = "t1,jane,1\n,nobody,0\nt2,joe,2,\"devs,ops\",more\nt3,a,1\nt3,b,,\n";
        let tokens = StaticTokens::from_csv("f", text).expect("good");
        let user = |token: &str| tokens.0.get(&digest(token)).map(|user| (**user).clone());
        let named = |name: &str, uid: &str, groups: &[&str]| UserInfo {
            name: name.into(),
            uid: uid.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..UserInfo::default()
        };
        let cases = [
            ("t1", Some(named("jane", "1", &[]))),
            ("t2", Some(named("joe", "2", &["devs", "ops"]))),
            // The last of several counts; an empty column is one group without a name, as upstream.
            ("t3", Some(named("b", "", &[""]))),
            ("", None),
            ("t4", None),
        ];
        for (token, wanted) in cases {
            assert_eq!(user(token), wanted, "{token}");
        }
    }

    #[test]
    fn bad_token_files_are_refused() {
        let columns = "token file 'f' must have at least 3 columns (token, user name, user uid), found";
        let cases = [
            ("t,u\n", format!("{columns} 2")),
            ("t,u,1\nx\n", format!("{columns} 1")),
            ("t,u\"x,1", "parse error on line 1, column 4: bare \" in non-quoted field".to_owned()),
        ];
        for (text, wanted) in cases {
            assert_eq!(StaticTokens::from_csv("f", text).err(), Some(wanted), "{text:?}");
        }
    }
}
