//! Removing what compaction gave up, a little after each commit, so that writes go on meanwhile.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::index::Index;
use super::schema::{self, from_sql, to_sql};
use crate::{Error, Revision};

/// Revisions that one transaction looks at.
const STEP: Revision = 2048;

/// Rows still to remove: those superseded in `(swept, target]`.
#[derive(Default)]
pub struct Sweep {
    swept: Revision,
    target: Revision,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Sweep {
    pub fn resume(&mut self, swept: Revision, target: Revision) {
        self.swept = swept;
        self.target = target;
    }

    pub fn begin(&mut self, target: Revision, reply: oneshot::Sender<Result<(), Error>>) {
        self.target = self.target.max(target);
        self.waiting.push(reply);
    }

    pub fn is_pending(&self) -> bool {
        self.swept < self.target
    }

    /// Tells those who wait that it will not happen now. What is left is removed after the next start.
    pub fn fail(&mut self, error: impl Fn() -> Error) {
        self.target = self.swept;
        for reply in self.waiting.drain(..) {
            // A caller that no longer waits needs no answer.
            let _ = reply.send(Err(error()));
        }
    }

    pub fn step(&mut self, connection: &mut Connection, index: &Index) -> rusqlite::Result<()> {
        if self.is_pending() {
            let until = self.target.min(self.swept + STEP);
            let transaction = connection.transaction()?;
            let removed = remove(&transaction, self.swept, until)?;
            schema::set_meta(&transaction, "swept_revision", until)?;
            transaction.commit()?;
            index.forget(removed.into_iter());
            self.swept = until;
        }
        if !self.is_pending() {
            for reply in self.waiting.drain(..) {
                // As above.
                let _ = reply.send(Ok(()));
            }
        }
        Ok(())
    }
}

/// Removes what was superseded in `(after, until]`: the rows before each change there, and deletions. Answers
/// with the values that are gone.
fn remove(
    connection: &Connection,
    after: Revision,
    until: Revision,
) -> rusqlite::Result<Vec<(Arc<str>, Revision)>> {
    const SUPERSEDING: &str = "
        SELECT revision, key, prev_revision, version FROM log
        WHERE revision > ?1 AND revision <= ?2 AND prev_revision != 0";
    let mut changes = connection.prepare_cached(SUPERSEDING)?;
    let mut forget_row = connection.prepare_cached("DELETE FROM log WHERE revision = ?1")?;
    let mut forget_value = connection.prepare_cached("DELETE FROM value WHERE revision = ?1")?;
    let found: Vec<(i64, Arc<str>, i64, i64)> = changes
        .query_map((to_sql(after), to_sql(until)), |row| {
            Ok((row.get(0)?, row.get_ref(1)?.as_str()?.into(), row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut removed = Vec::with_capacity(found.len());
    for (revision, key, prev, version) in found {
        forget_row.execute([prev])?;
        forget_value.execute([prev])?;
        if version == 0 {
            forget_row.execute([revision])?;
        }
        removed.push((key, from_sql(prev)));
    }
    Ok(removed)
}
