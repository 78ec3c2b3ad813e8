//! The stream that a watch yields, the same for every backend.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::{BoxStream, StreamExt};

use crate::{Error, Event, Revision};

/// Changes in revision order. Every change of the watched prefix up to `revision` has been delivered with or
/// before this batch, so one without events tells how far the watcher has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub events: Vec<Event>,
    pub revision: Revision,
}

/// An open watch. It ends with an error, or without one when the store closes.
pub struct WatchStream {
    batches: BoxStream<'static, Result<Batch, Error>>,
    progress: ProgressRequester,
}

impl WatchStream {
    pub fn new(batches: BoxStream<'static, Result<Batch, Error>>, progress: ProgressRequester) -> Self {
        Self { batches, progress }
    }

    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        self.batches.next().await
    }

    pub fn progress_requester(&self) -> ProgressRequester {
        self.progress.clone()
    }
}

impl Stream for WatchStream {
    type Item = Result<Batch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_next_unpin(cx)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchStream")
    }
}

/// Asks a watch to tell how far it has come: the stream then yields a batch, with or without events, whose
/// revision is at least the store's revision at the time of asking.
#[derive(Clone)]
pub struct ProgressRequester(Arc<dyn Fn() + Send + Sync>);

impl ProgressRequester {
    pub fn new(request: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(request))
    }

    pub fn request(&self) {
        (self.0)();
    }
}

impl fmt::Debug for ProgressRequester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressRequester")
    }
}
