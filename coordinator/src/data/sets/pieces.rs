//! Pieces on their way into the store: the buffers that samples are read into, what a piece's file is made of, and how it
//! comes to lie on a disk.
//!
//! A piece is never put together in memory: its file is written, hashed and compared part by part. On a local disk each
//! is written under another name, flushed, and only then gets its own; its folder is flushed before anything names the
//! piece. Flushes of several pieces run beside each other: a file system that keeps a journal commits them together.

use super::SetError;
use bytes::Bytes;
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use spotsweep_proto::{
    checkpoint::object_path,
    datasets::manifest::{ElementType, IMAGES, LABELS, LabelType},
    digest::Digest,
};
use std::{
    fs::{self, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc,
};

/// Bytes that are compared at a time: they stay in a core's cache.
const BLOCK_BYTES: usize = 256 << 10;
/// What a new object may be read and written by, before the process's mask: as any file.
const OBJECT_MODE: u32 = 0o666;

/// Buffers that are used again and again: fresh memory has to be cleared and mapped page by page, which takes as long as
/// reading into it.
#[derive(Debug)]
pub(super) struct Buffers {
    back: mpsc::Sender<Vec<u8>>,
    free: mpsc::Receiver<Vec<u8>>,
}

impl Buffers {
    /// So many buffers, made as they are needed.
    pub(super) fn new(count: usize) -> Self {
        let (back, free) = mpsc::channel();
        for _ in 0..count {
            // Its own receiver is there.
            let _sent = back.send(Vec::new());
        }
        Self { back, free }
    }

    /// A buffer of `bytes` bytes, with anything in it; waits until one is free.
    pub(super) fn take(&self, bytes: usize) -> Buffer {
        let mut content = self.free.recv().unwrap_or_default();
        content.resize(bytes, 0);
        Buffer { content, back: self.back.clone() }
    }
}

/// One of [`Buffers`], which gets it back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) content: Vec<u8>,
    back: mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Nobody reads any more when the receiver is gone.
        let _sent = self.back.send(std::mem::take(&mut self.content));
    }
}

/// What all pieces share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) shape: [u32; 3],
    pub(super) elements: ElementType,
    pub(super) labels: LabelType,
}

/// A piece's file, in parts that lie behind each other.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) parts: [Bytes; 3],
}

