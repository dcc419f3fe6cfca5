//! MessagePack on slices: the few shapes that messages, hellos and versions are made of.
//!
//! Not a general reader: it knows unsigned numbers, texts, bytes, flags, nil and arrays, and how to
//! jump over everything else. Nothing here recurses, and nothing allocates before the bytes that
//! would fill it were seen to be there.

use bytes::Bytes;
use rmp::{
    Marker,
    decode::{self, NumValueReadError, ValueReadError, bytes::BytesReadError},
    encode,
};

use super::DecodeError;

const FITS: &str = "a Vec takes every byte";

pub(crate) fn put_uint(out: &mut Vec<u8>, number: u64) {
    encode::write_uint(out, number).expect(FITS);
}

pub(crate) fn put_bool(out: &mut Vec<u8>, flag: bool) {
    encode::write_bool(out, flag).expect(FITS);
}

pub(crate) fn put_nil(out: &mut Vec<u8>) {
    encode::write_nil(out).expect(FITS);
}

pub(crate) fn put_array(out: &mut Vec<u8>, count: usize) {
    encode::write_array_len(out, short(count)).expect(FITS);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_text_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_text_len(out: &mut Vec<u8>, len: usize) {
    encode::write_str_len(out, short(len)).expect(FITS);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_bytes_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// The head of `len` bytes that the caller appends.
pub(crate) fn put_bytes_len(out: &mut Vec<u8>, len: usize) {
    encode::write_bin_len(out, short(len)).expect(FITS);
}

pub(crate) fn put_optional_bytes(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => put_bytes(out, bytes),
        None => put_nil(out),
    }
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("what goes into a frame is shorter than 4 GiB")
}

/// Reads from the front of a [`Bytes`], which it leaves alone: see [`position`](Self::position).
pub(crate) struct Reader<'a> {
    whole: &'a Bytes,
    rest: decode::Bytes<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(whole: &'a Bytes) -> Self {
        Self { whole, rest: decode::Bytes::new(whole) }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.whole.len() - self.remaining()
    }

    fn remaining(&self) -> usize {
        self.rest.remaining_slice().len()
    }

    pub(crate) fn uint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        decode::read_int(&mut self.rest).map_err(|e| match e {
            NumValueReadError::InvalidMarkerRead(_) | NumValueReadError::InvalidDataRead(_) => {
                DecodeError::Truncated
            }
            NumValueReadError::TypeMismatch(_) | NumValueReadError::OutOfRange => {
                DecodeError::Malformed(field)
            }
        })
    }

    /// A number that fits a smaller type.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        T::try_from(self.uint(field)?).map_err(|_| DecodeError::Malformed(field))
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        decode::read_bool(&mut self.rest).map_err(|e| refused(e, field))
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let len = decode::read_str_len(&mut self.rest).map_err(|e| refused(e, field))?;
        std::str::from_utf8(self.take(len)?).map_err(|_| DecodeError::Malformed(field))
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = decode::read_bin_len(&mut self.rest).map_err(|e| refused(e, field))?;
        self.take(len)
    }

    /// Bytes that share the memory of the whole; `None` for nil.
    pub(crate) fn shared(&mut self, field: &'static str) -> Result<Option<Bytes>, DecodeError> {
        if self.nil() {
            return Ok(None);
        }
        let len = self.bytes(field)?.len();
        let end = self.position();
        Ok(Some(self.whole.slice(end - len..end)))
    }

    /// Whether nil comes next; if so, it is taken.
    pub(crate) fn nil(&mut self) -> bool {
        let is_nil = self.rest.remaining_slice().first() == Some(&Marker::Null.to_u8());
        if is_nil {
            self.rest = decode::Bytes::new(&self.rest.remaining_slice()[1..]);
        }
        is_nil
    }

    /// The head of an array whose length is data: at most `limit` elements, each of which takes
    /// at least `min_bytes`, so that a count which the bytes can't hold is noticed at once.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        limit: usize,
        min_bytes: usize,
    ) -> Result<usize, DecodeError> {
        let count = decode::read_array_len(&mut self.rest).map_err(|e| refused(e, field))? as usize;
        if count > limit {
            return Err(DecodeError::Malformed(field));
        }
        if count.saturating_mul(min_bytes) > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    /// The head of an array that stands for a struct: says how many fields follow the `known`
    /// ones. Give that to [`skip`](Self::skip) after them.
    pub(crate) fn fields(&mut self, field: &'static str, known: usize) -> Result<usize, DecodeError> {
        let count = decode::read_array_len(&mut self.rest).map_err(|e| refused(e, field))? as usize;
        count.checked_sub(known).ok_or(DecodeError::Malformed(field))
    }

    /// Jumps over `values` values of any kind. A counter takes the place of a stack, so depth
    /// costs nothing; every value takes a byte, so the bytes bound the work.
    pub(crate) fn skip(&mut self, values: usize) -> Result<(), DecodeError> {
        let mut pending = values;
        while pending > 0 {
            pending -= 1;
            let (bytes, inner) = self.extent()?;
            self.take(bytes)?;
            pending = pending.saturating_add(inner);
        }
        Ok(())
    }

    /// Takes the head of a value and says how many bytes and how many values belong to it.
    fn extent(&mut self) -> Result<(u32, usize), DecodeError> {
        let marker = Marker::from_u8(self.take(1)?[0]);
        Ok(match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::FixStr(len) => (u32::from(len), 0),
            Marker::Str8 | Marker::Bin8 => (self.len(1)?, 0),
            Marker::Str16 | Marker::Bin16 => (self.len(2)?, 0),
            Marker::Str32 | Marker::Bin32 => (self.len(4)?, 0),
            Marker::Ext8 => (self.len(1)?.saturating_add(1), 0),
            Marker::Ext16 => (self.len(2)?.saturating_add(1), 0),
            Marker::Ext32 => (self.len(4)?.saturating_add(1), 0),
            Marker::FixArray(count) => (0, usize::from(count)),
            Marker::Array16 => (0, self.len(2)? as usize),
            Marker::Array32 => (0, self.len(4)? as usize),
            Marker::FixMap(count) => (0, 2 * usize::from(count)),
            Marker::Map16 => (0, (self.len(2)? as usize).saturating_mul(2)),
            Marker::Map32 => (0, (self.len(4)? as usize).saturating_mul(2)),
            Marker::Reserved => return Err(DecodeError::Malformed("value")),
        })
    }

    /// A big endian length of `width` bytes.
    fn len(&mut self, width: u32) -> Result<u32, DecodeError> {
        Ok(self.take(width)?.iter().fold(0, |len, &byte| (len << 8) | u32::from(byte)))
    }

    fn take(&mut self, len: u32) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.remaining_slice().split_at_checked(len as usize).ok_or(DecodeError::Truncated)?;
        self.rest = decode::Bytes::new(rest);
        Ok(taken)
    }
}

fn refused(error: ValueReadError<BytesReadError>, field: &'static str) -> DecodeError {
    match error {
        ValueReadError::InvalidMarkerRead(_) | ValueReadError::InvalidDataRead(_) => DecodeError::Truncated,
        ValueReadError::TypeMismatch(_) => DecodeError::Malformed(field),
    }
}
