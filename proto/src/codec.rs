//! The gRPC codec of `loggregator.v2`: one message in or out, as bytes.
//!
//! What arrives becomes [`Wire`] without a copy; what leaves is written once, straight into the frame. Plain messages go through prost.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::raw::{Outgoing, OutgoingFrame, OutgoingSubscribeFrame};

/// The largest message taken, as every original server has it (contract: loggregator v2 §9.1).
pub const MAX_MESSAGE: usize = 10 * 1024 * 1024;

/// One gRPC message as it stands on the wire: an `Envelope`, an `EnvelopeBatch`, whatever the method says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire(pub Bytes);

/// Writes one message into a gRPC frame.
pub trait Write: Send + 'static {
    /// The bytes that [`Write::write`] will put.
    fn size(&self) -> usize;
    /// Puts the message.
    fn write(&self, into: &mut impl BufMut);
}

/// Reads one message out of a gRPC frame.
pub trait Read: Sized + Send + 'static {
    /// Takes all of `from`.
    ///
    /// # Errors
    /// INTERNAL when the bytes are not such a message.
    fn read(from: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

impl Write for Wire {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn write(&self, into: &mut impl BufMut) {
        into.put_slice(&self.0);
    }
}

impl Read for Wire {
    fn read(from: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Ok(Self(own(from.copy_to_bytes(from.remaining()))))
    }
}

/// Messages up to this size share a receive buffer of several times it with others, and would keep all of it alive.
const SHARED: usize = 8 * 1024;

/// `message` as bytes that keep alive no more than themselves: a copy of a small one, a large one as it is.
pub fn own(message: Bytes) -> Bytes {
    if message.len() < SHARED { Bytes::copy_from_slice(&message) } else { message }
}

impl Write for Outgoing {
    fn size(&self) -> usize {
        self.wire_len()
    }

    fn write(&self, into: &mut impl BufMut) {
        self.put(into);
    }
}

impl Write for OutgoingFrame {
    fn size(&self) -> usize {
        self.wire_len()
    }

    fn write(&self, into: &mut impl BufMut) {
        self.put(into);
    }
}

impl Write for OutgoingSubscribeFrame {
    fn size(&self) -> usize {
        self.wire_len()
    }

    fn write(&self, into: &mut impl BufMut) {
        self.put(into);
    }
}

impl<M: prost::Message + 'static> Write for M {
    fn size(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, into: &mut impl BufMut) {
        self.encode_raw(into);
    }
}

impl<M: prost::Message + Default + 'static> Read for M {
    fn read(from: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        M::decode(from).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The codec: encodes `T`, decodes `U`.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Write, U: Read> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Out<T>;
    type Decoder = In<U>;

    fn encoder(&mut self) -> Out<T> {
        Out(PhantomData)
    }

    fn decoder(&mut self) -> In<U> {
        In(PhantomData)
    }
}

/// A buffer starts at this size, per stream and direction; a frame leaves once it has reached the second.
const BUFFERS: (usize, usize) = (512, 32 * 1024);

/// The encoding half of [`Codec`].
#[derive(Debug)]
pub struct Out<T>(PhantomData<T>);

impl<T: Write> Encoder for Out<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(item.size());
        item.write(into);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFERS.0, BUFFERS.1)
    }
}

/// The decoding half of [`Codec`].
#[derive(Debug)]
pub struct In<U>(PhantomData<U>);

impl<U: Read> Decoder for In<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::read(from).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFERS.0, BUFFERS.1)
    }
}
