//! Blocks of header names and values: zlib with SPDY's dictionary, one stream of it for each direction of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::frame::Malformed;

/// The most that a block may inflate to.
pub const MAX_INFLATED: usize = 64 * 1024;

/// The Adler-32 of the dictionary, which a zlib stream names.
const DICTIONARY_ID: u32 = 0xe3c6_a7c2;

/// Strings that the dictionary begins with, each after its length.
const COUNTED: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// What follows them.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
    Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
    Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov \
    Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=\
    iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in COUNTED.split(' ').map(|word| word.replace('_', " ")) {
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(REST.as_bytes());
    out
}

/// Reads the blocks of one direction.
pub struct Inflater {
    zlib: Decompress,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { zlib: Decompress::new(true) }
    }
}

impl Inflater {
    pub fn headers(&mut self, compressed: &[u8]) -> Result<HeaderMap, Malformed> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_INFLATED {
                    return Err(Malformed::TooLarge);
                }
                out.reserve(out.len());
            }
            let (read, written) = (self.zlib.total_in(), out.len());
            let step = self.zlib.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let consumed = usize::try_from(self.zlib.total_in() - read).unwrap_or(input.len());
            input = input.get(consumed..).ok_or(Malformed::Deflated)?;
            match step {
                Ok(Status::Ok | Status::BufError) => {}
                // the stream lasts as long as the connection
                Ok(Status::StreamEnd) => return Err(Malformed::Deflated),
                Err(error) if error.needs_dictionary() == Some(DICTIONARY_ID) => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| Malformed::Deflated)?;
                    continue;
                }
                Err(_) => return Err(Malformed::Deflated),
            }
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            if consumed == 0 && out.len() == written && out.len() < out.capacity() {
                return Err(Malformed::Deflated);
            }
        }
    }
}

/// Writes the blocks of one direction.
pub struct Deflater {
    zlib: Compress,
}

impl Default for Deflater {
    fn default() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        if let Err(error) = zlib.set_dictionary(&dictionary()) {
            // only a stream that has begun refuses a dictionary
            tracing::error!(%error, "headers cannot be compressed with SPDY's dictionary");
        }
        Self { zlib }
    }
}

impl Deflater {
    /// Appends a compressed block.
    pub fn headers(&mut self, headers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let plain = write(headers);
        let mut input = plain.as_slice();
        loop {
            out.reserve(plain.len() + 64);
            let read = self.zlib.total_in();
            self.zlib.compress_vec(input, out, FlushCompress::Sync).map_err(|_| Malformed::Deflated)?;
            let consumed = usize::try_from(self.zlib.total_in() - read).unwrap_or(input.len());
            input = input.get(consumed..).ok_or(Malformed::Deflated)?;
            // room that is left over says that all is out
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

fn write(headers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(bytes);
    };
    for name in headers.keys() {
        put(name.as_str().as_bytes());
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        put(&values.join(&0));
    }
    let mut block = (headers.keys_len() as u32).to_be_bytes().to_vec();
    block.append(&mut out);
    block
}

fn parse(block: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut rest = block;
    let count = number(&mut rest)?;
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name = HeaderName::from_lowercase(counted(&mut rest)?).map_err(|_| Malformed::Header)?;
        if headers.contains_key(&name) {
            return Err(Malformed::DuplicateHeader);
        }
        for value in counted(&mut rest)?.split(|byte| *byte == 0) {
            let value = HeaderValue::from_bytes(value).map_err(|_| Malformed::Header)?;
            headers.try_append(name.clone(), value).map_err(|_| Malformed::TooLarge)?;
        }
    }
    if rest.is_empty() { Ok(headers) } else { Err(Malformed::Block) }
}

fn number(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let (number, tail) = rest.split_first_chunk().ok_or(Malformed::Block)?;
    *rest = tail;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| Malformed::Block)
}

fn counted<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = number(rest)?;
    let (bytes, tail) = rest.split_at_checked(length).ok_or(Malformed::Block)?;
    *rest = tail;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_specification() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary {
            a = (a + u32::from(byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!(b << 16 | a, DICTIONARY_ID);
    }

    #[test]
    fn a_block_that_another_zlib_wrote_is_read() {
        // streamtype: error, by zlib at level 9 with the dictionary, flushed
        let wire = [
            0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xa6, 0x23, 0x46, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d,
            0xcc, 0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x06, 0x00, 0x00, 0x00, 0xff, 0xff,
        ];
        let headers = Inflater::default().headers(&wire);
        assert_eq!(headers.expect("headers").get("streamtype").expect("one"), "error");
    }

    #[test]
    fn blocks_share_one_zlib_stream() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let mut sizes = Vec::new();
        for value in ["error", "stdin", "stdin", "stdin"] {
            let mut headers = HeaderMap::new();
            headers.append("streamtype", HeaderValue::from_static(value));
            headers.append("twice", HeaderValue::from_static("a"));
            headers.append("twice", HeaderValue::from_static("b"));
            let mut wire = Vec::new();
            deflater.headers(&headers, &mut wire).expect("deflated");
            sizes.push(wire.len());
            assert_eq!(inflater.headers(&wire), Ok(headers));
        }
        assert!(sizes[3] < sizes[0] / 2, "{sizes:?}");
    }

    #[test]
    fn blocks_are_refused_for_their_size_and_their_form() {
        let mut large = HeaderMap::new();
        let value = HeaderValue::from_bytes(&vec![b'x'; MAX_INFLATED + 1]).expect("a value");
        large.append("a", value);
        let mut wire = Vec::new();
        Deflater::default().headers(&large, &mut wire).expect("deflated");
        assert!(wire.len() < 1024, "what inflates without end is short");
        assert_eq!(Inflater::default().headers(&wire), Err(Malformed::TooLarge));

        let cases: [(&[u8], Malformed); 6] = [
            (&[], Malformed::Block),
            (&[0, 0, 0, 1], Malformed::Block),
            (&[0, 0, 0, 0, 9], Malformed::Block),
            (&[0, 0, 0, 1, 0, 0, 0, 1, b'A', 0, 0, 0, 0], Malformed::Header),
            (&[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 1, b'\n'], Malformed::Header),
            (
                &[0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 0, 0],
                Malformed::DuplicateHeader,
            ),
        ];
        for (block, want) in cases {
            assert_eq!(parse(block), Err(want), "{block:?}");
        }
    }
}
