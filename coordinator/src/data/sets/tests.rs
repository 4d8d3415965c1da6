//! The promises of adding and keeping data sets.

use super::*;
use crate::data::{SourceOptions, source::tests as made};
use safetensors::SafeTensors;
use spotsweep_proto::datasets::manifest::{DataPart, ElementType, IMAGES, LABELS, SampleOrder};
use std::{fs, path::Path};

/// Samples whose images tell their places: of 2×2 pixels, in ten classes.
fn idx_folder(folder: &Path, samples: u32, label: impl Fn(u32) -> u8) {
    let pixels: Vec<u8> = (0..samples).flat_map(|i| i.to_le_bytes()).collect();
    let labels: Vec<u8> = (0..samples).map(label).collect();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("train-images-idx3-ubyte"), made::idx(&[samples, 2, 2], &pixels)).unwrap();
    fs::write(folder.join("train-labels-idx1-ubyte"), made::idx(&[samples], &labels)).unwrap();
}

fn mixed(place: u32) -> u8 {
    (place.wrapping_mul(2_654_435_761) >> 20) as u8 % 10
}

fn options(name: &str, path: &Path) -> AddOptions {
    AddOptions {
        name: set_name(name).unwrap(),
        path: path.to_owned(),
        source: SourceOptions::default(),
        order: OrderChoice::Auto,
        test_fraction: None,
        replace: false,
    }
}

struct Bench {
    folder: tempfile::TempDir,
    store: SetStore,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SetStore::open(folder.path().join("store").to_str().unwrap()).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn add(&self, options: AddOptions) -> Result<Added, SetError> {
        add(&self.store, options, &mut |_| {}).await
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        self.path("store").join(object_path(digest))
    }

    /// All samples of a part, by the places that their images tell, with their labels.
    fn samples(&self, manifest: &DataManifest, part: DataPart) -> Vec<(u32, u8)> {
        let mut samples = Vec::new();
        for piece in manifest.pieces.iter().filter(|piece| piece.part == part) {
            let content = fs::read(self.object(&piece.digest)).unwrap();
            let tensors = SafeTensors::deserialize(&content).unwrap();
            let images = tensors.tensor(IMAGES).unwrap();
            let labels = tensors.tensor(LABELS).unwrap();
            assert_eq!(images.shape(), [piece.count as usize, 1, 2, 2]);
            let places = images.data().as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four));
            samples.extend(places.zip(labels.data().iter().copied()));
        }
        samples
    }
}

#[tokio::test]
async fn a_data_set_is_stored_in_the_sources_order_and_a_tenth_is_held_out() {
    let bench = Bench::new();
    idx_folder(&bench.path("idx"), 1000, mixed);
    let added = bench.add(options("mine", &bench.path("idx"))).await.unwrap();
    assert_eq!(added.registered, Registered::New);
    let manifest = &added.manifest;
    assert_eq!(
        (manifest.train_samples, manifest.test_samples, manifest.order),
        (900, 100, SampleOrder::Kept)
    );
    assert_eq!((manifest.elements, manifest.classes.len()), (ElementType::U8, 10));
    let (train, test) = (bench.samples(manifest, DataPart::Train), bench.samples(manifest, DataPart::Test));
    assert!(train.is_sorted() && test.is_sorted());
    let mut all = [train, test].concat();
    all.sort_unstable();
    assert_eq!(all, (0..1000).map(|i| (i, mixed(i))).collect::<Vec<_>>());
    assert_eq!(bench.store.find(&set_name("mine").unwrap()).await.unwrap(), Some(added.digest));
    assert_eq!(bench.store.verify(added.digest, |_| {}).await.unwrap(), *manifest);
}

#[tokio::test]
async fn a_source_grouped_by_class_is_stored_shuffled_and_the_same_way_each_time() {
    let bench = Bench::new();
    idx_folder(&bench.path("idx"), 1000, |place| (place / 100) as u8);
    let added = bench.add(options("mine", &bench.path("idx"))).await.unwrap();
    assert_eq!(added.manifest.order, SampleOrder::Shuffled);
    let train = bench.samples(&added.manifest, DataPart::Train);
    assert!(
        train.iter().all(|(place, label)| place / 100 == u32::from(*label)),
        "labels go with their images"
    );
    for range in train.chunks(100) {
        let mut classes: Vec<u8> = range.iter().map(|sample| sample.1).collect();
        classes.sort_unstable();
        classes.dedup();
        assert!(classes.len() >= 8, "every range holds nearly all classes: {classes:?}");
    }
    let again = bench.add(options("again", &bench.path("idx"))).await.unwrap();
    assert_eq!((again.digest, again.new_objects), (added.digest, 0), "what is stored is not stored again");
    let kept = AddOptions { order: OrderChoice::Kept, ..options("kept", &bench.path("idx")) };
    assert_eq!(bench.add(kept).await.unwrap().manifest.order, SampleOrder::Kept);
}

