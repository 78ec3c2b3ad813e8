//! Measures durable writes, reads and reopening: `cargo run --release -p storage --example commits [directory]`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use storage::sqlite::Sqlite;
use storage::{Error, Event, Expect, PutOutcome, Range, Storage};

const VALUE_BYTES: usize = 1024;

async fn create_all(store: &Arc<Sqlite>, writers: usize, each: usize, round: usize) -> Result<f64, Error> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
                for number in 0..each {
                    let key = format!("/registry/configmaps/ns-{writer}/object-{round}-{number}");
                    match store.put_if(&key, Expect::Absent, value.clone(), None).await? {
                        PutOutcome::Stored(_) => {}
                        PutOutcome::Conflict(_) => return Err(Error::Backend(format!("{key} was there"))),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| Error::Backend(error.to_string()))??;
    }
    Ok((writers * each) as f64 / start.elapsed().as_secs_f64())
}

async fn measure(path: &Path) -> Result<(), Error> {
    let store = Arc::new(Sqlite::open(path)?);
    let mut round = 0;
    for (writers, each) in [(1, 5_000), (8, 2_000), (32, 1_500), (256, 200)] {
        round += 1;
        let rate = create_all(&store, writers, each, round).await?;
        println!("{{\"what\":\"commits\",\"writers\":{writers},\"per_second\":{rate:.0}}}");
    }
    // The same with watchers, as an API server has them.
    let head = store.current_revision().await?;
    let mut watches = Vec::new();
    for number in 0..80 {
        let prefix =
            if number < 4 { "/registry/configmaps/".into() } else { format!("/registry/kind-{number}/") };
        let mut watch = store.watch(&prefix, head).await?;
        watches.push(tokio::spawn(async move {
            let mut seen = 0;
            while let Some(Ok(batch)) = watch.next().await {
                seen += batch.events.iter().filter(|event| matches!(event, Event::Put { .. })).count();
            }
            seen
        }));
    }
    let rate = create_all(&store, 32, 1_500, 100).await?;
    println!("{{\"what\":\"commits with 80 watches\",\"writers\":32,\"per_second\":{rate:.0}}}");

    let start = Instant::now();
    for number in 0..5_000 {
        store.get(&format!("/registry/configmaps/ns-0/object-1-{number}")).await?;
    }
    println!(
        "{{\"what\":\"gets, one reader\",\"per_second\":{:.0}}}",
        5_000.0 / start.elapsed().as_secs_f64()
    );
    let head = store.current_revision().await?;
    let start = Instant::now();
    store.compact(head).await?;
    println!("{{\"what\":\"compaction of creations\",\"ms\":{}}}", start.elapsed().as_millis());
    store.close().await?;
    let mut delivered = 0;
    for watch in watches {
        delivered += watch.await.map_err(|error| Error::Backend(error.to_string()))?;
    }
    println!("{{\"what\":\"events delivered\",\"count\":{delivered}}}");

    let start = Instant::now();
    let store = Sqlite::open(path)?;
    println!("{{\"what\":\"reopen\",\"us\":{}}}", start.elapsed().as_micros());
    let start = Instant::now();
    let page = store.range(Range::prefix("/registry/")).await?;
    println!("{{\"what\":\"read all\",\"keys\":{},\"ms\":{}}}", page.kvs.len(), start.elapsed().as_millis());
    store.close().await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let open_error = |source| Error::Open { path: "a temporary directory".into(), source };
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let directory = tempfile::tempdir_in(parent).map_err(open_error)?;
    measure(&directory.path().join("db")).await
}
