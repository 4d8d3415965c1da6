//! Adding a data set: from a source to pieces, a manifest and a name.
//!
//! One thread reads samples into pieces, in order; hashing and writing go on beside it, and flushing beside both. Memory
//! is a handful of pieces, whatever the source's size, besides labels and order (2 and 4 bytes a sample). Content-addressed: what is stored is
//! not stored again, so an interrupted run is simply run again.

use super::{
    Registered, SetError, SetStore, Written,
    arrange::{Arranged, OrderChoice, arrange},
    pieces::{Buffer, Buffers, Content, Layout},
    scale::Scale,
};
use crate::data::source::{self, Images, Source, SourceOptions};
use futures::{StreamExt as _, TryStreamExt as _};
use spotsweep_proto::{
    datasets::manifest::{
        DATA_FORMAT, DataManifest, DataPart, ElementType, LabelType, PIECE_IMAGE_BYTES, Piece,
    },
    digest::Digest,
    ids::DataName,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces that wait to be stored.
const PIECES_AHEAD: usize = 1;
/// Pieces that are hashed and written at a time.
const PIECES_UNDER_WAY: usize = 2;
/// Buffers of pieces: one that is read into, those that wait, and those under way.
const BUFFERS: usize = 1 + PIECES_AHEAD + PIECES_UNDER_WAY;
/// Pieces that are written and wait for the disk; they take no memory of this process.
const FLUSHES: usize = 4;
/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 256 << 10;
/// Share of the samples that is held out where the source has no test part.
const HELD_OUT: f64 = 0.1;

/// What is to be added.
#[derive(Debug, Clone)]
pub struct AddOptions {
    /// Its name.
    pub name: DataName,
    /// The file or folder.
    pub path: PathBuf,
    /// How it is read.
    pub source: SourceOptions,
    /// In which order samples are stored.
    pub order: OrderChoice,
    /// Share of the samples that is held out as the test part, in (0, 0.5], where the source has none; a tenth if it is
    /// not said.
    pub test_fraction: Option<f64>,
    /// Whether a name that stands for other content is given to this.
    pub replace: bool,
}

/// What is being done, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Something to know about how the source is read.
    Note(String),
    /// The source is opened, and holds so many bytes of samples.
    Bytes(u64),
    /// So many bytes of samples were stored, or were there.
    Stored(u64),
}

/// What was added.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// By which it is named for ever.
    pub digest: Digest,
    /// What it is.
    pub manifest: DataManifest,
    /// How its name came to it.
    pub registered: Registered,
    /// Objects that were not there before.
    pub new_objects: usize,
}

/// A piece before it is hashed.
struct Filled {
    part: DataPart,
    first: u32,
    count: u32,
    images: Buffer,
    labels: Vec<u16>,
}