#[tokio::test]
async fn a_name_is_given_to_other_content_only_if_so_asked() {
    let bench = Bench::new();
    idx_folder(&bench.path("one"), 100, mixed);
    idx_folder(&bench.path("two"), 200, mixed);
    let one = bench.add(options("mine", &bench.path("one"))).await.unwrap();
    assert_eq!(bench.add(options("mine", &bench.path("one"))).await.unwrap().registered, Registered::Same);
    let error = bench.add(options("mine", &bench.path("two"))).await.unwrap_err();
    assert!(matches!(error, SetError::Exists { manifest, .. } if manifest == one.digest), "{error}");
    let replace = AddOptions { replace: true, ..options("mine", &bench.path("two")) };
    let two = bench.add(replace).await.unwrap();
    assert_eq!(two.registered, Registered::Replaced(one.digest));
    let asked = "mine".parse().unwrap();
    assert_eq!(bench.store.look_up(&asked).await.unwrap().0, two.digest);
    // Who has the digest does not need the name.
    let by_digest = format!("blake3:{}", one.digest).parse().unwrap();
    assert_eq!(bench.store.look_up(&by_digest).await.unwrap().1, one.manifest);
    let known =
        bench.store.known(&BTreeSet::from([asked, by_digest, "mime".parse().unwrap()])).await.unwrap();
    assert_eq!(known.find("mine").unwrap().unwrap().name.as_str(), format!("mine@blake3:{}", two.digest));
    assert_eq!(known.find("mime").unwrap_err().hint.as_deref(), Some("did you mean mine?"));
}

#[tokio::test]
async fn a_piece_that_is_altered_or_gone_is_named_and_adding_again_mends_it() {
    let bench = Bench::new();
    idx_folder(&bench.path("idx"), 1000, mixed);
    let added = bench.add(options("mine", &bench.path("idx"))).await.unwrap();
    let piece = bench.object(&added.manifest.pieces[1].digest);
    let whole = fs::read(&piece).unwrap();
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    for content in [Some(altered), Some(whole[1..].to_vec()), None] {
        match content {
            Some(content) => fs::write(&piece, content).unwrap(),
            None => fs::remove_file(&piece).unwrap(),
        }
        let error = bench.store.verify(added.digest, |_| {}).await.unwrap_err().to_string();
        assert!(error.starts_with("piece 1 (test part, samples 0 to 99; object "), "{error}");
        let mended = bench.add(options("mine", &bench.path("idx"))).await.unwrap();
        assert_eq!((mended.digest, mended.new_objects), (added.digest, 1));
        assert_eq!(fs::read(&piece).unwrap(), whole);
    }
    let manifest = bench.object(&added.digest);
    let mut content = fs::read(&manifest).unwrap();
    content[20] ^= 1;
    fs::write(&manifest, content).unwrap();
    assert!(matches!(bench.store.verify(added.digest, |_| {}).await, Err(SetError::Manifest(_))));
}

#[tokio::test]
async fn an_interrupted_addition_leaves_no_name_and_is_not_begun_anew() {
    let bench = Bench::new();
    // Samples of 1 MiB: sixteen to a piece.
    let samples = 40usize;
    let pixels: Vec<u8> = (0..samples << 20).map(|i| (i / 7 % 251) as u8).collect();
    let labels: Vec<u8> = (0..samples).map(|i| (i * 7 % 3) as u8).collect();
    fs::write(bench.path("x.npy"), made::npy("|u1", "(40, 1, 1024, 1024)", &pixels)).unwrap();
    fs::write(bench.path("y.npy"), made::npy("|u1", "(40,)", &labels)).unwrap();
    let mut options = options("large", &bench.path("x.npy"));
    options.source.labels = Some(bench.path("y.npy"));
    let (stored, first) = tokio::sync::oneshot::channel();
    let mut stored = Some(stored);
    let mut step = move |step: Step| {
        if let Step::Stored(_) = step
            && let Some(stored) = stored.take()
        {
            let _told = stored.send(());
        }
    };
    tokio::select! {
        biased;
        _ = first => {}
        _ = add(&bench.store, options.clone(), &mut step) => {}
    }
    assert!(bench.store.names().await.unwrap().is_empty());
    let added = bench.add(options).await.unwrap();
    assert!(added.manifest.pieces.len() == 4 && added.new_objects < 5, "{}", added.new_objects);
}

