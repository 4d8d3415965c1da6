//! Pictures in a folder for each class, or in `train` and `test` with such folders below.
//!
//! Only headers are read at first; a picture is decoded when its turn comes. Folders are read two levels deep and no
//! further, so a symbolic link that leads back up leads nowhere.

use super::{Images, Part, SetError, Source, SourceOptions, sample_bytes, sample_count};
use image::{ImageDecoder as _, ImageReader, Limits, imageops::FilterType};
use spotsweep_proto::datasets::manifest::{CLASSES, ElementType};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Largest width and height of a picture, in pixels.
const SIDE_PIXELS: u32 = 16_384;
/// Most memory that decoding one picture may take, in bytes.
const DECODE_BYTES: u64 = 512 << 20;
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];

/// The pictures of one part.
#[derive(Debug)]
struct Pictures {
    paths: Vec<PathBuf>,
    shape: [u32; 3],
    resize: Option<[u32; 2]>,
}

impl Images for Pictures {
    fn read(&mut self, first: u32, into: &mut [u8]) -> Result<(), SetError> {
        let sample_bytes = self.shape.iter().product::<u32>() as usize;
        for (path, sample) in self.paths[first as usize..].iter().zip(into.chunks_exact_mut(sample_bytes)) {
            self.decode(path, sample)?;
        }
        Ok(())
    }
}

impl Pictures {
    fn decode(&self, path: &Path, into: &mut [u8]) -> Result<(), SetError> {
        let [channels, height, width] = self.shape;
        let mut picture = open_picture(path)?.decode().map_err(|error| broken(path, &error))?;
        if self.resize.is_some() && (picture.width(), picture.height()) != (width, height) {
            picture = picture.resize_exact(width, height, FilterType::Triangle);
        }
        if (picture.width(), picture.height()) != (width, height) {
            let problem =
                format!("has another size than its header said: {}x{}", picture.width(), picture.height());
            return Err(SetError::source(path, problem, "it is damaged, or was changed meanwhile"));
        }
        if channels == 1 {
            into.copy_from_slice(&picture.into_luma8());
        } else {
            let colours = picture.into_rgb8();
            let plane = (height * width) as usize;
            for (at, pixel) in colours.as_raw().chunks_exact(3).enumerate() {
                for (channel, value) in pixel.iter().enumerate() {
                    into[channel * plane + at] = *value;
                }
            }
        }
        Ok(())
    }
}

fn broken(path: &Path, error: &image::ImageError) -> SetError {
    SetError::source(path, format!("is no whole PNG or JPEG: {error}"), "remove it, or get it anew")
}

fn open_picture(path: &Path) -> Result<ImageReader<std::io::BufReader<fs::File>>, SetError> {
    let opened = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let mut reader = opened.map_err(SetError::io("read", path))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_PIXELS);
    limits.max_image_height = Some(SIDE_PIXELS);
    limits.max_alloc = Some(DECODE_BYTES);
    reader.limits(limits);
    Ok(reader)
}

/// What headers tell of one part.
struct Found {
    paths: Vec<PathBuf>,
    labels: Vec<u16>,
    coloured: bool,
    /// The first picture and its width and height.
    first: Option<(PathBuf, [u32; 2])>,
}

/// Opens a folder of class folders.
pub(super) fn open(folder: &Path, options: &SourceOptions) -> Result<Source, SetError> {
    let (train, test) = match (options.test.clone(), folder.join("train"), folder.join("test")) {
        (None, train, test) if train.is_dir() && test.is_dir() => (train, Some(test)),
        (test, ..) => (folder.to_owned(), test),
    };
    let classes = match &options.classes {
        Some(classes) => classes.clone(),
        None => class_folders(&train)?,
    };
    let found = look(&train, &classes, options)?;
    let found_test = test.as_deref().map(|test| look(test, &classes, options)).transpose()?;
    let coloured = found.coloured || found_test.as_ref().is_some_and(|test| test.coloured);
    let (first, [width, height]) = found.first.clone().ok_or_else(|| empty(&train))?;
    let [width, height] = options.resize.unwrap_or([width, height]);
    if let (None, Some((path, size))) = (options.resize, found_test.as_ref().and_then(|t| t.first.clone()))
        && size != [width, height]
    {
        return Err(sizes(&path, size, &first, [width, height]));
    }
    let shape = [if coloured { 3 } else { 1 }, height, width];
    sample_bytes(folder, shape, ElementType::U8)?;
    let part = |path: &Path, found: Found| Part {
        images: Box::new(Pictures { paths: found.paths, shape, resize: options.resize }),
        labels: found.labels,
        path: path.to_owned(),
    };
    let notes =
        vec![format!("pictures are {} of {width}x{height}", if coloured { "in colour" } else { "grey" })];
    let test = test.zip(found_test).map(|(path, found)| part(&path, found));
    Ok(Source { shape, elements: ElementType::U8, classes, train: part(&train, found), test, notes })
}

