//! Data sets that users have added: a manifest and pieces, in the folder that the agent gives, read shard by shard.
//!
//! Format: `spotsweep_proto::datasets::manifest`. The job names the manifest by its digest, the manifest names the
//! pieces by theirs: nothing is believed that has another content, shape or place than it should.

use super::RawSamples;
use crate::error::TrainError;
use safetensors::{Dtype, SafeTensors};
use spotsweep_proto::{
    datasets::manifest::{
        DATA_MANIFEST_BYTES, DataManifest, DataPart, ElementType, IMAGES, LABELS, LabelType, MANIFEST_FILE,
        Piece, pieces_for, shard_samples,
    },
    digest::Digest,
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// An added data set in a folder: its manifest, believed, and its pieces, of which some may not be there yet.
#[derive(Debug, Clone)]
pub struct Pieces {
    folder: PathBuf,
    manifest: Arc<DataManifest>,
}

/// The samples of one shard as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSamples {
    /// Its number.
    pub shard: u32,
    /// Those of the training set, held-out ones included.
    pub train: RawSamples,
    /// Those of the test set.
    pub test: RawSamples,
}

impl Pieces {
    /// The data set in `folder` whose manifest has the digest `wanted`.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the manifest is missing, altered or senseless.
    pub fn open(folder: &Path, wanted: Digest) -> Result<Self, TrainError> {
        let path = folder.join(MANIFEST_FILE);
        let fail = |problem: String| TrainError::Data { path: path.clone(), problem };
        let bytes = read_file(&path, DATA_MANIFEST_BYTES as u64).map_err(fail)?;
        let manifest = DataManifest::decode(&bytes, wanted).map_err(|error| fail(error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), manifest: Arc::new(manifest) })
    }

    /// Where they lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What they are.
    #[must_use]
    pub fn manifest(&self) -> &DataManifest {
        &self.manifest
    }

    /// Reads the samples of `shards` out of `of`, and no piece that has none of them. Each piece is read once.
    ///
    /// # Errors
    /// [`TrainError::Data`] names the piece that is missing, cut short, altered or mixed up with another.
    pub fn read(&self, shards: &BTreeSet<u32>, of: u32) -> Result<Vec<ShardSamples>, TrainError> {
        let none = || RawSamples { images: Vec::new(), labels: Vec::new() };
        let all = shards.iter().map(|&shard| ShardSamples { shard, train: none(), test: none() });
        let mut all: Vec<ShardSamples> = all.collect();
        let ranges: Vec<_> = shards.iter().map(|&shard| shard..shard.saturating_add(1)).collect();
        for place in pieces_for(&self.manifest, &ranges, of) {
            let piece = &self.manifest.pieces[place];
            let path = self.folder.join(piece.digest.to_string());
            take(&path, &self.manifest, piece, of, &mut all).map_err(|problem| {
                let last = piece.samples().end.saturating_sub(1);
                let which = match piece.part {
                    DataPart::Train => "training",
                    DataPart::Test => "test",
                };
                let problem = format!("piece {place} ({which} samples {} to {last}) {problem}", piece.first);
                TrainError::Data { path, problem }
            })?;
        }
        Ok(all)
    }
}

/// Appends the samples of one piece to the shards out of `of` that own them.
fn take(
    path: &Path,
    manifest: &DataManifest,
    piece: &Piece,
    of: u32,
    into: &mut [ShardSamples],
) -> Result<(), String> {
    let bytes = read_file(path, piece.bytes)?;
    if bytes.len() as u64 != piece.bytes {
        return Err(format!("has {} bytes instead of {}", bytes.len(), piece.bytes));
    }
    let found = Digest::of(&bytes);
    if found != piece.digest {
        return Err(format!("is altered: its content has the digest {found}"));
    }
    let tensors =
        SafeTensors::deserialize(&bytes).map_err(|error| format!("is no safetensors file: {error}"))?;
    let tensor = |name: &str| tensors.tensor(name).map_err(|_| format!("has no tensor {name}"));
    let [channels, height, width] = manifest.shape.map(|n| n as usize);
    let count = piece.count as usize;
    let images = tensor(IMAGES)?;
    let dtype = match manifest.elements {
        ElementType::U8 => Dtype::U8,
        ElementType::F32 => Dtype::F32,
    };
    if images.dtype() != dtype || images.shape() != [count, channels, height, width] {
        let (dtype, shape) = (images.dtype(), images.shape());
        return Err(format!("holds images of {dtype:?} {shape:?}, which is not what the manifest says"));
    }
    let labels = tensor(LABELS)?;
    let label_type = match manifest.labels {
        LabelType::U8 => Dtype::U8,
        LabelType::U16 => Dtype::U16,
    };
    if labels.dtype() != label_type || labels.shape() != [count] {
        let (dtype, shape) = (labels.dtype(), labels.shape());
        return Err(format!("holds labels of {dtype:?} {shape:?}, which is not what the manifest says"));
    }
    let labels: Vec<u16> = match manifest.labels {
        LabelType::U8 => labels.data().iter().map(|&label| label.into()).collect(),
        LabelType::U16 => {
            labels.data().as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two)).collect()
        }
    };
    if let Some(label) = labels.iter().find(|&&label| usize::from(label) >= manifest.classes.len()) {
        return Err(format!("holds the label {label}, and there are {} classes", manifest.classes.len()));
    }
    let sample_bytes = images.data().len() / count.max(1);
    for shard in into {
        let own = shard_samples(manifest.samples(piece.part), shard.shard, of);
        let start = own.start.clamp(piece.samples().start, piece.samples().end) - piece.first;
        let end = own.end.clamp(piece.samples().start, piece.samples().end) - piece.first;
        let (start, end) = (start as usize, end as usize);
        let part = match piece.part {
            DataPart::Train => &mut shard.train,
            DataPart::Test => &mut shard.test,
        };
        part.images.extend_from_slice(&images.data()[start * sample_bytes..end * sample_bytes]);
        part.labels.extend_from_slice(&labels[start..end]);
    }
    Ok(())
}

