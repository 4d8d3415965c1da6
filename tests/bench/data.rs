//! Adding a data set, beside what its bytes cost at the least: hashing them, and copying them to the disk.

use crate::{
    Scale,
    figures::{Figures, Target, median},
};
use anyhow::Context as _;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use spotsweep_tests::binaries;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Bytes of a picture: 3 colours of 32 by 32.
const SAMPLE_BYTES: usize = 3 * 32 * 32;
/// Pictures of 1 GB.
const SAMPLES: u32 = 325_521;
/// Times that everything is measured, in turns.
const TURNS: usize = 3;
/// Time between two looks at a process's memory.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `data add` of 1 GB in `.npy`.
pub(crate) fn add(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(binaries::folder())?;
    let samples = scale.of(SAMPLES);
    let (images, labels) = (folder.path().join("x.npy"), folder.path().join("y.npy"));
    write_noise(&images, &labels, samples)?;
    let bytes = f64::from(samples) * SAMPLE_BYTES as f64;
    let (mut hashed, mut copied, mut added, mut again) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut peak_bytes = 0;
    for turn in 0..TURNS {
        hashed.push(seconds(|| hash(&images))?);
        let copy = folder.path().join("copy.npy");
        copied.push(seconds(|| {
            std::fs::copy(&images, &copy)?;
            Ok(File::open(&copy)?.sync_all()?)
        })?);
        std::fs::remove_file(&copy)?;
        let store = folder.path().join(format!("store-{turn}"));
        for times in [&mut added, &mut again] {
            times.push(seconds(|| {
                let mut command = Command::new(binaries::spotsweep());
                command.args(["data", "add", "noise"]).arg(&images).arg("--labels").arg(&labels);
                command.arg("--to").arg(&store).stdout(Stdio::null()).stderr(Stdio::null());
                peak_bytes = peak_bytes.max(peak_memory(command.spawn()?)?);
                Ok(())
            })?);
        }
        std::fs::remove_dir_all(&store)?;
    }
    let rate = |times: Vec<f64>| bytes / median(times) / 1e6;
    let (hashed, copied, added, again) = (rate(hashed), rate(copied), rate(added), rate(again));
    let what = format!("{:.2} GB of pictures", bytes / 1e9);
    figures.add(format!("BLAKE3 of {what}"), hashed, "MB/s", None);
    figures.add(format!("copy of {what}, flushed"), copied, "MB/s", None);
    figures.add(format!("data add of {what}"), added, "MB/s", None);
    figures.add(
        "data add beside the slower of the two",
        added / hashed.min(copied),
        "×",
        Some(Target::AtLeast(0.5)),
    );
    figures.add("data add of what is stored already", again, "MB/s", None);
    figures.add(
        "peak memory of data add",
        peak_bytes as f64 / f64::from(1 << 20),
        "MiB",
        Some(Target::AtMost(512.0)),
    );
    Ok(())
}

fn seconds(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

fn hash(path: &Path) -> anyhow::Result<()> {
    let (mut file, mut hasher, mut block) = (File::open(path)?, blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            std::hint::black_box(hasher.finalize());
            return Ok(());
        }
        hasher.update(&block[..count]);
    }
}

/// Waits for the end of a process that should end well, and gives the most memory that it was seen to have.
fn peak_memory(mut child: Child) -> anyhow::Result<u64> {
    let mut peak = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        if let Some(status) = child.try_wait()? {
            anyhow::ensure!(status.success(), "data add ended with {status}");
            return Ok(peak);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Noise in ten classes, as `numpy.save` writes it.
fn write_noise(images: &Path, labels: &Path, samples: u32) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::from_seed([7; 32]);
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(images)?);
    file.write_all(&header(&format!("({samples}, 3, 32, 32)"))?)?;
    let mut sample = vec![0; SAMPLE_BYTES];
    for _ in 0..samples {
        rng.fill_bytes(&mut sample);
        file.write_all(&sample)?;
    }
    file.into_inner()?.sync_all()?;
    let mut file = File::create(labels)?;
    file.write_all(&header(&format!("({samples},)"))?)?;
    let labels: Vec<u8> = (0..samples).map(|_| (rng.next_u32() % 10) as u8).collect();
    Ok(file.write_all(&labels)?)
}

fn header(shape: &str) -> anyhow::Result<Vec<u8>> {
    let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(text.len()).context("a short header")?;
    Ok([b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], text.as_bytes()].concat())
}
