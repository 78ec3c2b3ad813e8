//! Where in a document the decoder is, kept on the call stack so that nothing is spent on documents without errors.

use std::fmt::Write as _;

pub(super) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    segment: Segment<'p>,
}

pub(super) enum Segment<'p> {
    Root,
    Field {
        /// The Go struct that the field is of.
        owner: &'p str,
        name: &'p str,
    },
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub(super) const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    pub(super) fn child<'c>(&'c self, segment: Segment<'c>) -> Path<'c> {
        Path { parent: Some(self), segment }
    }

    /// Whether this is the metadata of the whole document.
    pub(super) fn is_metadata(&self) -> bool {
        let of_root = self.parent.is_some_and(|parent| matches!(parent.segment, Segment::Root));
        of_root && matches!(self.segment, Segment::Field { name: "metadata", .. })
    }

    /// `spec.containers[0].image`, with `last` appended.
    pub(super) fn strict(&self, last: &str) -> String {
        let mut out = String::new();
        self.write(&mut out);
        push(&mut out, last);
        out
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match &self.segment {
            Segment::Root => {}
            Segment::Field { name, .. } | Segment::Key(name) => push(out, name),
            Segment::Index(index) => {
                let _ = write!(out, "[{index}]");
            }
        }
    }

    /// How Go's JSON decoder names the place: the innermost struct, and field names only.
    pub(super) fn go(&self) -> String {
        let mut fields = Vec::new();
        let mut owner = None;
        let mut at = Some(self);
        while let Some(path) = at {
            if let Segment::Field { owner: of, name } = &path.segment {
                owner.get_or_insert(*of);
                fields.push(*name);
            }
            at = path.parent;
        }
        fields.reverse();
        match owner {
            Some(owner) => format!("Go struct field {owner}.{}", fields.join(".")),
            None => "Go value".to_owned(),
        }
    }
}

fn push(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}
