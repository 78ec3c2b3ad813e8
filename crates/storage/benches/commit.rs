//! Durable commits: one writer that waits for each, and many whose writes share them.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use storage::sqlite::Sqlite;
use storage::{Expect, Storage};

fn commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let store = Sqlite::open(folder.path().join("state.db")).expect("a store");
    let value = Bytes::from(vec![b'x'; 1024]);
    let mut next = 0_u64;
    let mut group = criterion.benchmark_group("store a new key durably");
    group.sample_size(20);
    for writers in [1_u64, 32, 256] {
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::new("writers", writers), |b| {
            b.iter(|| {
                let writes = (0..writers).map(|_| {
                    next += 1;
                    let (store, value, key) = (&store, value.clone(), format!("/bench/{next}"));
                    async move { store.put_if(&key, Expect::Absent, value, None).await.expect("stored") }
                });
                let writes: Vec<_> = writes.collect();
                runtime.block_on(join_all(writes))
            });
        });
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);
