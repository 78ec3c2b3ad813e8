//! Node ports: one bitmap in the store, at upstream's key and in upstream's form, changed by compare-and-swap.

use apimachinery::codec;
use apimachinery::schema::Schema;
use apimachinery::{GroupVersionKind, Object, Status, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rand::Rng;
use storage::{Expect, PutOutcome};

use crate::cache::storage_failed;
use crate::registry::Registry;

const KEY: &str = "/registry/ranges/servicenodeports";
const TRIES: usize = 64;

/// The ports that may be given out, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 30000, last: 32767 }
    }
}

/// The bits of the ports in use; bit 0 is the first port.
struct Bitmap(Vec<u8>);

impl Bitmap {
    fn has(&self, bit: usize) -> bool {
        self.0[bit / 8] & (1 << (bit % 8)) != 0
    }

    fn set(&mut self, bit: usize, on: bool) {
        if on {
            self.0[bit / 8] |= 1 << (bit % 8);
        } else {
            self.0[bit / 8] &= !(1 << (bit % 8));
        }
    }
}

impl PortRange {
    fn size(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Whether a port is in the range.
    pub fn check(&self, port: i64) -> Result<u16, String> {
        match u16::try_from(port) {
            Ok(port) if (self.first..=self.last).contains(&port) => Ok(port),
            _ => Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.first, self.last
            )),
        }
    }

    /// Takes a given port of the range; `false` when somebody has it.
    pub async fn take(&self, registry: &Registry, port: u16, dry_run: bool) -> Result<bool, Status> {
        let bit = usize::from(port - self.first);
        let taken = self
            .change(registry, dry_run, |bits| {
                if bits.has(bit) {
                    return None;
                }
                bits.set(bit, true);
                Some(port)
            })
            .await?;
        Ok(taken.is_some())
    }

    pub async fn take_any(&self, registry: &Registry, dry_run: bool) -> Result<u16, Status> {
        let size = self.size();
        let reserved = (size / 32).clamp(16, 128).min(size - 1);
        let upper = size - reserved;
        let start = rand::rng().random_range(0..upper);
        let taken = self
            .change(registry, dry_run, |bits| {
                let order = (0..upper).map(|i| reserved + (start + i) % upper).chain(0..reserved);
                let bit = order.into_iter().find(|bit| !bits.has(*bit))?;
                bits.set(bit, true);
                u16::try_from(bit).ok().map(|bit| self.first + bit)
            })
            .await?;
        taken.ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }

    pub async fn release(&self, registry: &Registry, ports: &[u16]) {
        let done = self
            .change(registry, false, |bits| {
                for port in ports.iter().filter(|port| (self.first..=self.last).contains(port)) {
                    bits.set(usize::from(port - self.first), false);
                }
                Some(())
            })
            .await;
        if let Err(status) = done {
            tracing::warn!(?ports, %status, "node ports could not be released");
        }
    }

    /// Marks ports that Services use, and frees those that `free` says nobody will come to use. Gives back the ports
    /// that are taken though no Service uses them.
    pub async fn put_right(
        &self,
        registry: &Registry,
        used: &[u16],
        free: &[u16],
    ) -> Result<Vec<u16>, Status> {
        let used: Vec<u16> =
            used.iter().copied().filter(|port| (self.first..=self.last).contains(port)).collect();
        let bit = |port: u16| usize::from(port - self.first);
        let mut unused = Vec::new();
        let looked = self
            .change(registry, true, |bits| {
                let free_of_use =
                    (self.first..=self.last).filter(|port| bits.has(bit(*port)) && !used.contains(port));
                Some((free_of_use.collect::<Vec<u16>>(), used.iter().all(|port| bits.has(bit(*port)))))
            })
            .await?;
        let Some((taken, complete)) = looked else { return Ok(unused) };
        unused.extend(taken);
        let gone: Vec<u16> = unused.iter().copied().filter(|port| free.contains(port)).collect();
        if complete && gone.is_empty() {
            return Ok(unused);
        }
        self.change(registry, false, |bits| {
            for port in &used {
                bits.set(bit(*port), true);
            }
            for port in &gone {
                bits.set(bit(*port), false);
            }
            Some(())
        })
        .await?;
        unused.retain(|port| !gone.contains(port));
        Ok(unused)
    }

    /// Changes the bitmap until no other server was faster. `None` from `change` leaves it alone.
    async fn change<T>(
        &self,
        registry: &Registry,
        dry_run: bool,
        change: impl Fn(&mut Bitmap) -> Option<T>,
    ) -> Result<Option<T>, Status> {
        let schema = Schema::builtin("k8s.io.api.core.v1", "RangeAllocation")
            .ok_or_else(|| Status::internal("no schema of RangeAllocation"))?;
        for _ in 0..TRIES {
            let (kv, _) = registry.storage.get(KEY).await.map_err(storage_failed)?;
            let (mut bits, expected) = match &kv {
                None => (Bitmap(vec![0; self.size().div_ceil(8)]), Expect::Absent),
                Some(kv) => {
                    let object = codec::decode_protobuf(&kv.value, &schema).map_err(Status::internal)?;
                    (self.read(&object)?, Expect::ModRevision(kv.mod_revision))
                }
            };
            let Some(out) = change(&mut bits) else { return Ok(None) };
            if dry_run {
                return Ok(Some(out));
            }
            let mut bytes = Vec::new();
            codec::encode_protobuf(&self.write(&bits), &schema, &mut bytes);
            let outcome = registry.storage.put_if(KEY, expected, Bytes::from(bytes), None).await;
            if let PutOutcome::Stored(_) = outcome.map_err(storage_failed)? {
                return Ok(Some(out));
            }
        }
        Err(Status::internal("the node port bitmap is changed by others too often"))
    }

    /// Upstream stores the bitmap as a big integer: most significant byte first, no leading zeros.
    fn read(&self, object: &Object) -> Result<Bitmap, Status> {
        let range = format!("{}-{}", self.first, self.last);
        let stored = object.get_str(&["range"]);
        if stored != range {
            return Err(Status::internal(format!(
                "the provided range {range} does not match the stored one {stored}"
            )));
        }
        let data = object.get(&["data"]).and_then(Value::as_str).unwrap_or_default();
        let mut bytes = STANDARD.decode(data).map_err(Status::internal)?;
        bytes.reverse();
        bytes.resize(self.size().div_ceil(8), 0);
        Ok(Bitmap(bytes))
    }

    fn write(&self, bits: &Bitmap) -> Object {
        let mut bytes = bits.0.clone();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes.reverse();
        let mut object = Object::default();
        object.set_type(&GroupVersionKind::new("", "v1", "RangeAllocation"));
        object.set(&["range"], format!("{}-{}", self.first, self.last));
        object.set(&["data"], STANDARD.encode(bytes));
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitmap_survives_its_stored_form() {
        let range = PortRange::default();
        let mut bits = Bitmap(vec![0; range.size().div_ceil(8)]);
        for bit in [0, 9, 2767] {
            bits.set(bit, true);
        }
        let back = range.read(&range.write(&bits)).unwrap();
        assert_eq!(back.0, bits.0);
        assert!(PortRange { first: 1, last: 100 }.read(&range.write(&bits)).is_err());
    }
}
