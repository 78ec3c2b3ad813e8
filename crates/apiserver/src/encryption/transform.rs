//! Values sealed and opened, in upstream's form: a prefix that says by whom and with which key, then what that made of
//! the value. Pure, but for the nonces.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Nonce};
use bytes::Bytes;
use crypto_secretbox::XSalsa20Poly1305;
use rand::Rng;

use super::config::{KeyList, ProviderConfiguration};

const GCM_NONCE: usize = 12;
const BLOCK: usize = 16;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_OVERHEAD: usize = 16;

const ENCRYPTED: &[u8] = b"k8s:enc:";

/// A value as it was before it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub value: Bytes,
    /// It would be sealed otherwise now.
    pub stale: bool,
}

/// Those who may have sealed a resource's values; the first seals new ones.
pub struct Chain(Vec<Provider>);

enum Provider {
    /// Leaves values as they are, and takes none for such that is sealed.
    Identity,
    Keys {
        prefix: &'static str,
        /// What it is called in messages.
        name: &'static str,
        keys: Vec<(String, Cipher)>,
    },
}

enum Cipher {
    Gcm128(Box<AesGcm<Aes128, U12>>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<AesGcm<Aes256, U12>>),
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

impl Chain {
    /// Of a configuration that was checked.
    pub fn new(providers: &[ProviderConfiguration]) -> Result<Self, String> {
        providers.iter().map(Provider::new).collect::<Result<_, _>>().map(Self)
    }

    /// Of resources that no configuration names.
    pub fn identity() -> Self {
        Self(vec![Provider::Identity])
    }

