//! The data sets that a sweep may name: their shapes and the names of their files. Where the files come from
//! and what their hashes are is not known here.

use crate::datasets::manifest::DataFacts;
use serde::Serialize;

/// One data set of images with one label each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dataset {
    /// Its name in sweep files.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Number of classes; labels are `0..classes`.
    pub classes: u16,
    /// Channels, height, width.
    pub shape: [u32; 3],
    /// Images of the training set, validation split included.
    pub train_samples: u32,
    /// Images of the test set.
    pub test_samples: u32,
    /// Mean of the training set's pixels, scaled to [0, 1].
    pub pixel_mean: f64,
    /// Standard deviation of the training set's pixels, scaled to [0, 1].
    pub pixel_std: f64,
    /// Names of its files in the IDX format, uncompressed; with `.gz` behind them they are gzipped.
    pub files: DatasetFiles,
    /// Paper that describes it.
    pub source: &'static str,
}

/// The name of the data set that is made up and not read from files.
pub const SYNTHETIC: &str = "synthetic";

/// The four files of an IDX data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DatasetFiles {
    /// Training images.
    pub train_images: &'static str,
    /// Training labels.
    pub train_labels: &'static str,
    /// Test images.
    pub test_images: &'static str,
    /// Test labels.
    pub test_labels: &'static str,
}

/// The name that stands for "no data", for models that need none.
pub const NO_DATA: &str = "none";

const IDX_FILES: DatasetFiles = DatasetFiles {
    train_images: "train-images-idx3-ubyte",
    train_labels: "train-labels-idx1-ubyte",
    test_images: "t10k-images-idx3-ubyte",
    test_labels: "t10k-labels-idx1-ubyte",
};

/// All data sets.
pub const DATASETS: &[Dataset] = &[
    Dataset {
        name: "fashion-mnist",
        about: "28x28 grey pictures of ten kinds of clothes",
        classes: 10,
        shape: [1, 28, 28],
        train_samples: 60_000,
        test_samples: 10_000,
        pixel_mean: 0.2860,
        pixel_std: 0.3530,
        files: IDX_FILES,
        source: "Xiao, Rasul & Vollgraf, 2017",
    },
    Dataset {
        name: "mnist",
        about: "28x28 grey pictures of handwritten digits",
        classes: 10,
        shape: [1, 28, 28],
        train_samples: 60_000,
        test_samples: 10_000,
        pixel_mean: 0.1307,
        pixel_std: 0.3081,
        files: IDX_FILES,
        source: "LeCun, Bottou, Bengio & Haffner, 1998",
    },
    // Made up by the trainer: for tests and for a first try without a download. Its files do not exist.
    Dataset {
        name: SYNTHETIC,
        about: "28x28 made-up grey pictures of ten patterns in noise; needs no files",
        classes: 10,
        shape: [1, 28, 28],
        train_samples: 2_000,
        test_samples: 500,
        pixel_mean: 0.3,
        pixel_std: 0.3,
        files: IDX_FILES,
        source: "",
    },
];

impl Dataset {
    /// The data set called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        DATASETS.iter().find(|dataset| dataset.name == name)
    }

    /// What a model needs to know of it.
    #[must_use]
    pub fn facts(&self) -> DataFacts {
        DataFacts {
            shape: self.shape,
            classes: self.classes,
            train_samples: self.train_samples,
            test_samples: self.test_samples,
        }
    }
}

impl DataFacts {
    /// Images held out for validation: the share, rounded down.
    #[must_use]
    pub fn validation_samples(&self, validation_fraction: f64) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a u32, in [0, 0.5]"
        )]
        let held_out = (f64::from(self.train_samples) * validation_fraction.clamp(0.0, 1.0)).floor() as u32;
        held_out
    }
}