/// A file's bytes, at most one more than `limit`.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("is missing".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;
    use spotsweep_proto::datasets::manifest::{DATA_FORMAT, SampleOrder};
    use std::fs;

    /// Two pieces to train and one to test on, of u8 or f32.
    fn folder(elements: ElementType) -> (tempfile::TempDir, DataManifest, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let mut pieces = Vec::new();
        for (part, first, count) in [(DataPart::Train, 0, 3), (DataPart::Train, 3, 2), (DataPart::Test, 0, 2)]
        {
            let content = piece(elements, first, count);
            let digest = Digest::of(&content);
            fs::write(folder.path().join(digest.to_string()), &content).unwrap();
            pieces.push(Piece { digest, bytes: content.len() as u64, part, first, count });
        }
        let manifest = DataManifest {
            format: DATA_FORMAT,
            shape: [1, 1, 2],
            elements,
            labels: LabelType::U8,
            mean: vec![0.5, 0.25],
            std: vec![0.5, 2.0],
            classes: vec!["a".into(), "b".into(), "c".into()],
            order: SampleOrder::Kept,
            train_samples: 5,
            test_samples: 2,
            pieces,
        };
        let digest = save(folder.path(), &manifest);
        (folder, manifest, digest)
    }

    fn save(folder: &Path, manifest: &DataManifest) -> Digest {
        let (bytes, digest) = manifest.encode();
        fs::write(folder.join(MANIFEST_FILE), bytes).unwrap();
        digest
    }

    fn piece(elements: ElementType, first: u32, count: u32) -> Vec<u8> {
        let values = (first * 2..(first + count) * 2).map(|x| x as u8);
        let (dtype, images): (_, Vec<u8>) = match elements {
            ElementType::U8 => (Dtype::U8, values.collect()),
            ElementType::F32 => (Dtype::F32, values.flat_map(|x| f32::from(x).to_le_bytes()).collect()),
        };
        let labels: Vec<u8> = (first..first + count).map(|x| (x % 3) as u8).collect();
        let count = count as usize;
        let images = TensorView::new(dtype, vec![count, 1, 1, 2], &images).unwrap();
        let labels = TensorView::new(Dtype::U8, vec![count], &labels).unwrap();
        safetensors::serialize([(IMAGES, images), (LABELS, labels)], None).unwrap()
    }

    /// Everything, as one shard.
    fn read(folder: &Path, wanted: Digest) -> Result<ShardSamples, TrainError> {
        Ok(Pieces::open(folder, wanted)?.read(&[0].into(), 1)?.remove(0))
    }

    fn problem(folder: &Path, wanted: Digest) -> String {
        match read(folder, wanted).unwrap_err() {
            TrainError::Data { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn pieces_are_joined_in_order() {
        let (folder, _, digest) = folder(ElementType::U8);
        let data = read(folder.path(), digest).unwrap();
        assert_eq!(data.train.images, (0..10).collect::<Vec<u8>>());
        assert_eq!(data.train.labels, [0, 1, 2, 0, 1]);
        assert_eq!((data.test.images, data.test.labels), (vec![0, 1, 2, 3], vec![0, 1]));
        let (folder, _, digest) = self::folder(ElementType::F32);
        assert_eq!(read(folder.path(), digest).unwrap().train.images.len(), 40);
    }

    #[test]
    fn a_shard_is_read_from_the_pieces_that_hold_it_and_from_no_other() {
        let (folder, manifest, digest) = folder(ElementType::U8);
        let pieces = Pieces::open(folder.path(), digest).unwrap();
        // Training samples 0 and 1, and the first of the test set.
        fs::remove_file(folder.path().join(manifest.pieces[1].digest.to_string())).unwrap();
        let read = pieces.read(&[0].into(), 2).unwrap();
        assert_eq!((&read[0].train.images[..], &read[0].train.labels[..]), (&[0, 1, 2, 3][..], &[0, 1][..]));
        assert_eq!((&read[0].test.images[..], &read[0].test.labels[..]), (&[0, 1][..], &[0][..]));
        // The other one begins in the first piece and ends in the second, which is not there.
        let error = pieces.read(&[1].into(), 2).unwrap_err().to_string();
        assert!(error.contains("piece 1 (training samples 3 to 4) is missing"), "{error}");
    }

    #[test]
    fn shards_together_hold_every_sample_once_in_order() {
        let (folder, _, digest) = folder(ElementType::F32);
        let pieces = Pieces::open(folder.path(), digest).unwrap();
        let whole = pieces.read(&[0].into(), 1).unwrap().remove(0);
        for of in [2, 3, 4, 8] {
            let all = pieces.read(&(0..of).collect(), of).unwrap();
            let joined = |part: fn(&ShardSamples) -> &RawSamples| RawSamples {
                images: all.iter().flat_map(|shard| part(shard).images.clone()).collect(),
                labels: all.iter().flat_map(|shard| part(shard).labels.clone()).collect(),
            };
            assert_eq!(
                (joined(|s| &s.train), joined(|s| &s.test)),
                (whole.train.clone(), whole.test.clone())
            );
        }
    }

    #[test]
    fn inputs_are_scaled_by_feature() {
        let (folder, _, digest) = folder(ElementType::F32);
        let pieces = Pieces::open(folder.path(), digest).unwrap();
        let data = super::super::DataSet::of_pieces(pieces, 1, tch::Device::Cpu).unwrap();
        data.complete().unwrap();
        let (inputs, _) = data.slice(&data.shard(0).unwrap().train, 1, 1);
        let found: Vec<f32> = Vec::try_from(inputs.view([-1])).unwrap();
        assert_eq!(found, [(2.0 - 0.5) / 0.5, (3.0 - 0.25) / 2.0]);
    }

    #[test]
    fn a_piece_that_is_missing_cut_short_altered_or_mixed_up_is_named() {
        let (folder, manifest, digest) = folder(ElementType::U8);
        let path = |place: usize| folder.path().join(manifest.pieces[place].digest.to_string());
        let whole = fs::read(path(1)).unwrap();
        let other = fs::read(path(0)).unwrap();
        let mut altered = whole.clone();
        *altered.last_mut().unwrap() ^= 1;
        for (content, part) in [
            (None, "is missing"),
            (Some(whole[..whole.len() - 1].to_vec()), "bytes instead of"),
            (Some([&whole[..], &[0]].concat()), "bytes instead of"),
            (Some(altered), "is altered"),
            (Some(other), "bytes instead of"),
            (Some(Vec::new()), "has 0 bytes"),
        ] {
            match content {
                Some(content) => fs::write(path(1), content).unwrap(),
                None => fs::remove_file(path(1)).unwrap(),
            }
            let problem = problem(folder.path(), digest);
            assert!(problem.starts_with("piece 1 (training samples 3 to 4) "), "{problem}");
            assert!(problem.contains(part), "{problem}");
        }
        fs::write(path(1), whole).unwrap();
        read(folder.path(), digest).unwrap();
    }

    #[test]
    fn a_manifest_that_is_altered_or_lies_about_a_piece_is_refused() {
        let (folder, manifest, digest) = folder(ElementType::U8);
        let mut liar = manifest.clone();
        liar.shape = [1, 2, 1];
        let lied = save(folder.path(), &liar);
        assert!(problem(folder.path(), digest).contains("is damaged"));
        assert!(problem(folder.path(), lied).contains("not what the manifest says"));
        let mut mixed = manifest.clone();
        (mixed.pieces[0].digest, mixed.pieces[0].bytes) =
            (manifest.pieces[1].digest, manifest.pieces[1].bytes);
        let mixed = save(folder.path(), &mixed);
        assert!(problem(folder.path(), mixed).starts_with("piece 0 "));
        let mut few = manifest.clone();
        few.classes.truncate(2);
        let few = save(folder.path(), &few);
        assert!(problem(folder.path(), few).contains("holds the label 2, and there are 2 classes"));
        let mut long = manifest;
        long.train_samples = 6;
        let long = save(folder.path(), &long);
        assert!(problem(folder.path(), long).contains("makes no sense"));
        fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
        assert!(problem(folder.path(), digest).contains("is missing"));
    }
}
