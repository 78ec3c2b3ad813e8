//! Messages that begin with the number of the channel that they belong to.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use futures::SinkExt;
use futures::lock::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Error;

use super::{Bytes, Message, Sink, Source, close};
use crate::activity::Activity;

/// Before the number of a channel that has ended, in version 5.
pub const CLOSE: u8 = 255;

/// How a message carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// A byte for the channel and the bytes as they are, in a binary message.
    Raw,
    /// A digit for the channel and base64, in a text message.
    Base64,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Data {
        channel: u8,
        data: Bytes,
    },
    /// The client will send no more on this channel.
    Close {
        channel: u8,
    },
    /// Nothing for anybody.
    Nothing,
    /// The client breaks the protocol, or has hung up.
    End,
}

impl Codec {
    pub fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Codec::Raw => {
                let mut message = Vec::with_capacity(data.len() + 1);
                message.push(channel);
                message.extend_from_slice(data);
                Message::binary(message)
            }
            Codec::Base64 => {
                let mut message = String::with_capacity(data.len() / 3 * 4 + 5);
                message.push(char::from(b'0' + channel));
                STANDARD.encode_string(data, &mut message);
                Message::text(message)
            }
        }
    }

    /// Reads a client's message. `closes` says whether the protocol knows the signal that ends one channel.
    pub fn decode(self, message: Message, closes: bool) -> Said {
        let mut data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Said::End,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Said::Nothing,
        };
        match *data {
            [] => return Said::Nothing,
            [CLOSE, channel] if closes => return Said::Close { channel },
            [CLOSE, ..] if closes => return Said::End,
            _ => {}
        }
        let channel = data[0];
        let data = data.split_off(1);
        match self {
            Codec::Raw => Said::Data { channel, data },
            Codec::Base64 => match STANDARD.decode(&data) {
                Ok(data) => Said::Data { channel: channel.wrapping_sub(b'0'), data: data.into() },
                // what is no base64 is passed over
                Err(_) => Said::Nothing,
            },
        }
    }
}

/// The way to a client, for whoever has something to send.
pub(crate) struct Client<IO> {
    sink: Mutex<Sink<IO>>,
    pub codec: Codec,
    pub activity: Activity,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub fn new(sink: Sink<IO>, codec: Codec) -> Self {
        Self { sink: Mutex::new(sink), codec, activity: Activity::default() }
    }

    /// Sends a message; an error says that the client has hung up.
    pub async fn send(&self, channel: u8, data: &[u8]) -> Result<(), Error> {
        let message = self.codec.encode(channel, data);
        let sent = self.sink.lock().await.send(message).await;
        self.activity.touch();
        sent
    }

    pub async fn close(self, source: Source<IO>) {
        close(self.sink.into_inner(), source).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(channel in 0u8..8, data in prop::collection::vec(any::<u8>(), 0..200)) {
            for codec in [Codec::Raw, Codec::Base64] {
                let want = Said::Data { channel, data: data.clone().into() };
                prop_assert_eq!(codec.decode(codec.encode(channel, &data), true), want);
            }
        }

        #[test]
        fn any_message_is_read_without_a_panic(data in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,20}") {
            for (codec, closes) in [(Codec::Raw, true), (Codec::Raw, false), (Codec::Base64, false)] {
                let _ = codec.decode(Message::binary(data.clone()), closes);
                let _ = codec.decode(Message::text(text.clone()), closes);
            }
        }
    }

    #[test]
    fn messages_carry_channels() {
        assert_eq!(Codec::Raw.encode(1, b"\n"), Message::binary(vec![1, 10]));
        assert_eq!(Codec::Base64.encode(1, b"\n"), Message::text("1Cg=="));
        assert_eq!(Codec::Raw.encode(3, b""), Message::binary(vec![3]));
        let data = |channel, data: &'static [u8]| Said::Data { channel, data: Bytes::from_static(data) };
        let cases = [
            (Codec::Raw, Message::binary(vec![0, 102, 255]), data(0, b"f\xff")),
            (Codec::Raw, Message::text("\0foo"), data(0, b"foo")),
            (Codec::Raw, Message::binary(vec![0]), data(0, b"")),
            (Codec::Raw, Message::binary(vec![255, 0]), Said::Close { channel: 0 }),
            (Codec::Raw, Message::binary(vec![255]), Said::End),
            (Codec::Raw, Message::binary(vec![255, 0, 1]), Said::End),
            (Codec::Raw, Message::binary(Vec::new()), Said::Nothing),
            (Codec::Raw, Message::Ping(Bytes::new()), Said::Nothing),
            (Codec::Raw, Message::Close(None), Said::End),
            (Codec::Base64, Message::text("0Zm9vCg=="), data(0, b"foo\n")),
            (Codec::Base64, Message::binary("4e30="), data(4, b"{}")),
            (Codec::Base64, Message::text("0Zm9"), Said::Nothing),
        ];
        for (codec, message, want) in cases {
            assert_eq!(codec.decode(message.clone(), true), want, "{message:?}");
        }
        assert_eq!(Codec::Raw.decode(Message::binary(vec![255, 0]), false), data(255, b"\0"));
    }
}
