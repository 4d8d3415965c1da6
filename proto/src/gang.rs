//! A gang: the ranks that train one trial together, and which shards each carries. Owns the words that engine, agent and
//! trainer share about it; who is in a gang is the engine's decision, and what travels between ranks is c10d's.
//!
//! A gang's make-up is a [`Roster`], numbered by its [`Generation`]. A trial keeps its lease and epoch while its gang
//! changes; each change is a new generation. No rank can finish a step without all others of its generation, so ranks
//! of two generations never mix, and whatever two ranks report of one step is the same.

use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range};

/// Most shards of a trial, and so most ranks of a gang.
pub const SHARDS_PER_TRIAL: u32 = 256;
/// Longest key of a rendezvous store, in bytes.
pub const STORE_KEY_BYTES: usize = 256;
/// Largest value of a rendezvous store, in bytes.
pub const STORE_VALUE_BYTES: usize = 64 << 10;

/// The number of a gang's make-up; grows from 1 with each change under one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which shards each rank carries: rank r those from `starts[r]` up to `starts[r + 1]`, the last up to `shards`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawShares", into = "RawShares")]
pub struct Shares {
    starts: Vec<u32>,
    shards: u32,
}

#[derive(Serialize, Deserialize)]
struct RawShares {
    starts: Vec<u32>,
    shards: u32,
}

impl From<Shares> for RawShares {
    fn from(shares: Shares) -> Self {
        Self { starts: shares.starts, shards: shares.shards }
    }
}

impl TryFrom<RawShares> for Shares {
    type Error = SharesError;

    fn try_from(raw: RawShares) -> Result<Self, SharesError> {
        Self::new(raw.starts, raw.shards)
    }
}

/// What is wrong with a division of shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shards} shards cannot be divided at {starts:?}: ranks begin at 0 and each carries one at least")]
pub struct SharesError {
    starts: Vec<u32>,
    shards: u32,
}

impl Shares {
    /// Ranks that begin at `starts`.
    ///
    /// # Errors
    /// Unless `starts` begins with 0, grows strictly, ends below `shards`, and `shards` ≤ [`SHARDS_PER_TRIAL`].
    pub fn new(starts: Vec<u32>, shards: u32) -> Result<Self, SharesError> {
        let grows = starts.windows(2).all(|pair| pair[0] < pair[1]);
        let ends = starts.last().is_some_and(|last| *last < shards);
        if starts.first() == Some(&0) && grows && ends && shards <= SHARDS_PER_TRIAL {
            Ok(Self { starts, shards })
        } else {
            Err(SharesError { starts, shards })
        }
    }

    /// `ranks` ranks that carry as equal numbers of shards as can be, the larger ones first. At least one rank, and no
    /// more ranks than shards.
    #[must_use]
    pub fn even(shards: u32, ranks: u32) -> Self {
        let shards = shards.clamp(1, SHARDS_PER_TRIAL);
        let ranks = ranks.clamp(1, shards);
        let (each, more) = (shards / ranks, shards % ranks);
        let starts = (0..ranks).map(|rank| rank * each + rank.min(more)).collect();
        Self { starts, shards }
    }

    /// Ranks that carry shards so that the slowest is done as early as can be, where rank r takes `shard_s[r]` seconds for
    /// one: each gets one, and every further one goes to the rank that will be done with it first, the lowest of equals.
    /// That is optimal for tasks of one size on machines of different speeds (Pinedo, Scheduling, ch. 5). Where a number
    /// is no time above 0, all count as equally fast.
    #[must_use]
    pub fn by_pace(shards: u32, shard_s: &[f64]) -> Self {
        let ranks = u32::try_from(shard_s.len()).unwrap_or(SHARDS_PER_TRIAL);
        let even = Self::even(shards, ranks);
        if even.ranks() as usize != shard_s.len() || !shard_s.iter().all(|s| s.is_finite() && *s > 0.0) {
            return even;
        }
        let mut carried = vec![1_u32; shard_s.len()];
        for _ in even.ranks()..even.shards() {
            let done_s = carried.iter().zip(shard_s).map(|(carried, s)| f64::from(carried + 1) * s);
            let first = done_s.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some(more) = first.and_then(|(rank, _)| carried.get_mut(rank)) {
                *more += 1;
            }
        }
        let mut next = 0;
        let starts = carried.iter().map(|carried| {
            next += carried;
            next - carried
        });
        let starts = starts.collect();
        Self { starts, shards: even.shards }
    }

    /// When the last rank is done with its shards, in seconds, where rank r takes `shard_s[r]` for one.
    #[must_use]
    pub fn done_s(&self, shard_s: &[f64]) -> f64 {
        (0..self.ranks()).zip(shard_s).map(|(rank, s)| self.of(rank).len() as f64 * s).fold(0.0, f64::max)
    }

