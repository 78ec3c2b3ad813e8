//! Bytes to frames.

use bytes::{Buf, Bytes, BytesMut};

use super::block::Inflater;
use super::frame::{self, FLAG_FIN, FLAG_UNIDIRECTIONAL, Frame, HEAD, MAX_CONTROL, Malformed, Setting, kind};

/// Reads the frames of one direction of a connection.
#[derive(Default)]
pub struct Decoder {
    inflater: Inflater,
    /// The data frame that is under way.
    data: Option<Data>,
}

struct Data {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// Takes the next frame off the front of `buffer`; `None` when more bytes are needed. After an error the
    /// connection is beyond repair.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some(data) = self.data.take() {
                return Ok(self.piece(data, buffer));
            }
            let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = *head;
            let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
            if a & 0x80 == 0 {
                let stream = u32::from_be_bytes([a, b, c, d]);
                if stream == 0 {
                    return Err(Malformed::ZeroStream);
                }
                buffer.advance(HEAD);
                self.data = Some(Data { stream, fin: flags & FLAG_FIN != 0, left: length });
                continue;
            }
            let version = u16::from_be_bytes([a & 0x7f, b]);
            let kind = u16::from_be_bytes([c, d]);
            if version != frame::VERSION {
                return Err(Malformed::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(Malformed::Length(kind, length));
            }
            if buffer.len() < HEAD + length {
                return Ok(None);
            }
            buffer.advance(HEAD);
            let payload = buffer.split_to(length).freeze();
            // frames of a kind that is not known are to be ignored
            if let Some(frame) = self.control(kind, flags, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// What is there of a data frame, so that a long one needs no long buffer.
    fn piece(&mut self, data: Data, buffer: &mut BytesMut) -> Option<Frame> {
        let Data { stream, fin, left } = data;
        if buffer.is_empty() && left > 0 {
            self.data = Some(data);
            return None;
        }
        let piece = buffer.split_to(left.min(buffer.len())).freeze();
        let left = left - piece.len();
        if left > 0 {
            self.data = Some(Data { stream, fin, left });
        }
        Some(Frame::Data { stream, fin: fin && left == 0, data: piece })
    }

    fn control(&mut self, kind: u16, flags: u8, mut payload: Bytes) -> Result<Option<Frame>, Malformed> {
        let size = payload.len();
        let wrong = Malformed::Length(kind, size);
        let fin = flags & FLAG_FIN != 0;
        let exactly = |length: usize| if size == length { Ok(()) } else { Err(wrong) };
        let at_least = |length: usize| if size >= length { Ok(()) } else { Err(wrong) };
        Ok(Some(match kind {
            kind::SYN_STREAM => {
                at_least(10)?;
                let stream = id(payload.get_u32())?;
                let associated = payload.get_u32() & 0x7fff_ffff;
                let priority = payload.get_u8() >> 5;
                let _slot = payload.get_u8();
                let headers = self.inflater.headers(&payload)?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }
            }
            kind::SYN_REPLY => {
                at_least(4)?;
                let stream = id(payload.get_u32())?;
                Frame::SynReply { stream, fin, headers: self.inflater.headers(&payload)? }
            }
            kind::HEADERS => {
                at_least(4)?;
                let stream = id(payload.get_u32())?;
                Frame::Headers { stream, fin, headers: self.inflater.headers(&payload)? }
            }
            kind::RST_STREAM => {
                exactly(8)?;
                let stream = id(payload.get_u32())?;
                let status = payload.get_u32();
                if status == 0 {
                    return Err(Malformed::Control);
                }
                Frame::Reset { stream, status }
            }
            kind::SETTINGS => {
                at_least(4)?;
                let count = payload.get_u32();
                if usize::try_from(count).ok().and_then(|count| count.checked_mul(8)) != Some(payload.len()) {
                    return Err(wrong);
                }
                let settings = (0..count).map(|_| {
                    let word = payload.get_u32();
                    Setting { flags: (word >> 24) as u8, id: word & 0xff_ffff, value: payload.get_u32() }
                });
                Frame::Settings(settings.collect())
            }
            kind::PING => {
                exactly(4)?;
                match (payload.get_u32(), flags) {
                    (0, _) => return Err(Malformed::ZeroStream),
                    (ping, 0) => Frame::Ping(ping),
                    _ => return Err(Malformed::Control),
                }
            }
            kind::GOAWAY => {
                exactly(8)?;
                if flags != 0 {
                    return Err(Malformed::Control);
                }
                Frame::GoAway { last: payload.get_u32() & 0x7fff_ffff, status: payload.get_u32() }
            }
            kind::WINDOW_UPDATE => {
                exactly(8)?;
                if flags != 0 {
                    return Err(Malformed::Control);
                }
                // stream 0 is the connection itself
                let stream = payload.get_u32() & 0x7fff_ffff;
                Frame::WindowUpdate { stream, delta: payload.get_u32() & 0x7fff_ffff }
            }
            _ => return Ok(None),
        }))
    }
}

