//! The rules of manifests and shards.

use super::*;
use proptest::prelude::*;

/// Pieces of `per_piece` samples.
pub(super) fn manifest(train: u32, test: u32, per_piece: u32) -> DataManifest {
    let mut pieces = Vec::new();
    for (part, samples) in [(DataPart::Train, train), (DataPart::Test, test)] {
        for first in (0..samples).step_by(per_piece as usize) {
            let count = per_piece.min(samples - first);
            let digest = Digest::of(format!("{part:?} {first}").as_bytes());
            pieces.push(Piece { digest, bytes: 100, part, first, count });
        }
    }
    DataManifest {
        format: DATA_FORMAT,
        shape: [1, 2, 3],
        elements: ElementType::U8,
        labels: LabelType::U8,
        mean: vec![0.5],
        std: vec![0.25],
        classes: vec!["a".to_owned(), "b".to_owned()],
        order: SampleOrder::Kept,
        train_samples: train,
        test_samples: test,
        pieces,
    }
}

#[test]
fn a_manifest_is_read_back_and_one_with_a_bit_changed_is_refused() {
    let manifest = manifest(10, 3, 4);
    let (bytes, digest) = manifest.encode();
    assert_eq!(DataManifest::decode(&bytes, digest).unwrap(), manifest);
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let error = DataManifest::decode(&altered, digest).unwrap_err();
        assert!(matches!(error, DataManifestError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    type Change = fn(&mut DataManifest);
    let changes: [(&str, Change); 16] = [
        ("format", |m| m.format = 2),
        ("shape", |m| m.shape = [1, 0, 3]),
        ("huge shape", |m| m.shape = [u32::MAX; 3]),
        ("means", |m| m.mean = vec![0.1, 0.2]),
        ("nan", |m| m.mean = vec![f64::NAN]),
        ("std", |m| m.std = vec![0.0]),
        ("no classes", |m| m.classes.clear()),
        ("class name", |m| m.classes[0] = "a\u{1b}[31m".to_owned()),
        ("label type", |m| m.labels = LabelType::U16),
        ("no samples", |m| m.train_samples = 0),
        ("gap", |m| {
            m.pieces.remove(1);
        }),
        ("missing end", |m| {
            m.pieces.pop();
        }),
        ("swapped", |m| m.pieces.swap(0, 1)),
        ("empty piece", |m| m.pieces[0].count = 0),
        ("overflow", |m| m.pieces[0].count = u32::MAX),
        ("bytes", |m| m.pieces[0].bytes = PIECE_BYTES + 1),
    ];
    manifest(10, 3, 4).check().unwrap();
    manifest(10, 0, 4).check().unwrap();
    for (what, change) in changes {
        let mut manifest = manifest(10, 3, 4);
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        assert!(DataManifest::decode(&bytes, Digest::of(&bytes)).is_err(), "{what}");
    }
}

proptest! {
    #[test]
    fn shards_share_out_every_sample_once(samples in 0u32..5000, of in 1u32..200) {
        let mut next = 0;
        for shard in 0..of {
            let owned = shard_samples(samples, shard, of);
            prop_assert_eq!(owned.start, next);
            prop_assert!(owned.len() as u64 <= u64::from(samples).div_ceil(u64::from(of)));
            next = owned.end;
        }
        prop_assert_eq!(next, samples);
        prop_assert!(shard_samples(samples, of, of).is_empty());
    }

    #[test]
    fn the_pieces_of_shards_are_exactly_those_that_hold_one_of_their_samples(
        train in 1u32..400, test in 0u32..100, per_piece in 1u32..60, of in 1u32..40,
        ranges in prop::collection::vec((0u32..45, 0u32..10), 0..4),
    ) {
        let manifest = manifest(train, test, per_piece);
        let shards: Vec<Range<u32>> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
        let found = pieces_for(&manifest, &shards, of);
        for (place, piece) in manifest.pieces.iter().enumerate() {
            let samples = manifest.samples(piece.part);
            let owned = |sample: u32| {
                shards.iter().flat_map(Clone::clone).any(|s| shard_samples(samples, s, of).contains(&sample))
            };
            prop_assert_eq!(found.contains(&place), piece.samples().any(owned), "piece {}", place);
        }
        prop_assert!(found.is_sorted());
    }

    #[test]
    fn whatever_bytes_come_as_a_manifest_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _outcome = DataManifest::decode(&bytes, Digest::of(&bytes));
    }

    #[test]
    fn extreme_numbers_in_a_manifest_never_panic(first: u32, count: u32, train: u32, test: u32, of: u32, shard: u32) {
        let mut manifest = manifest(10, 3, 4);
        (manifest.train_samples, manifest.test_samples) = (train, test);
        manifest.pieces[1].first = first;
        manifest.pieces[1].count = count;
        let _outcome = manifest.check();
        let _pieces = pieces_for(&manifest, std::slice::from_ref(&(shard..u32::MAX)), of);
    }
}