fn empty(folder: &Path) -> SetError {
    SetError::source(
        folder,
        "holds no pictures in class folders",
        "make a folder for each class, with its pictures in it",
    )
}

fn sizes(path: &Path, size: [u32; 2], first: &Path, wanted: [u32; 2]) -> SetError {
    let problem =
        format!("is {}x{}, and {} is {}x{}", size[0], size[1], first.display(), wanted[0], wanted[1]);
    SetError::source(path, problem, "--resize WIDTHxHEIGHT brings all pictures to one size")
}

/// Names in a folder, sorted, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, SetError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(SetError::io("read", folder))? {
        let path = entry.map_err(SetError::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_str().map(str::to_owned);
        let name =
            name.ok_or_else(|| SetError::source(&path, "has a name that is not UTF-8", "rename it"))?;
        if !name.starts_with('.') {
            entries.push((name, path));
        }
    }
    entries.sort();
    Ok(entries)
}

fn class_folders(folder: &Path) -> Result<Vec<String>, SetError> {
    let folders: Vec<String> =
        entries(folder)?.into_iter().filter(|(_, path)| path.is_dir()).map(|(name, _)| name).collect();
    match folders.len() {
        0 => Err(empty(folder)),
        n if n > CLASSES => Err(SetError::source(
            folder,
            format!("has {n} class folders"),
            format!("there are at most {CLASSES} classes"),
        )),
        _ => Ok(folders),
    }
}

fn look(folder: &Path, classes: &[String], options: &SourceOptions) -> Result<Found, SetError> {
    let mut found = Found { paths: Vec::new(), labels: Vec::new(), coloured: false, first: None };
    for (name, path) in entries(folder)? {
        if !path.is_dir() {
            let hint = "pictures lie in a folder for each class";
            return Err(SetError::source(&path, "lies beside the class folders", hint));
        }
        let label =
            classes.iter().position(|class| *class == name).and_then(|place| u16::try_from(place).ok());
        let label = label.ok_or_else(|| {
            SetError::source(
                &path,
                "is the folder of no class",
                "both parts need the same classes; --classes names them",
            )
        })?;
        for (name, path) in entries(&path)? {
            let ending = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
            if path.is_dir() || !ENDINGS.contains(&ending.as_str()) {
                let what =
                    if path.is_dir() { "is a folder within a class folder" } else { "is no .png or .jpg" };
                return Err(SetError::source(&path, what, "a class folder holds pictures and nothing else"));
            }
            let decoder = open_picture(&path)?.into_decoder().map_err(|error| broken(&path, &error))?;
            let (width, height) = decoder.dimensions();
            if width == 0 || height == 0 || width > SIDE_PIXELS || height > SIDE_PIXELS {
                let problem = format!("is {width}x{height}; {SIDE_PIXELS} pixels a side is the limit");
                return Err(SetError::source(&path, problem, "make it smaller"));
            }
            found.coloured |= decoder.color_type().has_color();
            match &found.first {
                Some((first, size)) if *size != [width, height] && options.resize.is_none() => {
                    return Err(sizes(&path, [width, height], first, *size));
                }
                Some(_) => {}
                None => found.first = Some((path.clone(), [width, height])),
            }
            sample_count(folder, found.paths.len() as u64 + 1)?;
            found.paths.push(path);
            found.labels.push(label);
        }
    }
    Ok(found)
}