    /// Takes the first that can open the value. `at` is its key in the store, to which it may be tied.
    pub fn open(&self, stored: &Bytes, at: &str) -> Result<Opened, String> {
        let mut errors = Vec::new();
        for (index, provider) in self.0.iter().enumerate() {
            match provider.open(stored, at) {
                None => {}
                Some(Ok(opened)) => return Ok(Opened { stale: opened.stale || index > 0, ..opened }),
                // somebody further down may still know it
                Some(Err(_)) if matches!(provider, Provider::Identity) && self.0.len() > 1 => {}
                Some(Err(error)) => errors.push(error),
            }
        }
        match errors.len() {
            0 => Err("no matching prefix found".into()),
            1 => Err(errors.swap_remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    pub fn seal(&self, value: Vec<u8>, at: &str) -> Result<Vec<u8>, String> {
        match self.0.first() {
            None | Some(Provider::Identity) => Ok(value),
            Some(Provider::Keys { prefix, keys, .. }) => {
                let (name, cipher) = keys.first().ok_or("a provider has no key")?;
                let mut out = Vec::with_capacity(prefix.len() + name.len() + value.len() + 64);
                out.extend(prefix.as_bytes());
                out.extend(name.as_bytes());
                out.push(b':');
                cipher.seal(&value, at, &mut out)?;
                Ok(out)
            }
        }
    }
}

impl Provider {
    fn new(config: &ProviderConfiguration) -> Result<Self, String> {
        type Make = fn(&[u8]) -> Result<Cipher, String>;
        let of = |list: &KeyList, prefix, name, make: Make| {
            let keys = list.keys.iter().map(|key| Ok((key.name.clone(), make(&key.bytes())?)));
            Ok(Self::Keys { prefix, name, keys: keys.collect::<Result<_, String>>()? })
        };
        match config {
            ProviderConfiguration { aesgcm: Some(list), .. } => {
                of(list, "k8s:enc:aesgcm:v1:", "AES", Cipher::gcm)
            }
            ProviderConfiguration { aescbc: Some(list), .. } => {
                of(list, "k8s:enc:aescbc:v1:", "AES", |key| Ok(Cipher::Cbc(key.to_vec())))
            }
            ProviderConfiguration { secretbox: Some(list), .. } => {
                of(list, "k8s:enc:secretbox:v1:", "Secretbox", Cipher::secretbox)
            }
            _ => Ok(Self::Identity),
        }
    }

    /// `None` for a value that is not this one's.
    fn open(&self, stored: &Bytes, at: &str) -> Option<Result<Opened, String>> {
        let (prefix, name, keys) = match self {
            Self::Identity if stored.starts_with(ENCRYPTED) => {
                return Some(Err("identity transformer tried to read encrypted data".into()));
            }
            Self::Identity => return Some(Ok(Opened { value: stored.clone(), stale: false })),
            Self::Keys { prefix, name, keys } => (prefix, name, keys),
        };
        let rest = stored.strip_prefix(prefix.as_bytes())?;
        let mut errors = Vec::new();
        for (index, (key, cipher)) in keys.iter().enumerate() {
            let sealed = rest.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
            match sealed.map(|sealed| cipher.open(sealed, at)) {
                None => {}
                Some(Ok(value)) => return Some(Ok(Opened { value: value.into(), stale: index > 0 })),
                Some(Err(error)) => errors.push(error),
            }
        }
        Some(Err(match errors.len() {
            0 => format!("no matching key was found for the provided {name} transformer"),
            1 => errors.swap_remove(0),
            _ => format!("[{}]", errors.join(", ")),
        }))
    }
}

const SHORT: &str = "the stored data was shorter than the required size";

fn first<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
    bytes.first_chunk().copied().ok_or_else(|| SHORT.to_owned())
}

impl Cipher {
    fn gcm(key: &[u8]) -> Result<Self, String> {
        let wrong = |_| format!("crypto/aes: invalid key size {}", key.len());
        match key.len() {
            16 => AesGcm::new_from_slice(key).map(Box::new).map(Self::Gcm128).map_err(wrong),
            24 => AesGcm::new_from_slice(key).map(Box::new).map(Self::Gcm192).map_err(wrong),
            _ => AesGcm::new_from_slice(key).map(Box::new).map(Self::Gcm256).map_err(wrong),
        }
    }

    fn secretbox(key: &[u8]) -> Result<Self, String> {
        XSalsa20Poly1305::new_from_slice(key)
            .map(Box::new)
            .map(Self::Secretbox)
            .map_err(|_| format!("expected key size 32 for secretbox provider, got {}", key.len()))
    }

    fn seal(&self, value: &[u8], at: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let payload = Payload { msg: value, aad: at.as_bytes() };
        let mut nonce = [0; SECRETBOX_NONCE];
        rand::rng().fill(&mut nonce);
        let gcm_nonce = &Nonce::from(first::<GCM_NONCE>(&nonce)?);
        let failed = |_| "the value cannot be encrypted".to_owned();
        let (nonce, sealed) = match self {
            Self::Gcm128(cipher) => {
                (&nonce[..GCM_NONCE], cipher.encrypt(gcm_nonce, payload).map_err(failed)?)
            }
            Self::Gcm192(cipher) => {
                (&nonce[..GCM_NONCE], cipher.encrypt(gcm_nonce, payload).map_err(failed)?)
            }
            Self::Gcm256(cipher) => {
                (&nonce[..GCM_NONCE], cipher.encrypt(gcm_nonce, payload).map_err(failed)?)
            }
            Self::Cbc(key) => (&nonce[..BLOCK], cbc_encrypt(key, &nonce[..BLOCK], value)?),
            // it is tied to no place, as upstream's
            Self::Secretbox(cipher) => (&nonce[..], cipher.encrypt(&nonce.into(), value).map_err(failed)?),
        };
        out.extend(nonce);
        out.extend(sealed);
        Ok(())
    }

    fn open(&self, sealed: &[u8], at: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Cbc(key) => return cbc_decrypt(key, sealed),
            Self::Secretbox(cipher) => {
                if sealed.len() < SECRETBOX_NONCE + SECRETBOX_OVERHEAD {
                    return Err(SHORT.into());
                }
                let (nonce, sealed) = sealed.split_at(SECRETBOX_NONCE);
                let opened = cipher.decrypt(&first::<SECRETBOX_NONCE>(nonce)?.into(), sealed);
                return opened.map_err(|_| "output array was not large enough for encryption".into());
            }
            _ => {}
        }
        if sealed.len() < GCM_NONCE {
            return Err(SHORT.into());
        }
        let (nonce, sealed) = sealed.split_at(GCM_NONCE);
        let (nonce, payload) =
            (&Nonce::from(first::<GCM_NONCE>(nonce)?), Payload { msg: sealed, aad: at.as_bytes() });
        let opened = match self {
            Self::Gcm128(cipher) => cipher.decrypt(nonce, payload),
            Self::Gcm192(cipher) => cipher.decrypt(nonce, payload),
            Self::Gcm256(cipher) => cipher.decrypt(nonce, payload),
            Self::Cbc(_) | Self::Secretbox(_) => return Err(SHORT.into()),
        };
        opened.map_err(|_| "cipher: message authentication failed".into())
    }
}

fn cbc_encrypt(key: &[u8], iv: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |_| format!("crypto/aes: invalid key size {}", key.len());
    Ok(match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv)
            .map_err(wrong)?
            .encrypt_padded_vec_mut::<Pkcs7>(value),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv)
            .map_err(wrong)?
            .encrypt_padded_vec_mut::<Pkcs7>(value),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv)
            .map_err(wrong)?
            .encrypt_padded_vec_mut::<Pkcs7>(value),
    })
}

