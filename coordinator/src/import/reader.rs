//! The files of an export as one stream of bytes, and the parts of an import that they become.

use super::{
    Damage, Head,
    lines::{self, Names},
};
use crate::export::manifest::FILES;
use spotsweep_engine::import::{ImportPart, ImportedAttempt, ImportedPoint, ImportedTrial};
use spotsweep_proto::{digest::Digest, spec::SweepSpec};

/// Most trials, attempts or points of one part: one event of the journal and one step of the engine, some milliseconds.
const PART_ITEMS: usize = 2048;
/// Text of a part after which nothing more joins it, in bytes.
const PART_BYTES: usize = 512 << 10;
/// Longest line, in bytes. A trial's parameters are at most as long as its sweep file.
const LINE_BYTES: usize = 8 << 20;

/// Takes the bytes of all files in order, one behind the other.
pub(crate) struct Reader {
    head: Head,
    /// Index into [`FILES`].
    file: usize,
    /// Bytes of the file that are to come.
    left: u64,
    line: u64,
    hash: blake3::Hasher,
    /// The beginning of a line whose end is to come.
    begun: Vec<u8>,
    items: Items,
    /// Text of the items, in bytes.
    bytes: usize,
    parts: Vec<ImportPart>,
}

/// What the next part is made of.
enum Items {
    Trials(Vec<ImportedTrial>),
    Attempts(Vec<ImportedAttempt>),
    Points(Names, Vec<ImportedPoint>),
}

impl Items {
    fn of_file(file: usize) -> Self {
        match file {
            0 => Self::Trials(Vec::new()),
            1 => Self::Attempts(Vec::new()),
            _ => Self::Points(Names::default(), Vec::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Trials(trials) => trials.len(),
            Self::Attempts(attempts) => attempts.len(),
            Self::Points(_, points) => points.len(),
        }
    }

    fn add(&mut self, line: &[u8], spec: &SweepSpec, nth: u64) -> Result<(), String> {
        match self {
            Self::Trials(trials) => {
                let number = u32::try_from(nth).ok().filter(|number| *number < spec.trials());
                let number = number.ok_or_else(|| "the sweep has fewer trials".to_owned())?;
                trials.push(lines::trial(line, spec, number)?);
            }
            Self::Attempts(attempts) => attempts.push(lines::attempt(line)?),
            Self::Points(names, points) => points.push(lines::point(line, names)?),
        }
        Ok(())
    }

    fn into_part(self) -> ImportPart {
        match self {
            Self::Trials(trials) => ImportPart::Trials(trials),
            Self::Attempts(attempts) => ImportPart::Attempts(attempts),
            Self::Points(Names { names, .. }, points) => ImportPart::Points { metric_names: names, points },
        }
    }
}

impl Reader {
    /// Of the export with that manifest.
    ///
    /// # Errors
    /// As [`Self::feed`]: a file may be empty, and should not be.
    pub(crate) fn new(head: Head) -> Result<Self, Damage> {
        let left = head.manifest.files.trials.bytes;
        let mut reader = Self {
            head,
            file: 0,
            left,
            line: 0,
            hash: blake3::Hasher::new(),
            begun: Vec::new(),
            items: Items::of_file(0),
            bytes: 0,
            parts: Vec::new(),
        };
        reader.end_files()?;
        Ok(reader)
    }

    /// What the manifest says.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Takes the next bytes and gives the parts that have become whole.
    ///
    /// # Errors
    /// The first line that is wrong, or a file that is not the one of which the manifest tells.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<ImportPart>, Damage> {
        while !bytes.is_empty() {
            if self.file == FILES.len() {
                return Err(self.damage(0, "there is more than the manifest tells of"));
            }
            let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (here, rest) = bytes.split_at(most);
            bytes = rest;
            self.left -= here.len() as u64;
            self.hash.update(here);
            for piece in here.split_inclusive(|byte| *byte == b'\n') {
                self.piece(piece)?;
            }
            self.end_files()?;
        }
        Ok(std::mem::take(&mut self.parts))
    }

    /// Nothing comes any more. All parts have been given: the last ended with the last file.
    ///
    /// # Errors
    /// Something is missing.
    pub(crate) fn end(&mut self) -> Result<(), Damage> {
        if self.file < FILES.len() {
            let what = format!("it ends {} bytes before its end", self.left);
            return Err(self.damage(0, what));
        }
        Ok(())
    }

    fn damage(&self, line: u64, what: impl Into<String>) -> Damage {
        let file = FILES.get(self.file).or(FILES.last()).copied().unwrap_or_default();
        Damage { file, line, what: what.into() }
    }

    /// A line, or some of it.
    fn piece(&mut self, piece: &[u8]) -> Result<(), Damage> {
        if self.begun.len() + piece.len() > LINE_BYTES {
            return Err(self.damage(self.line + 1, format!("it has more than {LINE_BYTES} bytes")));
        }
        let Some(end) = piece.strip_suffix(b"\n") else {
            self.begun.extend_from_slice(piece);
            return Ok(());
        };
        self.line += 1;
        let begun = std::mem::take(&mut self.begun);
        let added = if begun.is_empty() {
            self.items.add(end, &self.head.spec, self.line - 1)
        } else {
            let line = [begun.as_slice(), end].concat();
            self.items.add(&line, &self.head.spec, self.line - 1)
        };
        added.map_err(|what| self.damage(self.line, what))?;
        self.bytes += begun.len() + piece.len();
        if self.items.len() >= PART_ITEMS || self.bytes >= PART_BYTES {
            self.cut();
        }
        Ok(())
    }

    /// Makes a part of what is there.
    fn cut(&mut self) {
        let items = std::mem::replace(&mut self.items, Items::of_file(self.file));
        self.bytes = 0;
        if items.len() > 0 {
            self.parts.push(items.into_part());
        }
    }

    /// Ends the file that is complete, and those behind it that are empty.
    fn end_files(&mut self) -> Result<(), Damage> {
        while self.left == 0 && self.file < FILES.len() {
            let Some(listed) = self.head.manifest.files.in_order().get(self.file).copied().cloned() else {
                break;
            };
            if !self.begun.is_empty() {
                return Err(self.damage(self.line + 1, "it has no end"));
            }
            if self.line != listed.lines {
                let what = format!("it has {} lines, and the manifest tells of {}", self.line, listed.lines);
                return Err(self.damage(0, what));
            }
            let digest = Digest(*self.hash.finalize().as_bytes());
            if listed.blake3.parse() != Ok(digest) {
                return Err(self.damage(
                    0,
                    "its content has not the BLAKE3 of which the manifest tells: it was altered",
                ));
            }
            self.cut();
            self.file += 1;
            self.line = 0;
            self.hash = blake3::Hasher::new();
            self.items = Items::of_file(self.file);
            self.left = self.head.manifest.files.in_order().get(self.file).map_or(0, |listed| listed.bytes);
        }
        Ok(())
    }
}
