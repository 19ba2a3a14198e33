//! The protobuf wire format: keys, varints, lengths. Accepts exactly what prost accepts.

use smallvec::SmallVec;

/// Not well-formed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// Groups may nest this deep. Below the hundred that readers allow, so that what passes here passes there.
const GROUPS: usize = 90;

/// The wire types of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WireType {
    /// A variable-length integer.
    Varint = 0,
    /// Eight bytes.
    Fixed64 = 1,
    /// A length, then that many bytes.
    Len = 2,
    /// Fields up to the matching end (deprecated, but readers must skip it).
    StartGroup = 3,
    /// The end of a group.
    EndGroup = 4,
    /// Four bytes.
    Fixed32 = 5,
}

impl WireType {
    fn from_bits(bits: u64) -> Result<Self, Malformed> {
        Ok(match bits {
            0 => Self::Varint,
            1 => Self::Fixed64,
            2 => Self::Len,
            3 => Self::StartGroup,
            4 => Self::EndGroup,
            5 => Self::Fixed32,
            _ => return Err(Malformed("unknown wire type")),
        })
    }
}

/// A position in the fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Starts before the first field of `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { bytes: message, at: 0 }
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// True after the last field.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The field number and wire type of the next field.
    ///
    /// # Errors
    /// A key that is cut short, field number 0, or an unknown wire type.
    #[inline]
    pub fn key(&mut self) -> Result<(u32, WireType), Malformed> {
        let key = self.varint()?;
        if key > u64::from(u32::MAX) {
            return Err(Malformed("field key out of range"));
        }
        let wire_type = WireType::from_bits(key & 7)?;
        let number = (key >> 3) as u32;
        if number == 0 {
            return Err(Malformed("field number 0"));
        }
        Ok((number, wire_type))
    }

    /// A varint of up to 64 bits.
    ///
    /// # Errors
    /// Cut short, or longer than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let mut value = 0_u64;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            if i == 9 && byte > 1 {
                return Err(Malformed("varint over 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(Malformed("varint cut short"))
    }

    /// The bytes of a length-delimited field.
    ///
    /// # Errors
    /// A length that reaches past the end of the message.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed("length out of range"))?;
        let end = self.at.checked_add(len).ok_or(Malformed("length out of range"))?;
        let bytes = self.bytes.get(self.at..end).ok_or(Malformed("length reaches past the end"))?;
        self.at = end;
        Ok(bytes)
    }

    /// Skips `count` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    #[inline]
    pub fn fixed(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let bytes = self.bytes.get(self.at..self.at + count).ok_or(Malformed("fixed-size field cut short"))?;
        self.at += count;
        Ok(bytes)
    }

    /// Skips the value of a field whose key has just been read.
    ///
    /// # Errors
    /// A value that is cut short, or groups that do not match or nest too deep.
    #[inline]
    pub fn skip(&mut self, number: u32, wire_type: WireType) -> Result<(), Malformed> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Len => self.bytes().map(drop),
            WireType::Fixed64 => self.fixed(8).map(drop),
            WireType::Fixed32 => self.fixed(4).map(drop),
            WireType::StartGroup => self.skip_group(number),
            WireType::EndGroup => Err(Malformed("end of a group that never began")),
        }
    }

    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open: SmallVec<[u32; 8]> = SmallVec::new();
        open.push(number);
        while let Some(&innermost) = open.last() {
            let (number, wire_type) = self.key()?;
            match wire_type {
                WireType::StartGroup if open.len() >= GROUPS => return Err(Malformed("groups nested too deep")),
                WireType::StartGroup => open.push(number),
                WireType::EndGroup if number == innermost => drop(open.pop()),
                WireType::EndGroup => return Err(Malformed("end of another group")),
                _ => self.skip(number, wire_type)?,
            }
        }
        Ok(())
    }
}

/// The bytes that `value` takes as a varint.
pub fn varint_len(value: u64) -> usize {
    // 1 byte for each 7 bits begun; zero takes one.
    ((63 - (value | 1).leading_zeros() as usize) * 9 + 73) / 64
}

/// Appends `value` as a varint.
pub fn put_varint(into: &mut impl bytes::BufMut, mut value: u64) {
    while value >= 0x80 {
        into.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    into.put_u8(value as u8);
}

/// Appends a length-delimited field.
pub fn put_bytes(into: &mut impl bytes::BufMut, number: u32, value: &[u8]) {
    put_varint(into, u64::from(number) << 3 | WireType::Len as u64);
    put_varint(into, value.len() as u64);
    into.put_slice(value);
}

/// The bytes that [`put_bytes`] appends for a value of `len` bytes in a field below 16.
pub fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}
