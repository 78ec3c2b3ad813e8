//! What a certificate may be used for: from the API's words to the extensions of a certificate.

use anyhow::bail;
use yasna::models::ObjectIdentifier;

use super::authority::extension;

/// What a certificate may be used for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usages {
    /// Bits of `keyUsage`, the first from the left.
    key: u16,
    /// Purposes of `extendedKeyUsage` in upstream's order.
    extended: Vec<&'static [u64]>,
}

/// The usages of the API that are bits of a key's usage.
const KEY_USAGES: [(&str, u16); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// The usages of the API that are purposes, in the order in which certificates name them.
const PURPOSES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

impl Usages {
    pub fn of(usages: &[String]) -> anyhow::Result<Self> {
        let mut out = Self::default();
        let mut unknown = Vec::new();
        for usage in usages {
            if let Some((_, bit)) = KEY_USAGES.iter().find(|(name, _)| name == usage) {
                out.key |= 0x8000 >> bit;
            } else if !PURPOSES.iter().any(|(name, _)| name == usage) {
                unknown.push(format!("{usage:?}"));
            }
        }
        if !unknown.is_empty() {
            bail!("unrecognized usage values: [{}]", unknown.join(" "));
        }
        for (name, oid) in PURPOSES {
            if usages.iter().any(|usage| usage == name) && !out.extended.contains(&oid) {
                out.extended.push(oid);
            }
        }
        Ok(out)
    }

    pub fn write(&self, list: &mut yasna::DERWriterSeq<'_>) {
        if self.key != 0 {
            // bits after the last one that is set are left away
            let length = 16 - self.key.trailing_zeros() as usize;
            let bytes = self.key.to_be_bytes();
            extension(list, &[2, 5, 29, 15], true, |writer| {
                writer.write_bitvec_bytes(&bytes[..length.div_ceil(8)], length);
            });
        }
        if !self.extended.is_empty() {
            extension(list, &[2, 5, 29, 37], false, |writer| {
                writer.write_sequence(|purposes| {
                    for oid in &self.extended {
                        purposes.next().write_oid(&ObjectIdentifier::from_slice(oid));
                    }
                });
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::testing::usages;

    #[test]
    fn usages_that_nobody_knows_are_refused() {
        let error = Usages::of(&usages(&["any", "odd", "odder"])).unwrap_err().to_string();
        assert_eq!(error, r#"unrecognized usage values: ["odd" "odder"]"#);
    }
}
