//! The body of a large list, made piece by piece as the client takes it: however many clients read however much, each
//! costs one piece and a list of references to what the cache holds anyway.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use apimachinery::codec::ListHeader;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::body::{Body, BoxError};
use super::negotiate::Format;
use crate::cache::Entry;
use crate::registry::list::Page;

/// Smaller lists are written at once.
const LARGE: usize = 256 * 1024;
/// How much is made at a time.
const PIECE: usize = 64 * 1024;

pub fn is_large(page: &Page) -> bool {
    let mut size = 0;
    page.entries.iter().any(|entry| {
        size += entry.protobuf().stored().len();
        size > LARGE
    })
}

/// The body of a list in JSON or protobuf.
pub fn stream(format: Format, header: ListHeader, entries: &[Arc<Entry>]) -> Body {
    let list =
        List { protobuf: format == Format::Protobuf, header, entries: entries.to_vec(), next: Next::Head };
    list.boxed_unsync()
}

struct List {
    protobuf: bool,
    header: ListHeader,
    entries: Vec<Arc<Entry>>,
    next: Next,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Next {
    Head,
    Item(usize),
    End,
}

impl List {
    /// Appends the next piece; an error is an object that cannot be read.
    fn piece(&mut self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        while out.len() < PIECE {
            self.next = match self.next {
                Next::Head if self.protobuf => {
                    let items = self.entries.iter().map(|e| e.protobuf().list_item_len(e.revision())).sum();
                    self.header.begin_protobuf(items, out);
                    Next::Item(0)
                }
                Next::Head => {
                    self.header.begin_json(false, out);
                    Next::Item(0)
                }
                Next::Item(index) => match self.entries.get(index) {
                    Some(entry) if self.protobuf => {
                        entry.protobuf().append_item(entry.revision(), out);
                        Next::Item(index + 1)
                    }
                    Some(entry) => {
                        if index > 0 {
                            out.push(b',');
                        }
                        entry.json()?.append_item(entry.revision(), out);
                        Next::Item(index + 1)
                    }
                    None => {
                        if self.protobuf {
                            ListHeader::end_protobuf(out);
                        } else {
                            self.header.end_json(false, out);
                            out.push(b'\n');
                        }
                        Next::End
                    }
                },
                Next::End => break,
            };
        }
        Ok(())
    }
}

impl http_body::Body for List {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut out = Vec::with_capacity(PIECE + PIECE / 4);
        Poll::Ready(match self.piece(&mut out) {
            Ok(()) if out.is_empty() => None,
            Ok(()) => Some(Ok(Frame::data(out.into()))),
            Err(error) => {
                tracing::error!(%error, "a stored object cannot be read; the list breaks off");
                self.next = Next::End;
                Some(Err(error))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        // what is stored is the shortest form there is
        let mut hint = SizeHint::new();
        hint.set_lower(self.entries.iter().map(|entry| entry.protobuf().stored().len() as u64 / 2).sum());
        hint
    }
}
