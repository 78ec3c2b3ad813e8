//! IP addresses and CIDR blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{Error, ErrorList, Path};

/// Parses an address the way fields that predate strict validation take it: zeros may lead in IPv4 octets, and
/// IPv4 may come mapped into IPv6.
pub fn parse_ip_sloppy(value: &str) -> Option<IpAddr> {
    if value.contains(':') {
        let address: Ipv6Addr = value.parse().ok()?;
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    let mut octets = [0u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?;
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

fn is_mapped(value: &str) -> bool {
    value.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_some())
}

fn parse_ip(path: &Path, value: &str) -> Result<IpAddr, ErrorList> {
    const WRONG: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    let ip = parse_ip_sloppy(value).ok_or_else(|| vec![Error::invalid(path, value, WRONG)])?;
    if value.parse::<IpAddr>().is_err() {
        return Err(vec![Error::invalid(path, value, "must not have leading 0s")]);
    }
    if is_mapped(value) {
        return Err(vec![Error::invalid(path, value, "must not be an IPv4-mapped IPv6 address")]);
    }
    Ok(ip)
}

/// For fields that always took any spelling of an address; `old` are values accepted because they were there.
pub fn is_valid_ip_for_legacy_field(path: &Path, value: &str, old: &[&str]) -> ErrorList {
    if old.contains(&value) { ErrorList::new() } else { parse_ip(path, value).err().unwrap_or_default() }
}

/// For new fields: the canonical spelling only.
pub fn is_valid_ip(path: &Path, value: &str) -> ErrorList {
    match parse_ip(path, value) {
        Err(errors) => errors,
        Ok(ip) if ip.to_string() != value => {
            vec![Error::invalid(path, value, format!("must be in canonical form (\"{ip}\")"))]
        }
        Ok(_) => ErrorList::new(),
    }
}

/// A block of addresses: an address without host bits and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// The block that an address and a prefix length lie in.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let masked = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
            _ => return None,
        };
        Some(Self { address: masked, prefix })
    }

    /// Parses a block as old fields take it, host bits and all; also returns the address as written.
    pub fn parse_sloppy(value: &str) -> Option<(IpAddr, Self)> {
        let (address, prefix) = value.split_once('/')?;
        let ip = parse_ip_sloppy(address)?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = prefix.trim_start_matches('0');
        let length: u8 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        let length = if is_mapped(address) { length.checked_sub(96)? } else { length };
        Some((ip, Self::new(ip, length)?))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix).is_some_and(|block| block == *self)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn parse_cidr(path: &Path, value: &str) -> Result<Cidr, ErrorList> {
    let invalid = |detail: &str| Err(vec![Error::invalid(path, value, detail)]);
    let Some((ip, cidr)) = Cidr::parse_sloppy(value) else {
        return invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    };
    let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
    if address.parse::<IpAddr>().is_err() || (prefix.len() > 1 && prefix.starts_with('0')) {
        return invalid("must not have leading 0s in IP or prefix length");
    }
    if is_mapped(address) {
        return invalid("must not have an IPv4-mapped IPv6 address");
    }
    if ip != cidr.address {
        return invalid("must not have bits set beyond the prefix length");
    }
    Ok(cidr)
}

/// For fields that always took any spelling of a block.
pub fn is_valid_cidr_for_legacy_field(path: &Path, value: &str, old: &[&str]) -> ErrorList {
    if old.contains(&value) { ErrorList::new() } else { parse_cidr(path, value).err().unwrap_or_default() }
}

/// For new fields: the canonical spelling only.
pub fn is_valid_cidr(path: &Path, value: &str) -> ErrorList {
    match parse_cidr(path, value) {
        Err(errors) => errors,
        Ok(cidr) if cidr.to_string() != value => {
            vec![Error::invalid(path, value, format!("must be in canonical form (\"{cidr}\")"))]
        }
        Ok(_) => ErrorList::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(errors: ErrorList) -> String {
        errors.into_iter().map(|e| e.detail).collect()
    }

    #[test]
    fn addresses() {
        let path = Path::new("ip");
        let cases = [
            ("10.0.0.1", ""),
            ("fe80::1", ""),
            ("010.0.0.1", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("FE80::1", "must be in canonical form (\"fe80::1\")"),
            ("10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("256.0.0.1", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ];
        for (value, expected) in cases {
            assert_eq!(detail(is_valid_ip(&path, value)), expected, "{value}");
        }
        assert!(is_valid_ip_for_legacy_field(&path, "FE80::1", &[]).is_empty());
    }

    #[test]
    fn blocks() {
        let path = Path::new("cidr");
        let cases = [
            ("10.0.0.0/8", ""),
            ("::/0", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("FE80::/10", "must be in canonical form (\"fe80::/10\")"),
            ("10.0.0.0/33", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        ];
        for (value, expected) in cases {
            assert_eq!(detail(is_valid_cidr(&path, value)), expected, "{value}");
        }
        let (_, cidr) = Cidr::parse_sloppy("10.1.2.3/16").unwrap();
        assert!(
            cidr.contains("10.1.255.255".parse().unwrap()) && !cidr.contains("10.2.0.0".parse().unwrap())
        );
        assert!(!cidr.contains("::1".parse().unwrap()));
    }
}