/// Adds a data set. Dropped before its end, it leaves pieces that the next try does not store again, and no name.
///
/// # Errors
/// [`SetError`]; the name is as it was.
pub async fn add(
    store: &SetStore,
    options: AddOptions,
    step: &mut (dyn FnMut(Step) + Send),
) -> Result<Added, SetError> {
    let name = options.name.clone();
    let replace = options.replace;
    if !replace {
        // Not after an hour of reading. Whether the content is the same is known only then.
        store.find(&name).await?;
    }
    let opened = {
        let options = options.clone();
        tokio::task::spawn_blocking(move || open(&options)).await.map_err(|_| SetError::Thread)??
    };
    let Opened { source, arranged, layout } = opened;
    for note in &source.notes {
        step(Step::Note(note.clone()));
    }
    let has_test = source.test.is_some();
    let (train, test) = arranged.counts(&source);
    let per_sample = layout.sample_bytes() as u64;
    step(Step::Bytes((u64::from(train) + u64::from(test)) * per_sample));
    if !has_test && test > 0 {
        step(Step::Note(format!("no test part was given: {test} samples are held out for it")));
    }
    if arranged.order == spotsweep_proto::datasets::manifest::SampleOrder::Shuffled {
        step(Step::Note("samples are stored in a fixed shuffle: the source has them grouped by class, or it was asked for".to_owned()));
    }
    let (order, classes) = (arranged.order, source.classes.clone());
    let (filled, pieces) = mpsc::channel(PIECES_AHEAD);
    let reader = tokio::task::spawn_blocking(move || fill(source, arranged, layout, &filled));
    let mut stored = ReceiverStream::new(pieces)
        .map(|filled| keep(store, layout, filled))
        .buffered(PIECES_UNDER_WAY)
        .map(|kept| async move {
            let (piece, written) = kept?;
            let new = store.flushed(written).await?;
            Ok::<_, SetError>((piece, new))
        })
        .buffered(FLUSHES);
    // A piece that stands at several places may be written twice at the same time.
    let (mut pieces, mut new_pieces) = (Vec::new(), BTreeSet::new());
    while let Some((piece, new)) = stored.try_next().await? {
        step(Step::Stored(u64::from(piece.count) * per_sample));
        if new {
            new_pieces.insert(piece.digest);
        }
        pieces.push(piece);
    }
    drop(stored);
    let scale = reader.await.map_err(|_| SetError::Thread)??;
    let (mean, std) = scale.finish();
    let manifest = DataManifest {
        format: DATA_FORMAT,
        shape: layout.shape,
        elements: layout.elements,
        labels: layout.labels,
        mean,
        std,
        classes,
        order,
        train_samples: train,
        test_samples: test,
        pieces,
    };
    manifest.check()?;
    let (content, digest) = manifest.encode();
    // Checked as it will be read: its length too.
    DataManifest::decode(&content, digest)?;
    store.flush_folders(&manifest).await?;
    let new_objects = new_pieces.len() + usize::from(store.put(digest, content).await?);
    let registered = store.register(&name, digest, replace).await?;
    Ok(Added { digest, manifest, registered, new_objects })
}

struct Opened {
    source: Source,
    arranged: Arranged,
    layout: Layout,
}

fn open(options: &AddOptions) -> Result<Opened, SetError> {
    let source = source::open(&options.path, &options.source)?;
    let share = match (&source.test, options.test_fraction) {
        (Some(_), Some(_)) => {
            return Err(SetError::Options {
                problem: "the source has a test part, so nothing is held out".to_owned(),
                hint: "leave --test-fraction away".to_owned(),
            });
        }
        (Some(_), None) => 0.0,
        (None, share) => share.unwrap_or(HELD_OUT),
    };
    let arranged = arrange(&source.train.labels, options.order, share);
    let layout = Layout {
        shape: source.shape,
        elements: source.elements,
        labels: LabelType::of(source.classes.len()),
    };
    if arranged.counts(&source).0 == 0 {
        return Err(SetError::source(&options.path, "leaves no sample to train on", "hold out less"));
    }
    Ok(Opened { source, arranged, layout })
}

impl Arranged {
    /// Samples to train and to test on.
    fn counts(&self, source: &Source) -> (u32, u32) {
        let count = |labels: usize| u32::try_from(labels).unwrap_or(u32::MAX);
        let train = self.train.as_ref().map_or(source.train.labels.len(), Vec::len);
        let test = source.test.as_ref().map_or(self.held_out.len(), |test| test.labels.len());
        (count(train), count(test))
    }
}

impl Layout {
    fn sample_bytes(self) -> usize {
        let elements: u64 = self.shape.iter().map(|&n| u64::from(n)).product();
        usize::try_from(elements * self.elements.bytes()).unwrap_or(usize::MAX)
    }

    fn samples_per_piece(self) -> u32 {
        u32::try_from(PIECE_IMAGE_BYTES / self.sample_bytes().max(1) as u64).unwrap_or(u32::MAX).max(1)
    }
}

/// Reads all samples into pieces, in the order in which they are stored; ends early when nobody takes them any more.
fn fill(
    mut source: Source,
    arranged: Arranged,
    layout: Layout,
    out: &mpsc::Sender<Filled>,
) -> Result<Scale, SetError> {
    let mut scale = Scale::new(layout.shape, layout.elements);
    let buffers = &Buffers::new(BUFFERS);
    let path = source.train.path.clone();
    let train = source.train.images.as_mut();
    let labels = &source.train.labels;
    let part = |part| Part { part, path: &path, layout, buffers, out };
    part(DataPart::Train).fill(train, labels, arranged.train.as_deref(), Some(&mut scale))?;
    if !arranged.held_out.is_empty() {
        part(DataPart::Test).fill(train, labels, Some(&arranged.held_out), None)?;
    }
    if let Some(test) = &mut source.test {
        let part = Part { part: DataPart::Test, path: &test.path, layout, buffers, out };
        part.fill(test.images.as_mut(), &test.labels, None, None)?;
    }
    Ok(scale)
}

