//! The data set that this process has loaded. One at a time: a trainer trains one trial after the other, mostly
//! of one sweep.

use super::{DataSet, RawData, idx, pieces::Pieces, synthetic};
use crate::{error::TrainError, registry::Registry};
use spotsweep_proto::{
    catalogue::{Dataset, datasets::SYNTHETIC},
    datasets::DataRef,
    ids::DataName,
};
use std::{
    path::{Path, PathBuf},
    rc::Rc,
};
use tch::Device;

/// Which data set, from where, on which device.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    name: DataName,
    folder: Option<PathBuf>,
    shards: u32,
    device: Device,
}

/// Holds the last data set that was asked for.
#[derive(Debug, Default)]
pub struct DataCache {
    held: Option<(Key, Rc<DataSet>)>,
}

impl DataCache {
    /// The data set `name` on `device`, for a trial with so many shards, read from `folder` unless it is at hand. Added data
    /// is only opened.
    ///
    /// # Errors
    /// [`TrainError::Config`] if there is no such data set, [`TrainError::Data`] if its files are not right.
    pub fn get(
        &mut self,
        registry: &Registry,
        name: &DataName,
        folder: Option<&Path>,
        shards: u32,
        device: Device,
    ) -> Result<Rc<DataSet>, TrainError> {
        let key = Key { name: name.clone(), folder: folder.map(Path::to_owned), shards, device };
        if let Some((held, data)) = &self.held
            && *held == key
        {
            return Ok(Rc::clone(data));
        }
        // Freed first: two would not always fit.
        self.held = None;
        let data = Rc::new(open(registry, name, folder, shards, device)?);
        self.held = Some((key, Rc::clone(&data)));
        Ok(data)
    }
}

fn open(
    registry: &Registry,
    name: &DataName,
    folder: Option<&Path>,
    shards: u32,
    device: Device,
) -> Result<DataSet, TrainError> {
    if let Some((raw, content)) = registry.data(name.as_str())? {
        return Ok(DataSet::load(&raw, shards, device)?.with_content(content));
    }
    if let Some(manifest) = name.as_str().parse::<DataRef>().ok().and_then(|added| added.manifest()) {
        return match folder {
            Some(folder) => Ok(DataSet::of_pieces(Pieces::open(folder, manifest)?, shards, device)?),
            None => {
                Err(TrainError::Config(format!("{name} is read from pieces, and the job names no folder")))
            }
        };
    }
    Ok(DataSet::load(&read(name, folder)?, shards, device)?)
}

fn read(name: &DataName, folder: Option<&Path>) -> Result<RawData, TrainError> {
    let Some(dataset) = Dataset::named(name.as_str()) else {
        return Err(TrainError::Config(format!("there is no data set {name}")));
    };
    if dataset.name == SYNTHETIC {
        return Ok(synthetic::make(dataset));
    }
    match folder {
        Some(folder) => idx::read(dataset, folder),
        None => Err(TrainError::Config(format!("{name} is read from files, and the job names no folder"))),
    }
}