#[tokio::test]
async fn two_that_add_the_same_at_once_both_end_with_whole_pieces_and_nothing_else_stays() {
    let bench = Bench::new();
    idx_folder(&bench.path("idx"), 1000, mixed);
    let (one, two) = tokio::join!(
        bench.add(options("one", &bench.path("idx"))),
        bench.add(options("two", &bench.path("idx")))
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.digest, two.digest);
    bench.store.verify(one.digest, |_| {}).await.unwrap();
    let mut objects = 0;
    for folder in fs::read_dir(bench.path("store")).unwrap().map(|entry| entry.unwrap()) {
        if folder.file_name() != NAMES {
            objects += fs::read_dir(folder.path()).unwrap().count();
        }
    }
    assert_eq!(objects, one.manifest.pieces.len() + 1, "pieces and the manifest");
}

#[tokio::test]
async fn a_removed_name_leaves_its_pieces_unless_they_are_purged_and_nobody_else_has_them() {
    let bench = Bench::new();
    idx_folder(&bench.path("idx"), 100, mixed);
    let added = bench.add(options("one", &bench.path("idx"))).await.unwrap();
    bench.add(options("two", &bench.path("idx"))).await.unwrap();
    let (one, two) = (set_name("one").unwrap(), set_name("two").unwrap());
    assert_eq!(bench.store.remove(&one, true).await.unwrap(), 0, "the other name has them");
    assert!(matches!(bench.store.remove(&one, false).await, Err(SetError::Unknown { .. })));
    bench.store.verify(added.digest, |_| {}).await.unwrap();
    assert_eq!(bench.store.remove(&two, false).await.unwrap(), 0);
    bench.store.verify(added.digest, |_| {}).await.unwrap();
    bench.add(options("two", &bench.path("idx"))).await.unwrap();
    assert_eq!(bench.store.remove(&two, true).await.unwrap(), 3);
    assert!(bench.store.verify(added.digest, |_| {}).await.is_err());
    assert!(bench.store.names().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_number_that_is_none_is_refused_with_its_sample_and_nothing_is_named() {
    let bench = Bench::new();
    let numbers: Vec<u8> = [1.0f32, 2.0, f32::NAN, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(bench.path("x.npy"), made::npy("<f4", "(4, 1)", &numbers)).unwrap();
    fs::write(bench.path("y.npy"), made::npy("|u1", "(4,)", &[0, 1, 0, 1])).unwrap();
    let mut options = options("mine", &bench.path("x.npy"));
    options.source.labels = Some(bench.path("y.npy"));
    let error = bench.add(options).await.unwrap_err().to_string();
    assert!(error.contains("sample 2 holds a number that is NaN"), "{error}");
    assert!(bench.store.names().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_entry_that_is_no_entry_is_told_and_strange_files_are_no_names() {
    let bench = Bench::new();
    let names = bench.path("store/data");
    fs::create_dir_all(&names).unwrap();
    for (file, content) in
        [("a.json", "{}"), ("-b.json", "x"), ("mnist.json", "x"), ("c.txt", "x"), ("d e.json", "x")]
    {
        fs::write(names.join(file), content).unwrap();
    }
    fs::write(names.join("big.json"), vec![b' '; 1 << 20]).unwrap();
    let listed: Vec<String> = bench.store.names().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["a", "big"]);
    for name in ["a", "big"] {
        let error = bench.store.find(&set_name(name).unwrap()).await.unwrap_err();
        assert!(matches!(error, SetError::Entry { .. }), "{error}");
    }
    idx_folder(&bench.path("idx"), 100, mixed);
    assert!(bench.add(options("a", &bench.path("idx"))).await.is_err());
    let replace = AddOptions { replace: true, ..options("a", &bench.path("idx")) };
    bench.add(replace).await.unwrap();
}

#[test]
fn a_place_that_is_no_store_is_refused_and_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a b/c");
    assert!(SetStore::existing(place.to_str().unwrap()).unwrap().is_none());
    let store = SetStore::open(place.to_str().unwrap()).unwrap();
    assert!(place.is_dir() && store.url().ends_with("/a%20b/c/"), "{}", store.url());
    assert_eq!(SetStore::open(store.url()).unwrap().url(), store.url());
    for place in ["ftp://x/y", "s3://bucket", "nonsense://"] {
        assert!(matches!(SetStore::open(place), Err(SetError::Place { .. })), "{place}");
    }
}
