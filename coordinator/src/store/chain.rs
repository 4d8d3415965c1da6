//! Checksums of journal and snapshot rows. Each commit's covers the one before it, so a row that is altered,
//! missing or from elsewhere is found.

use super::Commit;
use spotsweep_engine::Time;
use spotsweep_proto::digest::Digest;

/// The checksum before the first commit.
pub(super) const GENESIS: Digest = Digest([0; 32]);

/// BLAKE3 over everything in a journal row and the checksum before it, lengths fixed by position.
pub(super) fn of_commit(prev: &Digest, commit: &Commit) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"spotsweep journal row 1");
    hasher.update(&prev.0);
    hasher.update(&commit.seq.to_le_bytes());
    hasher.update(&commit.at.0.to_le_bytes());
    hasher.update(&commit.events.to_le_bytes());
    hasher.update(&commit.payload);
    Digest(*hasher.finalize().as_bytes())
}

/// BLAKE3 over a snapshot row; `chain` is the checksum of commit `seq`.
pub(super) fn of_snapshot(seq: u64, at: Time, chain: &Digest, payload: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"spotsweep snapshot row 1");
    hasher.update(&seq.to_le_bytes());
    hasher.update(&at.0.to_le_bytes());
    hasher.update(&chain.0);
    hasher.update(payload);
    Digest(*hasher.finalize().as_bytes())
}

/// Appends a CRC-32 over `key` and what is in `body`, which guards one history row.
pub(super) fn seal(key: &[u64], body: &mut Vec<u8>) {
    let crc = crc(key, body);
    body.extend_from_slice(&crc.to_le_bytes());
}

/// The body without its CRC; `None` if they do not agree.
pub(super) fn unseal<'a>(key: &[u64], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (body, stored) = sealed.split_last_chunk::<4>()?;
    (crc(key, body).to_le_bytes() == *stored).then_some(body)
}

fn crc(key: &[u64], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in key {
        hasher.update(&part.to_le_bytes());
    }
    hasher.update(body);
    hasher.finalize()
}
