//! Frames to bytes.

use super::block::Deflater;
use super::frame::{
    FLAG_FIN, FLAG_UNIDIRECTIONAL, Frame, HEAD, MAX_CONTROL, MAX_DATA, Malformed, VERSION, kind,
};

/// Writes the frames of one direction of a connection.
#[derive(Default)]
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Appends a frame.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let fin = |fin: bool| if fin { FLAG_FIN } else { 0 };
        match frame {
            Frame::Data { stream, fin: end, data } => {
                if data.len() > MAX_DATA {
                    return Err(Malformed::Length(0, data.len()));
                }
                out.extend_from_slice(&(stream & 0x7fff_ffff).to_be_bytes());
                out.extend_from_slice(&(u32::from(fin(*end)) << 24 | data.len() as u32).to_be_bytes());
                out.extend_from_slice(data);
                Ok(())
            }
            Frame::SynStream { stream, associated, priority, fin: end, unidirectional, headers } => {
                let flags = fin(*end) | if *unidirectional { FLAG_UNIDIRECTIONAL } else { 0 };
                control(out, kind::SYN_STREAM, flags, |out| {
                    put(out, &[*stream, *associated]);
                    out.extend_from_slice(&[priority << 5, 0]);
                    self.deflater.headers(headers, out)
                })
            }
            Frame::SynReply { stream, fin: end, headers } => {
                control(out, kind::SYN_REPLY, fin(*end), |out| {
                    put(out, &[*stream]);
                    self.deflater.headers(headers, out)
                })
            }
            Frame::Headers { stream, fin: end, headers } => control(out, kind::HEADERS, fin(*end), |out| {
                put(out, &[*stream]);
                self.deflater.headers(headers, out)
            }),
            Frame::Reset { stream, status } => words(out, kind::RST_STREAM, &[*stream, *status]),
            Frame::Settings(settings) => control(out, kind::SETTINGS, 0, |out| {
                put(out, &[settings.len() as u32]);
                for setting in settings {
                    put(out, &[u32::from(setting.flags) << 24 | setting.id & 0xff_ffff, setting.value]);
                }
                Ok(())
            }),
            Frame::Ping(id) => words(out, kind::PING, &[*id]),
            Frame::GoAway { last, status } => words(out, kind::GOAWAY, &[*last, *status]),
            Frame::WindowUpdate { stream, delta } => words(out, kind::WINDOW_UPDATE, &[*stream, *delta]),
        }
    }
}

fn put(out: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
}

fn words(out: &mut Vec<u8>, kind: u16, words: &[u32]) -> Result<(), Malformed> {
    control(out, kind, 0, |out| {
        put(out, words);
        Ok(())
    })
}

fn control(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u8,
    payload: impl FnOnce(&mut Vec<u8>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let start = out.len();
    put(out, &[0x8000_0000 | u32::from(VERSION) << 16 | u32::from(kind), 0]);
    payload(out)?;
    let length = out.len() - start - HEAD;
    if length > MAX_CONTROL {
        return Err(Malformed::Length(kind, length));
    }
    let word = u32::from(flags) << 24 | length as u32;
    out[start + 4..start + HEAD].copy_from_slice(&word.to_be_bytes());
    Ok(())
}
