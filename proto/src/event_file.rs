//! How records stand in TensorBoard's event files: one behind the other, each framed by its length and masked CRC-32C sums
//! (TensorFlow, "TFRecord and tf.train.Example"). Owns the frame; what a record says is whoever reads or writes it.

/// Length and its sum, in front of a record's data.
pub const HEAD_BYTES: usize = 12;
/// Those, and the sum of the data behind it.
pub const FRAME_BYTES: usize = 16;

/// A record around `data`: length, its sum, data, their sum; all little-endian.
#[must_use]
pub fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + FRAME_BYTES);
    record.extend(length);
    record.extend(sum(&length));
    record.extend(data);
    record.extend(sum(data));
    record
}

/// How many bytes of data stand behind `head`; `None` if it is damaged.
#[must_use]
pub fn data_bytes(head: &[u8; HEAD_BYTES]) -> Option<u64> {
    let (length, told) = head.split_first_chunk::<8>()?;
    (sum(length) == told).then_some(u64::from_le_bytes(*length))
}

/// The sum of `data`, as it stands behind it. Masked, so that a sum over data that holds sums is none of those (as in
/// TensorFlow's `crc32c.h`).
#[must_use]
pub fn sum(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_the_format_says() {
        // CRC-32C of the text "123456789" is e3069283 (RFC 3720 and the catalogue of CRCs).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let record = framed(b"123456789");
        assert_eq!(record.len(), 8 + 4 + 9 + 4);
        assert_eq!(record[..8], 9u64.to_le_bytes());
        // ((sum >> 15 | sum << 17) + a282ead8) mod 2^32, by hand.
        assert_eq!(record[21..], 0xc78a_b0e5u32.to_le_bytes());
        let head: [u8; HEAD_BYTES] = record[..HEAD_BYTES].try_into().unwrap();
        assert_eq!(data_bytes(&head), Some(9));
        assert_eq!(data_bytes(&[7; HEAD_BYTES]), None);
    }
}
