//! The protobuf wire format: varints, keys, length-delimited fields.

use super::DecodeError;

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

/// Groups are long gone from protobuf; a decoder still has to skip them.
const MAX_GROUPS: usize = 16;

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

pub(super) fn put_key(tag: u32, wire_type: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(tag) << 3 | u64::from(wire_type), out);
}

pub(super) fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_key(tag, BYTES, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(super) fn put_int(tag: u32, value: u64, out: &mut Vec<u8>) {
    put_key(tag, VARINT, out);
    put_varint(value, out);
}

/// Writes a length-delimited field whose length is known only afterwards: room for a short length is left, and
/// the rare long ones move what was written.
pub(super) fn put_nested(tag: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    put_key(tag, BYTES, out);
    let at = out.len();
    out.push(0);
    write(out);
    let length = (out.len() - at - 1) as u64;
    if length < 0x80 {
        out[at] = length as u8;
    } else {
        let mut prefix = Vec::with_capacity(10);
        put_varint(length, &mut prefix);
        out.splice(at..=at, prefix);
    }
}

/// Reads fields one after the other.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// Groups and 32 bit numbers, which no Kubernetes type has.
    Skipped,
}

fn malformed(what: &str) -> DecodeError {
    DecodeError::Syntax(format!("proto: {what}"))
}

fn cut_off() -> DecodeError {
    DecodeError::Syntax("unexpected EOF".to_owned())
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next field number and its value; `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok().filter(|tag| *tag > 0 && *tag < 1 << 29);
        let tag =
            tag.ok_or_else(|| malformed(&format!("illegal tag {} (wire type {})", key >> 3, key & 7)))?;
        let raw = self.value((key & 7) as u8, 0)?;
        Ok(Some((tag, raw)))
    }

    fn value(&mut self, wire_type: u8, groups: usize) -> Result<Raw<'a>, DecodeError> {
        Ok(match wire_type {
            VARINT => Raw::Varint(self.varint()?),
            FIXED64 => {
                let bytes = self.take(8)?;
                Raw::Fixed64(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
            }
            BYTES => {
                let length =
                    i64::try_from(self.varint()?).ok().and_then(|length| usize::try_from(length).ok());
                let length = length.ok_or_else(|| malformed("negative length found during unmarshaling"))?;
                Raw::Bytes(self.take(length)?)
            }
            FIXED32 => {
                self.take(4)?;
                Raw::Skipped
            }
            START_GROUP if groups < MAX_GROUPS => loop {
                match (self.varint()? & 7) as u8 {
                    END_GROUP => break Raw::Skipped,
                    inner => self.value(inner, groups + 1)?,
                };
            },
            other => return Err(malformed(&format!("illegal wireType {other}"))),
        })
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or_else(cut_off)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("integer overflow"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(Reader::new(&out).varint().unwrap(), value);
        }

        #[test]
        fn nested_lengths_fit(length in 0usize..40_000) {
            let mut out = Vec::new();
            put_nested(7, &mut out, |out| out.resize(out.len() + length, 1));
            let Some((7, Raw::Bytes(bytes))) = Reader::new(&out).field().unwrap() else { panic!("no field") };
            prop_assert_eq!(bytes.len(), length);
        }
    }
}
