//! The toy's checkpoints: two small safetensors files, written whole and flushed before they are told of.

use super::model::{Toy, WIDTH};
use serde_json::json;
use spotsweep_proto::{line::CheckpointFiles, train::TrainConfig};
use std::{fs::File, io::Write as _, path::Path};

/// Writes both files.
pub fn write(files: &CheckpointFiles, toy: &Toy) -> std::io::Result<()> {
    write_one(&files.weights, "toy.weight", &toy.weights)?;
    let mut state = toy.velocity.clone();
    state.extend([toy.loss_sum, toy.learning_rate, toy.momentum]);
    write_one(&files.state, "toy.state", &state)
}

/// Reads both files back into the toy that wrote them.
pub fn read(files: &CheckpointFiles, config: &TrainConfig) -> Result<Toy, String> {
    let fresh = Toy::new(config);
    let weights = read_one(&files.weights, WIDTH)?;
    let state = read_one(&files.state, WIDTH + 3)?;
    if state[WIDTH + 1..] != [fresh.learning_rate, fresh.momentum] {
        return Err("the checkpoint is of another recipe".to_owned());
    }
    Ok(Toy { step: files.step, weights, velocity: state[..WIDTH].to_vec(), loss_sum: state[WIDTH], ..fresh })
}

fn write_one(path: &Path, name: &str, values: &[f64]) -> std::io::Result<()> {
    let tensor = json!({"dtype": "F64", "shape": [values.len()], "data_offsets": [0, values.len() * 8]});
    let mut header = json!({ name: tensor }).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create_new(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    file.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
    file.sync_all()
}

fn read_one(path: &Path, count: usize) -> Result<Vec<f64>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let data = bytes.len().checked_sub(count * 8).filter(|start| *start > 8);
    let data = data.ok_or_else(|| format!("{} is too short", path.display()))?;
    let (chunks, _) = bytes[data..].as_chunks::<8>();
    Ok(chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect())
}