struct Part<'a> {
    part: DataPart,
    path: &'a Path,
    layout: Layout,
    buffers: &'a Buffers,
    out: &'a mpsc::Sender<Filled>,
}

impl Part<'_> {
    fn fill(
        &self,
        images: &mut dyn Images,
        labels: &[u16],
        places: Option<&[u32]>,
        mut scale: Option<&mut Scale>,
    ) -> Result<(), SetError> {
        let sample_bytes = self.layout.sample_bytes();
        let samples = places.map_or(labels.len(), <[u32]>::len);
        let samples = u32::try_from(samples).unwrap_or(u32::MAX);
        let per_piece = self.layout.samples_per_piece();
        let mut first = 0;
        while first < samples {
            let count = per_piece.min(samples - first);
            let mut piece = self.buffers.take(count as usize * sample_bytes);
            let range = first as usize..(first + count) as usize;
            let piece_labels = match places {
                None => {
                    self.read(images, first, &mut piece.content, &mut scale)?;
                    labels[range].to_vec()
                }
                Some(places) => {
                    let places = &places[range];
                    let mut rest = &mut piece.content[..];
                    // A call for each run, not for each sample: where one of ten is held out, that is a tenth.
                    for run in places.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
                        let (samples, behind) = rest.split_at_mut(run.len() * sample_bytes);
                        self.read(images, run[0], samples, &mut scale)?;
                        rest = behind;
                    }
                    places.iter().map(|&place| labels[place as usize]).collect()
                }
            };
            let filled = Filled { part: self.part, first, count, images: piece, labels: piece_labels };
            if self.out.blocking_send(filled).is_err() {
                break;
            }
            first += count;
        }
        Ok(())
    }

    /// Reads samples in a row, those at `first` and behind it in the source, and takes them into `scale` while they are in
    /// the processor's cache.
    fn read(
        &self,
        images: &mut dyn Images,
        first: u32,
        into: &mut [u8],
        scale: &mut Option<&mut Scale>,
    ) -> Result<(), SetError> {
        let per_block = u32::try_from(BLOCK_BYTES / self.layout.sample_bytes().max(1)).unwrap_or(1).max(1);
        let mut place = first;
        for block in into.chunks_mut(per_block as usize * self.layout.sample_bytes()) {
            images.read(place, block)?;
            if self.layout.elements == ElementType::F32 {
                self.check_finite(block, place)?;
            }
            if let Some(scale) = scale {
                scale.add(block);
            }
            place = place.saturating_add(per_block);
        }
        Ok(())
    }

    fn check_finite(&self, samples: &[u8], first: u32) -> Result<(), SetError> {
        let is_wrong = |bytes: &[u8; 4]| !f32::from_le_bytes(*bytes).is_finite();
        let Some(at) = samples.as_chunks::<4>().0.iter().position(is_wrong) else { return Ok(()) };
        let place = first as usize + at * 4 / self.layout.sample_bytes();
        let problem =
            format!("sample {place} holds a number that is NaN, infinite or beyond single precision");
        Err(SetError::source(self.path, problem, "fill in what is missing beforehand"))
    }
}

/// Hashes a piece and writes it, or finds it written.
async fn keep(store: &SetStore, layout: Layout, filled: Filled) -> Result<(Piece, Written), SetError> {
    let Filled { part, first, count, images, labels } = filled;
    let made = tokio::task::spawn_blocking(move || {
        let content = Content::new(layout, images, &labels)?;
        let digest = content.digest();
        Some((content, digest))
    });
    let (content, digest) = made.await.ok().flatten().ok_or(SetError::Thread)?;
    let bytes = content.bytes();
    let written = store.write(digest, content).await?;
    Ok((Piece { digest, bytes, part, first, count }, written))
}
