//! How a sweep names data that a user has added: by name, by digest, or by both.
//!
//! A sweep file says `NAME` or `blake3:HEX`. When a sweep is taken, the coordinator pins every name to the manifest
//! that it stands for at that moment, `NAME@blake3:HEX`: what the name is given to later changes nothing.

use super::manifest::DataFacts;
use crate::{
    catalogue::{CatalogueError, DATASETS, Dataset, datasets::NO_DATA, listed, nearest},
    digest::Digest,
    ids::DataName,
};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Stands before the digest of a manifest.
pub const DIGEST_PREFIX: &str = "blake3:";
/// Longest name of an added data set, in bytes: with its digest it must be a [`DataName`].
pub const SET_NAME_BYTES: usize = 48;
/// Names that are shown where one is wrong.
const NAMES_SHOWN: usize = 20;

/// A data set that a user has added, as a sweep names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataRef {
    /// Whatever has the name.
    Named(DataName),
    /// One content, whatever name it has or had.
    Pinned {
        /// The name by which it was asked for.
        name: Option<DataName>,
        /// Digest of its manifest.
        manifest: Digest,
    },
}

/// Why a text names no data set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataRefError {
    /// It cannot be a name.
    #[error("{0}")]
    Name(String),
    /// What stands behind `blake3:` is no digest.
    #[error("a data set is named by `blake3:` and 64 hex digits")]
    Digest,
    /// The name has another meaning.
    #[error("{0} is the name of a data set that Spotsweep knows already")]
    Taken(String),
}

/// Checks the name of a data set that is to be added.
///
/// # Errors
/// [`DataRefError`]: too long, with characters that no name has, or taken by the catalogue.
pub fn set_name(text: &str) -> Result<DataName, DataRefError> {
    if text.len() > SET_NAME_BYTES {
        return Err(DataRefError::Name(format!(
            "the name of an added data set has at most {SET_NAME_BYTES} bytes, this one has {}",
            text.len()
        )));
    }
    let name = DataName::new(text).map_err(|error| DataRefError::Name(error.to_string()))?;
    if text.contains(['@', ':']) {
        return Err(DataRefError::Name("the name of an added data set has no '@' and no ':'".to_owned()));
    }
    if text == NO_DATA || Dataset::named(text).is_some() {
        return Err(DataRefError::Taken(text.to_owned()));
    }
    Ok(name)
}

impl FromStr for DataRef {
    type Err = DataRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digest = |hex: &str| hex.parse::<Digest>().map_err(|_| DataRefError::Digest);
        if let Some(hex) = text.strip_prefix(DIGEST_PREFIX) {
            return Ok(Self::Pinned { name: None, manifest: digest(hex)? });
        }
        match text.split_once('@') {
            Some((name, pin)) => {
                let hex = pin.strip_prefix(DIGEST_PREFIX).ok_or(DataRefError::Digest)?;
                Ok(Self::Pinned { name: Some(set_name(name)?), manifest: digest(hex)? })
            }
            None => Ok(Self::Named(set_name(text)?)),
        }
    }
}

impl fmt::Display for DataRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Pinned { name: Some(name), manifest } => write!(f, "{name}@{DIGEST_PREFIX}{manifest}"),
            Self::Pinned { name: None, manifest } => write!(f, "{DIGEST_PREFIX}{manifest}"),
        }
    }
}

impl DataRef {
    /// The manifest, where the reference is pinned.
    #[must_use]
    pub fn manifest(&self) -> Option<Digest> {
        match self {
            Self::Named(_) => None,
            Self::Pinned { manifest, .. } => Some(*manifest),
        }
    }

    /// For people: the name, or the beginning of the digest.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Named(name) | Self::Pinned { name: Some(name), .. } => name.to_string(),
            Self::Pinned { name: None, manifest } => format!("{DIGEST_PREFIX}{}", manifest.short()),
        }
    }
}

/// The data sets that a sweep may name besides those of the catalogue.
#[derive(Debug, Clone, Default)]
pub struct DataSets {
    /// By what a sweep file says.
    found: BTreeMap<String, (Digest, DataFacts)>,
    /// Names to think of where one is misspelled.
    names: Vec<String>,
    trust: Trust,
}

/// What is believed of data sets that are not known here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Trust {
    /// That those with a digest are there: a coordinator has looked.
    #[default]
    Pinned,
    /// That all are there: somebody else will look.
    All,
    /// Nothing.
    None,
}

/// What a sweep's `data` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundData {
    /// How a recipe names it: pinned, unless it is the catalogue's or taken on trust.
    pub name: DataName,
    /// `None` where it is taken on trust.
    pub facts: Option<DataFacts>,
}

impl DataSets {
    /// None besides those of the catalogue; what is pinned already is taken on trust.
    #[must_use]
    pub fn catalogue() -> Self {
        Self::default()
    }

    /// Any that could exist: for a client that leaves the answer to the coordinator.
    #[must_use]
    pub fn any() -> Self {
        Self { trust: Trust::All, ..Self::default() }
    }