fn cbc_decrypt(key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, String> {
    if sealed.len() < BLOCK {
        return Err(SHORT.into());
    }
    let (iv, sealed) = sealed.split_at(BLOCK);
    if !sealed.len().is_multiple_of(BLOCK) {
        return Err("the stored data is not a multiple of the block size".into());
    }
    let wrong = |_| format!("crypto/aes: invalid key size {}", key.len());
    let opened = match key.len() {
        16 => cbc::Decryptor::<Aes128>::new_from_slices(key, iv)
            .map_err(wrong)?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        24 => cbc::Decryptor::<Aes192>::new_from_slices(key, iv)
            .map_err(wrong)?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv)
            .map_err(wrong)?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
    };
    opened.map_err(|_| "invalid padding on input".into())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    const AT: &str = "/registry/secrets/default/s";

    fn provider(sort: &str, keys: &[(&str, u8, usize)]) -> ProviderConfiguration {
        let keys: Vec<_> = keys
            .iter()
            .map(
                |(name, byte, length)| json!({"name": name, "secret": STANDARD.encode(vec![*byte; *length])}),
            )
            .collect();
        let value = if sort == "identity" { json!({}) } else { json!({"keys": keys}) };
        serde_json::from_value(json!({ sort: value })).expect("a provider")
    }

    fn chain(providers: &[ProviderConfiguration]) -> Chain {
        Chain::new(providers).expect("a chain")
    }

    fn sealed(chain: &Chain, value: &[u8]) -> Bytes {
        chain.seal(value.to_vec(), AT).expect("sealed").into()
    }

    #[test]
    fn what_is_sealed_is_opened_and_has_upstreams_form() {
        for (sort, length, prefix, overhead) in [
            ("aesgcm", 16, "k8s:enc:aesgcm:v1:k1:", 28),
            ("aesgcm", 24, "k8s:enc:aesgcm:v1:k1:", 28),
            ("aesgcm", 32, "k8s:enc:aesgcm:v1:k1:", 28),
            ("secretbox", 32, "k8s:enc:secretbox:v1:k1:", 40),
            ("aescbc", 16, "k8s:enc:aescbc:v1:k1:", 16 + 4),
            ("aescbc", 24, "k8s:enc:aescbc:v1:k1:", 16 + 4),
            ("aescbc", 32, "k8s:enc:aescbc:v1:k1:", 16 + 4),
        ] {
            let chain = chain(&[provider(sort, &[("k1", 7, length)])]);
            let stored = sealed(&chain, b"k8s\0 a value");
            assert!(stored.starts_with(prefix.as_bytes()), "{sort}");
            assert_eq!(stored.len(), prefix.len() + 12 + overhead, "{sort}");
            assert!(!stored.windows(7).any(|part| part == b"a value"), "{sort}");
            assert_ne!(stored, sealed(&chain, b"k8s\0 a value"), "{sort}: no two alike");
            let opened = Opened { value: Bytes::from_static(b"k8s\0 a value"), stale: false };
            assert_eq!(chain.open(&stored, AT), Ok(opened), "{sort}");
        }
    }

    /// `hello`, sealed by pyca/cryptography with a key of 32 sevens and nonces that count up from one; and the vector
    /// that NaCl tests its secretbox with.
    #[test]
    fn values_of_others_are_opened() {
        const GCM: &str = "0102030405060708090a0b0cd31984f2054523909dda98b48dc16ff0c8f33a12cb";
        const CBC: &str = "0102030405060708090a0b0c0d0e0f108e500f615953603cc86f917809e2f70c";
        const KEY: &str = "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389";
        const BOX: &str = "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5";
        const MESSAGE: &str = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705";
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
                .collect()
        };
        let boxed = json!({"secretbox": {"keys": [{"name": "k1", "secret": STANDARD.encode(bytes(KEY))}]}});
        for (provider, prefix, sealed, wanted) in [
            (provider("aesgcm", &[("k1", 7, 32)]), "k8s:enc:aesgcm:v1:k1:", GCM, b"hello".to_vec()),
            (provider("aescbc", &[("k1", 7, 32)]), "k8s:enc:aescbc:v1:k1:", CBC, b"hello".to_vec()),
            (
                serde_json::from_value(boxed).expect("a provider"),
                "k8s:enc:secretbox:v1:k1:",
                BOX,
                bytes(MESSAGE),
            ),
        ] {
            let stored = [prefix.as_bytes(), &bytes(sealed)].concat();
            let opened = chain(&[provider]).open(&stored.into(), AT).expect("opened");
            assert_eq!(opened.value, wanted, "{prefix}");
        }
    }

    #[test]
    fn what_was_changed_or_moved_is_not_opened() {
        const FAILED: &str = "cipher: message authentication failed";
        let gcm = chain(&[provider("aesgcm", &[("k1", 7, 32)])]);
        let stored = sealed(&gcm, b"value");
        assert_eq!(gcm.open(&stored, "/registry/secrets/default/t"), Err(FAILED.into()), "moved");
        let prefix = b"k8s:enc:aesgcm:v1:k1:".len();
        for index in prefix..stored.len() {
            let mut changed = stored.to_vec();
            changed[index] ^= 1;
            assert_eq!(gcm.open(&changed.into(), AT), Err(FAILED.into()), "byte {index}");
        }
        assert_eq!(gcm.open(&stored.slice(..prefix + 4), AT), Err(SHORT.into()));
        assert_eq!(gcm.open(&stored.slice(..prefix + 14), AT), Err(FAILED.into()));
        let secretbox = chain(&[provider("secretbox", &[("k1", 7, 32)])]);
        let mut changed = sealed(&secretbox, b"value").to_vec();
        *changed.last_mut().expect("some") ^= 1;
        let error = secretbox.open(&changed.into(), AT).expect_err("refused");
        assert_eq!(error, "output array was not large enough for encryption");
        let cbc = chain(&[provider("aescbc", &[("k1", 7, 32)])]);
        let stored = sealed(&cbc, b"value");
        let error = cbc.open(&stored.slice(..stored.len() - 1), AT).expect_err("refused");
        assert_eq!(error, "the stored data is not a multiple of the block size");
        let other = chain(&[provider("aesgcm", &[("k1", 8, 32)])]);
        assert_eq!(other.open(&sealed(&gcm, b"value"), AT), Err(FAILED.into()), "another key of that name");
    }

    #[test]
    fn the_order_says_who_seals_and_what_is_stale() {
        let (k1, k2) = (("k1", 1, 32), ("k2", 2, 32));
        let first = chain(&[provider("aesgcm", &[k1])]);
        let stored = sealed(&first, b"value");
        let plain = Bytes::from_static(b"k8s\0value");
        let opened = |providers: &[ProviderConfiguration], stored: &Bytes| {
            chain(providers).open(stored, AT).map(|opened| opened.stale)
        };
        let gcm = |keys: &[(&str, u8, usize)]| provider("aesgcm", keys);
        let identity = || provider("identity", &[]);
        assert_eq!(opened(&[gcm(&[k1, k2])], &stored), Ok(false));
        assert_eq!(opened(&[gcm(&[k2, k1])], &stored), Ok(true), "a new key comes first");
        assert_eq!(opened(&[gcm(&[k2]), gcm(&[k1])], &stored), Ok(true), "a new provider of the same sort");
        assert_eq!(opened(&[provider("secretbox", &[k2]), gcm(&[k1])], &stored), Ok(true));
        assert_eq!(opened(&[identity(), gcm(&[k1])], &stored), Ok(true), "on the way back to plain");
        assert_eq!(opened(&[identity(), gcm(&[k1])], &plain), Ok(false));
        assert_eq!(opened(&[gcm(&[k1]), identity()], &plain), Ok(true), "on the way to sealed");
        let none = "no matching key was found for the provided AES transformer";
        for (providers, stored, why) in [
            (vec![gcm(&[k2])], &stored, none),
            (vec![gcm(&[k2]), identity()], &stored, none),
            (vec![provider("secretbox", &[k1])], &stored, "no matching prefix found"),
            (vec![gcm(&[k1])], &plain, "no matching prefix found"),
            (vec![identity()], &stored, "identity transformer tried to read encrypted data"),
        ] {
            assert_eq!(opened(&providers, stored), Err(why.to_owned()));
        }
        assert_eq!(sealed(&chain(&[identity(), gcm(&[k1])]), b"k8s\0value"), plain);
        assert_eq!(sealed(&Chain::identity(), b"k8s\0value"), plain);
    }
}
