//! Stand-ins for content: digests and numbers that are a function of what they are of, without any hashing.

use spotsweep_proto::digest::Digest;

/// The digest of content that is a function of a kind and two numbers.
pub(crate) fn content(kind: u64, a: u64, b: u64) -> Digest {
    let mut bytes = [0; 32];
    let seed = mixed(mixed(kind.wrapping_add(a << 8)).wrapping_add(b));
    for (place, chunk) in (0u64..).zip(bytes.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&mixed(seed.wrapping_add(place)).to_le_bytes());
    }
    Digest(bytes)
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
