//! The promises of the cache, on small made-up pieces in a store that is a folder.

use super::*;
use spotsweep_proto::{
    checkpoint::object_path,
    datasets::manifest::{DATA_FORMAT, ElementType, LabelType, SampleOrder},
};

/// Bytes of a piece.
const PIECE: usize = 1000;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("store")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        self.path("store").join(object_path(digest))
    }

    fn put(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let path = self.object(&digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        digest
    }

    /// A data set of so many pieces, whose bytes depend on `seed`.
    fn data_set(&self, seed: u8, pieces: u32) -> (Digest, DataManifest) {
        let piece = |first: u32| {
            let content: Vec<u8> = (0..PIECE).map(|i| (i as u8) ^ seed ^ (first as u8) << 3).collect();
            let (part, count) = (DataPart::Train, 1);
            Piece { digest: self.put(&content), bytes: PIECE as u64, part, first, count }
        };
        let manifest = DataManifest {
            format: DATA_FORMAT,
            shape: [1, 1, 1],
            elements: ElementType::U8,
            labels: LabelType::U8,
            mean: vec![0.0],
            std: vec![1.0],
            classes: vec!["a".into()],
            order: SampleOrder::Kept,
            train_samples: pieces,
            test_samples: 0,
            pieces: (0..pieces).map(piece).collect(),
        };
        (self.put(&manifest.encode().0), manifest)
    }

    fn store(&self) -> CheckpointStore {
        CheckpointStore::open(url::Url::from_directory_path(self.path("store")).unwrap().as_str()).unwrap()
    }

    fn cache(&self, pieces: usize) -> Arc<DataCache> {
        Arc::new(DataCache::new(self.path("cache"), (pieces * PIECE) as u64))
    }

    /// Digests in the cache.
    fn cached(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("cache/pieces"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Whether a view holds exactly the pieces at these places, unaltered.
fn assert_holds(view: &View, digest: Digest, manifest: &DataManifest, places: &[usize]) {
    let content = fs::read(view.folder().join(MANIFEST_FILE)).unwrap();
    assert_eq!(DataManifest::decode(&content, digest).unwrap(), *manifest);
    for (place, piece) in manifest.pieces.iter().enumerate() {
        let found = fs::read(view.folder().join(piece.digest.to_string())).ok();
        assert_eq!(found.is_some(), places.contains(&place), "{place}");
        assert!(found.is_none_or(|content| Digest::of(&content) == piece.digest));
    }
}

#[tokio::test]
async fn a_data_set_comes_whole_or_as_far_as_the_shards_need_it() {
    let bench = Bench::new();
    let (digest, manifest) = bench.data_set(1, 8);
    let (store, cache) = (bench.store(), bench.cache(100));
    let shards = Shards { carried: vec![0..1, 3..4], of: 4 };
    let view = cache.acquire(&store, digest, Some(&shards)).await.unwrap();
    assert_holds(&view, digest, &manifest, &[0, 1, 6, 7]);
    let whole = cache.acquire(&store, digest, None).await.unwrap();
    assert_holds(&whole, digest, &manifest, &[0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(view.folder(), whole.folder(), "a trainer that has it in memory knows it again");
}

#[tokio::test]
async fn two_agents_share_a_cache_and_what_one_has_fetched_the_other_does_not_fetch() {
    let bench = Bench::new();
    let (digest, manifest) = bench.data_set(1, 3);
    let (first, second) = (bench.cache(100), bench.cache(100));
    let store = bench.store();
    let view = first.acquire(&store, digest, None).await.unwrap();
    for piece in &manifest.pieces {
        fs::remove_file(bench.object(&piece.digest)).unwrap();
    }
    let other = second.acquire(&store, digest, None).await.unwrap();
    assert_holds(&other, digest, &manifest, &[0, 1, 2]);
    assert_ne!(view.folder(), other.folder());
    let folder = view.folder().to_owned();
    drop((view, first));
    assert!(!folder.exists(), "an agent that leaves takes its folder with it");
    assert_holds(&other, digest, &manifest, &[0, 1, 2]);
    assert_eq!(bench.cached().len(), 3);
}

#[tokio::test]
async fn many_agents_at_once_end_with_one_copy() {
    let bench = Bench::new();
    let (digest, manifest) = bench.data_set(1, 5);
    let store = Arc::new(bench.store());
    let agents: Vec<_> = (0..6)
        .map(|_| {
            let (cache, store) = (bench.cache(5), Arc::clone(&store));
            tokio::spawn(async move { cache.acquire(&store, digest, None).await })
        })
        .collect();
    let mut views = Vec::new();
    for agent in agents {
        views.push(agent.await.unwrap().unwrap());
    }
    views.iter().for_each(|view| assert_holds(view, digest, &manifest, &[0, 1, 2, 3, 4]));
    assert_eq!(bench.cached().len(), 5);
}

#[tokio::test]
async fn the_limit_holds_and_what_is_in_use_is_never_evicted() {
    let bench = Bench::new();
    let (one, one_manifest) = bench.data_set(1, 3);
    let (two, two_manifest) = bench.data_set(2, 3);
    let (store, cache) = (bench.store(), bench.cache(5));
    let in_use = cache.acquire(&store, one, None).await.unwrap();
    let error = cache.acquire(&store, two, None).await.unwrap_err();
    assert!(matches!(error, CacheError::Full { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Storage);
    assert!(error.to_string().contains("--data-cache-bytes"), "{error}");
    assert_holds(&in_use, one, &one_manifest, &[0, 1, 2]);
    assert!(bench.cached().len() <= 5);
    // Another agent may not take it away either.
    assert!(bench.cache(5).acquire(&store, two, None).await.is_err());
    drop(in_use);
    let view = cache.acquire(&store, two, None).await.unwrap();
    assert_holds(&view, two, &two_manifest, &[0, 1, 2]);
    assert!(bench.cached().len() <= 5, "{:?}", bench.cached());
    let too_small = bench.cache(2).acquire(&store, one, None).await.unwrap_err();
    assert!(matches!(too_small, CacheError::Full { .. }), "{too_small}");
}

#[tokio::test]
async fn what_was_asked_for_longest_ago_goes_first() {
    let bench = Bench::new();
    let store = bench.store();
    let (old, _) = bench.data_set(1, 2);
    let (new, new_manifest) = bench.data_set(2, 2);
    let (next, _) = bench.data_set(3, 2);
    for digest in [old, new] {
        drop(bench.cache(4).acquire(&store, digest, None).await.unwrap());
    }
    // The clock of a file system is coarse, so the ages are set.
    for piece in &new_manifest.pieces {
        let file = File::open(bench.path("cache/pieces").join(piece.digest.to_string())).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    }
    drop(bench.cache(4).acquire(&store, next, None).await.unwrap());
    let kept = bench.cached();
    assert_eq!(kept.len(), 4);
    assert!(new_manifest.pieces.iter().all(|piece| kept.contains(&piece.digest.to_string())));
}

#[tokio::test]
async fn a_piece_that_is_altered_or_missing_in_the_store_is_named() {
    let bench = Bench::new();
    let (digest, manifest) = bench.data_set(1, 3);
    let object = bench.object(&manifest.pieces[1].digest);
    let whole = fs::read(&object).unwrap();
    let mut altered = whole.clone();
    altered[7] ^= 1;
    for content in [Some(altered), Some(whole[1..].to_vec()), Some(Vec::new()), None] {
        match content {
            Some(content) => fs::write(&object, content).unwrap(),
            None => fs::remove_file(&object).unwrap(),
        }
        let error = bench.cache(100).acquire(&bench.store(), digest, None).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::Data, "{error}");
        let expected = format!(
            "piece 1 of the data set (training samples 1 to 1, object {})",
            manifest.pieces[1].digest
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!bench.cached().contains(&manifest.pieces[1].digest.to_string()));
    }
    fs::write(&object, whole).unwrap();
    bench.cache(100).acquire(&bench.store(), digest, None).await.unwrap();
    let (gone, _) = (Digest::of(b"no manifest"), ());
    assert_eq!(
        bench.cache(100).acquire(&bench.store(), gone, None).await.unwrap_err().kind(),
        FailureKind::Data
    );
    fs::write(bench.object(&digest), "altered").unwrap();
    assert_eq!(
        bench.cache(100).acquire(&bench.store(), digest, None).await.unwrap_err().kind(),
        FailureKind::Data
    );
}

#[tokio::test]
async fn a_piece_that_was_altered_in_the_cache_is_fetched_anew() {
    let bench = Bench::new();
    let (digest, manifest) = bench.data_set(1, 2);
    let store = bench.store();
    let cache = bench.cache(100);
    let view = cache.acquire(&store, digest, None).await.unwrap();
    let linked = view.folder().join(manifest.pieces[0].digest.to_string());
    fs::write(&linked, "altered").unwrap();
    // The trainer has found it, and the agent tells the cache.
    view.distrust();
    drop(view);
    let view = cache.acquire(&store, digest, None).await.unwrap();
    assert_holds(&view, digest, &manifest, &[0, 1]);
    drop((view, cache));
    fs::write(bench.path("cache/pieces").join(manifest.pieces[1].digest.to_string()), "altered").unwrap();
    let view = bench.cache(100).acquire(&store, digest, None).await.unwrap();
    assert_holds(&view, digest, &manifest, &[0, 1]);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_removed_and_its_pieces_can_be_evicted() {
    let bench = Bench::new();
    let (one, manifest) = bench.data_set(1, 2);
    let (two, _) = bench.data_set(2, 2);
    let store = bench.store();
    drop(bench.cache(2).acquire(&store, one, None).await.unwrap());
    let left = bench.path("cache/agents/agent-dead");
    fs::create_dir_all(left.join("x")).unwrap();
    fs::write(left.join("lock"), "").unwrap();
    let piece = manifest.pieces[0].digest.to_string();
    fs::hard_link(bench.path("cache/pieces").join(&piece), left.join("x").join(&piece)).unwrap();
    bench.cache(2).acquire(&store, two, None).await.unwrap();
    assert!(!left.exists() && bench.cached().len() == 2);
}