fn id(word: u32) -> Result<u32, Malformed> {
    match word & 0x7fff_ffff {
        0 => Err(Malformed::ZeroStream),
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spdy::encode::Encoder;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn all(wire: &[u8], cut: usize) -> Result<Vec<Frame>, Malformed> {
        let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for part in wire.chunks(cut.max(1)) {
            buffer.extend_from_slice(part);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn malformed_frames_are_refused() {
        let cases: [(&[u8], Malformed); 13] = [
            (&[0, 0, 0, 0, 0, 0, 0, 0], Malformed::ZeroStream),
            (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], Malformed::Version(2)),
            (b"HTTP/1.1 200 OK\r\n", Malformed::ZeroStream),
            (&[0x80, 3, 0, 1, 0, 1, 0, 1], Malformed::Length(1, 0x1_0001)),
            (&[0x80, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0], Malformed::Length(1, 9)),
            (&[0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0], Malformed::ZeroStream),
            (&[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 0xff, 0xff], Malformed::Deflated),
            (&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0], Malformed::Control),
            (&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], Malformed::Length(4, 4)),
            (&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 0], Malformed::ZeroStream),
            (&[0x80, 3, 0, 6, 1, 0, 0, 4, 0, 0, 0, 1], Malformed::Control),
            (&[0x80, 3, 0, 7, 0, 0, 0, 4, 0, 0, 0, 1], Malformed::Length(7, 4)),
            (&[0x80, 3, 0, 9, 0, 0, 0, 4, 0, 0, 0, 1], Malformed::Length(9, 4)),
        ];
        for (wire, want) in cases {
            let got = all(wire, usize::MAX);
            if wire.starts_with(b"HTTP") {
                // reads as data of a stream that nobody opened, and goes on
                assert!(matches!(got.as_deref(), Ok([Frame::Data { .. }])), "{got:?}");
            } else {
                assert_eq!(got, Err(want), "{wire:?}");
            }
        }
        let unknown = [0x80, 3, 0, 10, 0, 0, 0, 1, 7, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9];
        assert_eq!(all(&unknown, usize::MAX), Ok(vec![Frame::Ping(9)]));
    }

    fn headers() -> impl Strategy<Value = HeaderMap> {
        prop::collection::btree_map("[a-z][a-z0-9-]{0,12}", prop::collection::vec("[ -~]{0,20}", 1..3), 0..5)
            .prop_map(|pairs| {
                let mut headers = HeaderMap::new();
                for (name, values) in pairs {
                    for value in values {
                        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                        headers.append(name, HeaderValue::from_str(&value).expect("a value"));
                    }
                }
                headers
            })
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let stream = 1u32..0x8000_0000;
        let setting = (any::<u8>(), 0u32..1 << 24, any::<u32>());
        prop_oneof![
            (stream.clone(), 0u32..9, 0u8..8, any::<bool>(), any::<bool>(), headers()).prop_map(
                |(stream, associated, priority, fin, unidirectional, headers)| {
                    Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }
                }
            ),
            (stream.clone(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
                stream,
                fin,
                headers
            }),
            (stream.clone(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
                stream,
                fin,
                headers
            }),
            (stream.clone(), 1u32..20).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            prop::collection::vec(setting.prop_map(|(flags, id, value)| Setting { flags, id, value }), 0..4)
                .prop_map(Frame::Settings),
            (1u32..).prop_map(Frame::Ping),
            (0u32..0x8000_0000, 0u32..3).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (0u32..0x8000_0000, 0u32..0x8000_0000)
                .prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
            (stream, any::<bool>(), prop::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data: data.into() }),
        ]
    }

    /// Puts the pieces of data frames together again.
    fn joined(frames: Vec<Frame>) -> Vec<Frame> {
        let mut out: Vec<Frame> = Vec::new();
        let mut open = false;
        for frame in frames {
            let Frame::Data { stream, fin, data } = frame else {
                out.push(frame);
                open = false;
                continue;
            };
            match out.last_mut() {
                Some(Frame::Data { stream: last, fin: end, data: so_far })
                    if open && *last == stream && !*end =>
                {
                    *so_far = [so_far.as_ref(), &data].concat().into();
                    *end = fin;
                }
                _ => out.push(Frame::Data { stream, fin, data }),
            }
            open = true;
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frames in prop::collection::vec(frame(), 0..12), cut in 1usize..64) {
            let mut encoder = Encoder::default();
            let mut wire = Vec::new();
            for frame in &frames {
                encoder.encode(frame, &mut wire).expect("a frame that can be written");
            }
            let decoded = all(&wire, cut).expect("well-formed");
            prop_assert_eq!(joined(decoded), joined(frames));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(wire in prop::collection::vec(any::<u8>(), 0..400), cut in 1usize..64) {
            let whole = all(&wire, usize::MAX).map(joined);
            prop_assert_eq!(all(&wire, cut).map(joined).is_ok(), whole.is_ok());
        }

        #[test]
        fn control_frames_with_any_payload_are_read_without_a_panic(
            kind in 0u8..12, flags in 0u8..4, payload in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut wire = vec![0x80, 3, 0, kind, flags, 0, 0, payload.len() as u8];
            wire.extend_from_slice(&payload);
            let _ = all(&wire, usize::MAX);
        }

        #[test]
        fn broken_headers_are_read_without_a_panic(headers in headers(), at in 0usize..400, bit in 0u8..8) {
            let mut wire = Vec::new();
            let frame = Frame::SynReply { stream: 1, fin: false, headers };
            Encoder::default().encode(&frame, &mut wire).expect("a frame that can be written");
            let at = at % wire.len();
            wire[at] ^= 1 << bit;
            let _ = all(&wire, usize::MAX);
        }
    }
}