impl Content {
    /// The safetensors file of `count` samples, as `safetensors::serialize` writes it: a header of a multiple of 8
    /// bytes, then the tensors, those of wider elements first.
    pub(super) fn new(layout: Layout, images: Buffer, labels: &[u16]) -> Option<Self> {
        let [channels, height, width] = layout.shape.map(|n| n as usize);
        let images_type = match layout.elements {
            ElementType::U8 => Dtype::U8,
            ElementType::F32 => Dtype::F32,
        };
        let (labels_type, label_bytes): (_, Vec<u8>) = match layout.labels {
            LabelType::U8 => {
                (Dtype::U8, labels.iter().map(|&label| u8::try_from(label).unwrap_or(u8::MAX)).collect())
            }
            LabelType::U16 => (Dtype::U16, labels.iter().flat_map(|label| label.to_le_bytes()).collect()),
        };
        let images_shape = vec![labels.len(), channels, height, width];
        let tensors = [
            (IMAGES, images_type, images_shape, Bytes::from_owner(images)),
            (LABELS, labels_type, vec![labels.len()], Bytes::from(label_bytes)),
        ];
        let [first, second] = if labels_type > images_type {
            let [images, labels] = tensors;
            [labels, images]
        } else {
            tensors
        };
        let mut end = 0;
        let mut info = |(name, dtype, shape, content): &(&str, Dtype, Vec<usize>, Bytes)| {
            let start = end;
            end += content.len();
            (
                (*name).to_owned(),
                TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) },
            )
        };
        let infos = vec![info(&first), info(&second)];
        let mut text = serde_json::to_vec(&Metadata::new(None, infos).ok()?).ok()?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let header = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
        Some(Self { parts: [header.into(), first.3, second.3] })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    pub(super) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for part in &self.parts {
            hasher.update(part);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// Whether the file at `path` is this.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != self.bytes() {
            return Ok(false);
        }
        let mut block = vec![0; BLOCK_BYTES];
        for wanted in self.parts.iter().flat_map(|part| part.chunks(BLOCK_BYTES)) {
            let found = &mut block[..wanted.len()];
            match file.read_exact(found) {
                Ok(()) if found == wanted => {}
                Ok(()) => return Ok(false),
                // Cut short just now.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// A written piece that is not flushed and has not its name yet; it is gone when dropped.
#[derive(Debug)]
pub(super) struct Unflushed {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

/// Writes a piece into the store in `folder`, unless it lies there, whole and unaltered.
pub(super) fn write(folder: &Path, digest: Digest, content: &Content) -> Result<Option<Unflushed>, SetError> {
    let path = folder.join(object_path(&digest));
    if content.is_at(&path).map_err(SetError::io("read", &path))? {
        return Ok(None);
    }
    let within = path.parent().unwrap_or(folder);
    fs::create_dir_all(within).map_err(SetError::io("create", within))?;
    let mut file = tempfile::Builder::new()
        .prefix(".piece-")
        .permissions(Permissions::from_mode(OBJECT_MODE))
        .tempfile_in(within)
        .map_err(SetError::io("create a file in", within))?;
    for part in &content.parts {
        file.write_all(part).map_err(SetError::io("write", &path))?;
    }
    Ok(Some(Unflushed { file, path }))
}

/// Flushes a piece and gives it its name.
pub(super) fn flush(Unflushed { file, path }: Unflushed) -> Result<(), SetError> {
    file.as_file().sync_all().map_err(SetError::io("flush", &path))?;
    file.persist(&path).map_err(|error| SetError::io("write", &path)(error.error))?;
    Ok(())
}

/// Makes the names of objects in a folder of the store last through a power cut, whoever wrote them.
pub(super) fn flush_folder(folder: &Path) -> Result<(), SetError> {
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(SetError::io("flush", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn content(elements: ElementType, labels: LabelType, count: u16) -> (Content, Vec<u8>) {
        let layout = Layout { shape: [3, 1, 5], elements, labels };
        let bytes = usize::from(count) * 15 * elements.bytes() as usize;
        let mut images = Buffers::new(1).take(bytes);
        for (at, byte) in images.content.iter_mut().enumerate() {
            *byte = at as u8;
        }
        let numbers: Vec<u16> = (0..count).collect();
        let made = Content::new(
            layout,
            Buffer { content: images.content.clone(), back: images.back.clone() },
            &numbers,
        );
        let (images_type, labels_type) = match (elements, labels) {
            (ElementType::U8, LabelType::U8) => (Dtype::U8, Dtype::U8),
            (ElementType::U8, LabelType::U16) => (Dtype::U8, Dtype::U16),
            (ElementType::F32, LabelType::U8) => (Dtype::F32, Dtype::U8),
            (ElementType::F32, LabelType::U16) => (Dtype::F32, Dtype::U16),
        };
        let numbers: Vec<u8> = match labels {
            LabelType::U8 => numbers.iter().map(|&label| label as u8).collect(),
            LabelType::U16 => numbers.iter().flat_map(|label| label.to_le_bytes()).collect(),
        };
        let count = usize::from(count);
        let images = TensorView::new(images_type, vec![count, 3, 1, 5], &images.content).unwrap();
        let labels = TensorView::new(labels_type, vec![count], &numbers).unwrap();
        let wanted = safetensors::serialize([(IMAGES, images), (LABELS, labels)], None).unwrap();
        (made.unwrap(), wanted)
    }

    #[test]
    fn a_piece_in_parts_is_the_file_that_safetensors_writes() {
        for elements in [ElementType::U8, ElementType::F32] {
            for labels in [LabelType::U8, LabelType::U16] {
                for count in [1, 7, 200] {
                    let (made, wanted) = content(elements, labels, count);
                    assert_eq!(made.parts.concat(), wanted, "{elements:?} {labels:?} {count}");
                    assert_eq!((made.bytes(), made.digest()), (wanted.len() as u64, Digest::of(&wanted)));
                }
            }
        }
    }

    #[test]
    fn a_piece_has_its_name_only_when_it_is_flushed_and_a_damaged_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (piece, bytes) = content(ElementType::U8, LabelType::U8, 9);
        let path = folder.path().join(object_path(&piece.digest()));
        let unflushed = write(folder.path(), piece.digest(), &piece).unwrap().unwrap();
        assert!(!path.exists());
        flush(unflushed).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert!(write(folder.path(), piece.digest(), &piece).unwrap().is_none(), "it is there");
        let mut altered = bytes.clone();
        *altered.last_mut().unwrap() ^= 1;
        for damaged in [&altered[..], &bytes[..bytes.len() - 1], &[]] {
            fs::write(&path, damaged).unwrap();
            flush(write(folder.path(), piece.digest(), &piece).unwrap().unwrap()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        drop(write(folder.path(), Digest::of(b"other"), &piece).unwrap());
        let names = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!(names(path.parent().unwrap()), 1, "nothing else stays");
    }

    #[test]
    fn a_buffer_that_is_let_go_is_taken_again() {
        let buffers = Buffers::new(1);
        let mut one = buffers.take(8);
        one.content.fill(7);
        drop(Bytes::from_owner(one));
        assert_eq!(buffers.take(4).content, [7; 4]);
        assert_eq!(buffers.take(6).content.len(), 6);
    }
}