    /// Ranks.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        // At most as many as shards.
        u32::try_from(self.starts.len()).unwrap_or(SHARDS_PER_TRIAL)
    }

    /// All shards together.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// The shards of a rank; empty for one that is not there.
    #[must_use]
    pub fn of(&self, rank: u32) -> Range<u32> {
        let rank = rank as usize;
        let Some(&start) = self.starts.get(rank) else { return 0..0 };
        start..self.starts.get(rank + 1).copied().unwrap_or(self.shards)
    }
}

/// One rank's view of a generation, as its agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Which make-up this is.
    pub generation: Generation,
    /// This process's place in it; `None`: it belongs to the gang no more and leaves at the next step's end.
    pub rank: Option<u32>,
    /// Who carries what.
    pub shares: Shares,
    /// Where this rank listens for its peers: an address of this machine that they reach.
    pub address: String,
    /// Longest wait for a peer in one collective operation, in milliseconds, before the gang counts as broken.
    pub timeout_ms: u64,
}

/// A rank's question to the rendezvous store of its generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum StoreOp {
    /// Keep this value. Answered with an empty value.
    Set {
        /// At most [`STORE_KEY_BYTES`].
        key: String,
        /// At most [`STORE_VALUE_BYTES`].
        value: StoreValue,
    },
    /// Answered with the value as soon as some rank has set it.
    Get {
        /// At most [`STORE_KEY_BYTES`].
        key: String,
    },
}

/// Bytes in a rendezvous store; hex where people read.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StoreValue(pub Vec<u8>);

impl fmt::Debug for StoreValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreValue({} bytes)", self.0.len())
    }
}

impl Serialize for StoreValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use fmt::Write as _;
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for StoreValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("a value of a rendezvous store is hex digits in pairs");
        if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        text.as_bytes()
            .chunks(2)
            .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_the_pace_and_each_rank_carries_one_at_least() {
        let sizes = |shards, shard_s: &[f64]| {
            let shares = Shares::by_pace(shards, shard_s);
            (0..shares.ranks()).map(|rank| shares.of(rank).len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(8, &[1.0, 1.0]), [4, 4]);
        assert_eq!(sizes(8, &[1.0, 3.0]), [6, 2]);
        assert_eq!(sizes(8, &[0.001, 100.0, 0.001]), [4, 1, 3]);
        assert_eq!(sizes(8, &[1.0, f64::NAN]), [4, 4]);
        assert_eq!(sizes(2, &[1.0, 9.0]), [1, 1]);
        assert_eq!(sizes(2, &[1.0, 1.0, 1.0]), [1, 1]);
    }

    proptest! {
        #[test]
        fn no_shares_are_done_earlier_than_those_by_pace(
            shard_s in prop::collection::vec(0.1f64..10.0, 2..=3),
            shards in 3u32..=12,
        ) {
            let chosen = Shares::by_pace(shards, &shard_s);
            let ranks = chosen.ranks();
            let all: Vec<u32> = (0..ranks).flat_map(|rank| chosen.of(rank)).collect();
            prop_assert_eq!(all, (0..shards).collect::<Vec<_>>());
            for first in 1..shards {
                for second in first + 1..=shards {
                    let starts = [0, first, second];
                    let Ok(other) = Shares::new(starts[..ranks as usize].to_vec(), shards) else { continue };
                    prop_assert!(chosen.done_s(&shard_s) <= other.done_s(&shard_s) * (1.0 + 1e-12));
                }
            }
        }

        #[test]
        fn even_shares_cover_every_shard_once_and_differ_by_one_at_most(shards in 1u32..=64, ranks in 1u32..=64) {
            let shares = Shares::even(shards, ranks);
            prop_assert_eq!(shares.ranks(), ranks.min(shards));
            let all: Vec<u32> = (0..shares.ranks()).flat_map(|rank| shares.of(rank)).collect();
            prop_assert_eq!(all, (0..shards).collect::<Vec<_>>());
            let sizes: Vec<usize> = (0..shares.ranks()).map(|rank| shares.of(rank).len()).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            let again: Shares = serde_json::from_str(&serde_json::to_string(&shares).unwrap()).unwrap();
            prop_assert_eq!(again, shares);
        }

        #[test]
        fn values_survive_their_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let value = StoreValue(bytes);
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<StoreValue>(&text).unwrap(), value);
        }
    }

    #[test]
    fn shares_with_a_gap_an_idle_rank_or_too_many_shards_are_refused() {
        for (starts, shards) in
            [(vec![], 4), (vec![1, 2], 4), (vec![0, 2, 2], 4), (vec![0, 4], 4), (vec![0], 257)]
        {
            assert!(Shares::new(starts, shards).is_err());
        }
        assert!(serde_json::from_str::<StoreValue>("\"0g\"").is_err());
        assert!(serde_json::from_str::<StoreValue>("\"abc\"").is_err());
        assert!(serde_json::from_str::<StoreValue>("\"+1\"").is_err());
    }
}