    /// Those that will be added, and no others.
    #[must_use]
    pub fn stored() -> Self {
        Self { trust: Trust::None, ..Self::default() }
    }

    /// A data set that is there, under the text by which a sweep file asks for it.
    pub fn add(&mut self, asked: &DataRef, manifest: Digest, facts: DataFacts) {
        let name = match asked {
            DataRef::Named(name) => Some(name.clone()),
            DataRef::Pinned { name, .. } => name.clone(),
        };
        self.found.insert(DataRef::Pinned { name, manifest }.to_string(), (manifest, facts));
        self.found.insert(asked.to_string(), (manifest, facts));
    }

    /// Names that are there, for hints.
    pub fn add_names(&mut self, names: impl IntoIterator<Item = String>) {
        self.names.extend(names);
    }

    /// What `text` stands for; `None` for [`NO_DATA`].
    ///
    /// # Errors
    /// There is no such data set; with the nearest name, if one is near.
    pub fn find(&self, text: &str) -> Result<Option<FoundData>, CatalogueError> {
        if text == NO_DATA {
            return Ok(None);
        }
        let named =
            |text: &str| DataName::new(text).map_err(|error| CatalogueError::new("data", error.to_string()));
        if let Some(dataset) = Dataset::named(text) {
            return Ok(Some(FoundData { name: named(text)?, facts: Some(dataset.facts()) }));
        }
        let Ok(asked) = text.parse::<DataRef>() else { return Err(self.unknown(text)) };
        if let Some((manifest, facts)) = self.found.get(text) {
            let name = match asked {
                DataRef::Named(name) => Some(name),
                DataRef::Pinned { name, .. } => name,
            };
            let pinned = DataRef::Pinned { name, manifest: *manifest };
            return Ok(Some(FoundData { name: named(&pinned.to_string())?, facts: Some(*facts) }));
        }
        let trusted = match self.trust {
            Trust::All => true,
            Trust::Pinned => asked.manifest().is_some(),
            Trust::None => false,
        };
        if trusted {
            Ok(Some(FoundData { name: named(text)?, facts: None }))
        } else {
            Err(self.unknown(text))
        }
    }

    fn unknown(&self, text: &str) -> CatalogueError {
        let shown: String = text.chars().take(60).collect();
        let error = CatalogueError::new("data", format!("there is no data set {shown:?}"));
        let valid =
            || DATASETS.iter().map(|dataset| dataset.name).chain(self.names.iter().map(String::as_str));
        match nearest(text, valid()) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None if text.starts_with(DIGEST_PREFIX) => {
                error.hint("`spotsweep data ls` lists what is stored; SPOTSWEEP_DATA_STORE says where")
            }
            None => error.hint(format!("one of {}", listed(valid().take(NAMES_SHOWN)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: DataFacts = DataFacts { shape: [1, 2, 3], classes: 2, train_samples: 10, test_samples: 3 };

    #[test]
    fn a_reference_is_read_back_as_it_was_written() {
        let digest = Digest::of(b"manifest");
        for text in ["clothes".to_owned(), format!("blake3:{digest}"), format!("clothes@blake3:{digest}")] {
            let reference: DataRef = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            DataName::new(&text).unwrap();
        }
        let longest = format!("{}@blake3:{digest}", "x".repeat(SET_NAME_BYTES));
        assert_eq!(DataName::new(&longest).unwrap().as_str(), longest);
    }

    #[test]
    fn names_that_are_paths_taken_or_no_names_are_refused() {
        for text in [
            "",
            "../x",
            "a/b",
            ".hidden",
            "-x",
            "a b",
            "mnist",
            "none",
            "a@b",
            "a:b",
            "blake3:",
            "blake3:12",
            "a@blake3:zz",
            "a@",
            "ü",
            "a\n",
            &"x".repeat(SET_NAME_BYTES + 1),
        ] {
            assert!(text.parse::<DataRef>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_pinned_and_an_unknown_one_is_answered_with_the_nearest() {
        let mut sets = DataSets::stored();
        assert!(sets.find(&format!("blake3:{}", Digest::of(b""))).is_err());
        let digest = Digest::of(b"manifest");
        sets.add(&"clothes".parse().unwrap(), digest, FACTS);
        sets.add_names(["clothes".to_owned()]);
        let found = sets.find("clothes").unwrap().unwrap();
        assert_eq!(found.name.as_str(), format!("clothes@blake3:{digest}"));
        assert_eq!(found.facts, Some(FACTS));
        assert_eq!(sets.find(found.name.as_str()).unwrap().unwrap().name, found.name);
        assert_eq!(sets.find("clothe").unwrap_err().hint.as_deref(), Some("did you mean clothes?"));
        assert_eq!(sets.find("mnist").unwrap().unwrap().name.as_str(), "mnist");
        assert!(DataSets::catalogue().find("clothes").is_err());
        assert_eq!(DataSets::any().find("clothes").unwrap().unwrap().facts, None);
    }
}
