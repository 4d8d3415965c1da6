//! What every format must read, and what it must refuse: cut short, altered, hostile. Makes sources for the tests of
//! the store too.

use super::*;
use flate2::{Compression, write::GzEncoder};
use image::{GrayImage, RgbImage};
use proptest::prelude::*;
use std::{fs, io::Write as _};

pub(in crate::data) fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(dimensions.len()).unwrap()];
    bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

pub(in crate::data) fn npy(descr: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(text.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), elements].concat()
}

fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// All samples of a part, as they would be stored.
fn all(source: &mut Source) -> Vec<u8> {
    let bytes = sample_bytes(Path::new("x"), source.shape, source.elements).unwrap();
    let mut into = vec![0; bytes * source.train.labels.len()];
    source.train.images.read(0, &mut into).unwrap();
    let mut one_by_one = vec![0; into.len()];
    for (place, sample) in one_by_one.chunks_exact_mut(bytes).enumerate() {
        source.train.images.read(u32::try_from(place).unwrap(), sample).unwrap();
    }
    assert_eq!(into, one_by_one, "alone and in a row are the same");
    into
}

/// What is said of a source that must be refused.
fn refused(path: &Path, options: &SourceOptions) -> String {
    match open(path, options) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(error) => {
            assert!(!error.hint().is_empty(), "{error}");
            error.to_string()
        }
    }
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn labels(path: PathBuf) -> SourceOptions {
    SourceOptions { labels: Some(path), ..SourceOptions::default() }
}

#[test]
fn idx_files_are_read_plain_or_gzipped_and_their_lies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let pixels: Vec<u8> = (0..24).collect();
    file(path, "train-images-idx3-ubyte", &idx(&[4, 2, 3], &pixels));
    file(path, "train-labels-idx1-ubyte.gz", &gzip(&idx(&[4], &[0, 1, 2, 0])));
    file(path, "t10k-images-idx3-ubyte.gz", &gzip(&idx(&[2, 2, 3], &pixels[..12])));
    file(path, "t10k-labels-idx1-ubyte", &idx(&[2], &[2, 1]));
    let mut source = open(path, &SourceOptions::default()).unwrap();
    assert_eq!((source.shape, all(&mut source)), ([1, 2, 3], pixels.clone()));
    assert_eq!(source.classes, ["0", "1", "2"]);
    assert_eq!(source.test.unwrap().labels, [2, 1]);

    let endless = gzip(&[&idx(&[2, 2, 3], &[])[..], &vec![0; 1 << 22]].concat());
    for (name, bytes, part) in [
        ("train-images-idx3-ubyte", idx(&[4, 2, 3], &pixels[..23]), "has 39 bytes instead of the 40"),
        ("train-images-idx3-ubyte", idx(&[5, 2, 3], &pixels), "has 40 bytes instead of the 46"),
        ("train-images-idx3-ubyte", idx(&[u32::MAX, u32::MAX, u32::MAX], &pixels), "more than the"),
        ("train-images-idx3-ubyte", idx(&[4, 0, 3], &[]), "without elements"),
        ("train-images-idx3-ubyte", vec![0, 0, 8], "ends before its header does"),
        ("train-images-idx3-ubyte", vec![0, 0, 8, 200], "does not begin as an IDX file"),
        ("train-images-idx3-ubyte", vec![0, 0, 13, 3, 0, 0, 0, 0], "does not begin as an IDX file"),
        ("t10k-images-idx3-ubyte.gz", endless, "holds more bytes"),
        ("t10k-images-idx3-ubyte.gz", gzip(&idx(&[2, 3, 2], &pixels[..12])), "has images of [1, 3, 2]"),
        ("train-labels-idx1-ubyte.gz", gzip(&idx(&[3], &[0, 1, 2])), "has 4 images and 3 labels"),
        ("train-labels-idx1-ubyte.gz", gzip(&idx(&[4], &[0, 1, 2, 0]))[..20].to_vec(), "cannot be unpacked"),
    ] {
        let whole = fs::read(path.join(name)).unwrap();
        file(path, name, &bytes);
        let message = refused(path, &SourceOptions::default());
        assert!(message.contains(part), "{name}: {message}");
        file(path, name, &whole);
    }
    fs::remove_file(path.join("t10k-labels-idx1-ubyte")).unwrap();
    assert!(refused(path, &SourceOptions::default()).contains("begins with t10k-labels"));
}

#[test]
fn arrays_of_bytes_and_floats_are_read_and_colours_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let y = file(path, "y.npy", &npy("<i8", "(2,)", &[1u64, 0].map(u64::to_le_bytes).concat()));
    let open = |name: &str, bytes: Vec<u8>| open(&file(path, name, &bytes), &labels(y.clone())).unwrap();
    let mut flat = open("a.npy", npy("<f4", "(2, 3)", &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));
    assert_eq!((flat.shape, flat.train.labels.clone()), ([1, 1, 3], vec![1, 0]));
    assert_eq!(all(&mut flat), floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let doubles: Vec<u8> = [1.0f64, 2.5, -3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(all(&mut open("b.npy", npy("<f8", "(2, 2)", &doubles))), floats(&[1.0, 2.5, -3.0, 4.0]));
    let pixels: Vec<u8> = (0..24).collect();
    let mut last = open("c.npy", npy("|u1", "(2, 2, 2, 3)", &pixels));
    assert_eq!(last.shape, [3, 2, 2]);
    assert_eq!(all(&mut last)[..12], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
    assert_eq!(open("d.npy", npy("|u1", "(2, 3, 2, 2)", &pixels)).shape, [3, 2, 2]);
}

#[test]
fn arrays_whose_headers_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let y = file(path, "y.npy", &npy("|u1", "(2,)", &[1, 0]));
    let x = npy("|u1", "(2, 3)", &[0; 6]);
    let raw =
        |text: &str| [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
    for (bytes, part) in [
        (x[..x.len() - 1].to_vec(), "its header promises"),
        ([&x[..], &[0]].concat(), "its header promises"),
        (x[..9].to_vec(), "ends before its header does"),
        (b"PK\x03\x04 no array at all".to_vec(), "does not begin as a .npy file"),
        (npy("|u1", "(1000000000000, 3)", &[0; 6]), "its header promises"),
        (npy("|u1", "(18446744073709551615, 18446744073709551615)", &[0; 6]), "more than any disk holds"),
        (npy("|u1", "(-2, -3)", &[0; 6]), "a header that is not NumPy's"),
        (npy("|u1", "(2, 1e3)", &[0; 6]), "a header that is not NumPy's"),
        (npy("|u1", "(99999999999999999999999, 3)", &[0; 6]), "a header that is not NumPy's"),
        (npy("|u1", "(2, 1, 1, 1, 3)", &[0; 6]), "has 5 dimensions"),
        (npy("|u1", "(2, 0)", &[]), "without elements"),
        (npy(">f4", "(2, 3)", &[0; 24]), "of the type >f4"),
        (npy("|O8", "(2, 3)", &[0; 48]), "of the type |O8"),
        (npy("|u1", "(3, 3)", &[0; 9]), "has 3 images and 2 labels"),
        (raw("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }"), "in Fortran order"),
        (raw("{'descr': '|u1', 'shape': (2, 3), }"), "a header that is not NumPy's"),
        (raw("__import__('os').system('true')"), "a header that is not NumPy's"),
        ([b"\x93NUMPY\x02\x00", &u32::MAX.to_le_bytes()[..]].concat(), "has a header of 4294967295 bytes"),
        ([b"\x93NUMPY\x09\x00", &[0; 8][..]].concat(), "is of version 9"),
    ] {
        let message = refused(&file(path, "x.npy", &bytes), &labels(y.clone()));
        assert!(message.contains(part), "{part:?}: {message}");
    }
    let x = file(path, "x.npy", &x);
    for (bytes, part) in [
        (npy("<i4", "(2,)", &[(-1i32).to_le_bytes(), 0i32.to_le_bytes()].concat()), "a label below 0"),
        (npy("<u8", "(2,)", &[u64::MAX, 0].map(u64::to_le_bytes).concat()), "a label of 65535 or more"),
        (npy("<f4", "(2,)", &floats(&[1.0, 0.0])), "labels of the type <f4"),
        (npy("|u1", "(2, 3)", &[0; 6]), "not the one dimension"),
    ] {
        let message = refused(&x, &labels(file(path, "y.npy", &bytes)));
        assert!(message.contains(part), "{part:?}: {message}");
    }
    assert!(refused(&x, &SourceOptions::default()).contains("labels in another .npy"));
}

#[test]
fn packed_arrays_are_read_and_bombs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let x = npy("|u1", "(2, 2, 2)", &[1, 2, 3, 4, 5, 6, 7, 8]);
    let y = npy("|u1", "(2,)", &[1, 0]);
    let good =
        npz(&[("x_train", x.clone()), ("y_train", y.clone()), ("x_test", x.clone()), ("y_test", y.clone())]);
    let mut source = open(&file(path, "a.npz", &good), &SourceOptions::default()).unwrap();
    assert_eq!(all(&mut source), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(source.test.unwrap().labels, [1, 0]);
    // 64 MiB of zeros behind a header that promises eight bytes: packed a thousandfold.
    let bomb = npy("|u1", "(2, 2, 2)", &vec![0; 64 << 20]);
    let label_bomb = npy("|u1", "(2,)", &vec![0; 1 << 20]);
    for (bytes, part) in [
        (npz(&[("images", bomb), ("labels", y.clone())]), "holds more bytes of samples instead of the 8"),
        (npz(&[("images", x.clone()), ("labels", label_bomb)]), "more bytes than its header promises"),
        (npz(&[("images", x[..x.len() - 1].to_vec()), ("labels", y.clone())]), "holds 7 bytes of samples"),
        (
            npz(&[("images", npy("|u1", "(50000000, 4096, 4096)", &[])), ("labels", y.clone())]),
            "holds 0 bytes",
        ),
        (
            npz(&[("images", npy("|u1", "(50000000, 99999, 99999)", &[])), ("labels", y.clone())]),
            "99999x99999",
        ),
        (npz(&[("other", x.clone()), ("labels", y)]), "has no arrays of images and labels, but"),
        (npz(&[]), "has no arrays"),
        (good[..good.len() / 2].to_vec(), "is no whole .npz"),
        (b"no zip".to_vec(), "is no whole .npz"),
        (npz(&(0..65).map(|i| (["a", "b"][i % 2], Vec::new())).take(1).collect::<Vec<_>>()), "has no arrays"),
    ] {
        let message = refused(&file(path, "b.npz", &bytes), &SourceOptions::default());
        assert!(message.contains(part), "{part:?}: {message}");
    }
    let mut altered = good;
    let at = altered.len() / 8;
    altered[at] ^= 0xff;
    let _refused_or_not_reached = open(&file(path, "c.npz", &altered), &SourceOptions::default());
}

#[test]
fn tables_are_read_with_and_without_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let with = "length,width,species\n5.1,3.5,setosa\n6.2, 2.9 ,\"virginica\"\n5.0,3.0,setosa\n";
    let mut source = open(&file(path, "a.csv", with.as_bytes()), &SourceOptions::default()).unwrap();
    assert_eq!(
        (source.shape, &source.classes[..]),
        ([1, 1, 2], &["setosa".to_owned(), "virginica".to_owned()][..])
    );
    assert_eq!(source.train.labels, [0, 1, 0]);
    assert_eq!(all(&mut source), floats(&[5.1, 3.5, 6.2, 2.9, 5.0, 3.0]));
    let without = b"10,1,2\n9,3,4\n";
    let column =
        |column: &str| SourceOptions { label_column: Some(column.into()), ..SourceOptions::default() };
    let mut source = open(&file(path, "b.csv.gz", &gzip(without)), &column("0")).unwrap();
    assert_eq!(source.classes, ["9", "10"], "numbers are sorted as numbers");
    assert_eq!((source.train.labels.clone(), all(&mut source)), (vec![1, 0], floats(&[1.0, 2.0, 3.0, 4.0])));
    let shaped = SourceOptions { shape: Some([1, 2, 1]), ..column("0") };
    assert_eq!(open(&file(path, "b.csv", without), &shaped).unwrap().shape, [1, 2, 1]);
    let wrong = SourceOptions { shape: Some([1, 2, 3]), ..column("0") };
    assert!(refused(&file(path, "b.csv", without), &wrong).contains("--shape 1x2x3 is 6 elements"));
    let test = file(path, "t.csv", b"length,width,species\n1,2,versicolor\n");
    let options = SourceOptions { test: Some(test), ..SourceOptions::default() };
    assert!(refused(&path.join("a.csv"), &options).contains("the label \"versicolor\", which is no class"));
}

#[test]
fn tables_with_holes_and_tricks_are_refused_with_the_line() {
    let folder = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("a,label\n1,x\n2\n", "line 3 has 1 fields, and the lines before have 2"),
        ("a,label\n1,x\n2,y,3\n", "line 3 has 3 fields"),
        ("a,label\n1,x\nNaN,y\n", "line 3, column 0: \"NaN\" is no finite number"),
        ("a,label\ninf,x\n", "line 2, column 0"),
        ("a,label\n1e99,x\n", "line 2, column 0"),
        ("a,label\n,x\n", "line 2, column 0: \"\""),
        ("a,label\n1,\n", "line 2 has no label"),
        ("a,label\n1,x\n\"2,y\n3,z\n", "fields"),
        ("a,b\n1,2\n", "does not say which column holds the labels"),
        ("1,2\n", "does not say which column holds the labels"),
        ("label\nx\n", "has one column"),
        ("", "is empty"),
        ("a,label\n", "holds no samples"),
        ("a,label\n1,\u{1b}[31mred\n", "a class has the name"),
    ] {
        let message = refused(&file(folder.path(), "t.csv", text.as_bytes()), &SourceOptions::default());
        assert!(message.contains(part), "{text:?}: {message}");
    }
    let column = SourceOptions { label_column: Some("lable".into()), ..SourceOptions::default() };
    let error = open(&file(folder.path(), "t.csv", b"a,label\n1,x\n"), &column).map(|_| ()).unwrap_err();
    assert_eq!(error.hint(), "did you mean label?");
    assert!(
        refused(&file(folder.path(), "u.csv", b"a,label\n1,\xff\n"), &SourceOptions::default())
            .contains("line 2")
    );
}

fn picture(path: &Path, width: u32, height: u32, shade: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_pixel(width, height, image::Luma([shade])).save(path).unwrap();
}

#[test]
fn pictures_are_read_by_class_folders_and_brought_to_one_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (class, shade) in [("cat", 10), ("dog", 200)] {
        picture(&path.join("train").join(class).join("a.png"), 2, 3, shade);
        picture(&path.join("test").join(class).join("b.png"), 2, 3, shade);
    }
    fs::write(path.join("train/cat/.DS_Store"), "hidden").unwrap();
    let mut source = open(path, &SourceOptions::default()).unwrap();
    assert_eq!((source.shape, &source.classes[..]), ([1, 3, 2], &["cat".to_owned(), "dog".to_owned()][..]));
    assert_eq!(all(&mut source), [vec![10; 6], vec![200; 6]].concat());
    assert_eq!(source.test.unwrap().labels, [0, 1]);
    RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3])).save(path.join("train/dog/c.jpg")).unwrap();
    assert!(refused(path, &SourceOptions::default()).contains("is 4x4, and"));
    let resize = SourceOptions { resize: Some([2, 3]), ..SourceOptions::default() };
    let mut source = open(path, &resize).unwrap();
    assert_eq!(source.shape, [3, 3, 2], "one picture in colour makes all so");
    assert_eq!(all(&mut source)[..18], [10; 18]);
}

#[test]
fn folders_with_anything_but_whole_pictures_are_refused() {
    let fresh = || {
        let folder = tempfile::tempdir().unwrap();
        picture(&folder.path().join("cat/a.png"), 2, 2, 1);
        picture(&folder.path().join("dog/a.png"), 2, 2, 1);
        folder
    };
    let check = |change: &dyn Fn(&Path), part: &str| {
        let folder = fresh();
        change(folder.path());
        let message = refused(folder.path(), &SourceOptions::default());
        assert!(message.contains(part), "{part:?}: {message}");
    };
    check(&|path| fs::write(path.join("cat/b.png"), b"no picture").unwrap(), "is no whole PNG or JPEG");
    check(&|path| fs::write(path.join("cat/notes.txt"), b"x").unwrap(), "is no .png or .jpg");
    check(&|path| fs::write(path.join("stray.png"), b"x").unwrap(), "lies beside the class folders");
    check(&|path| fs::create_dir(path.join("cat/more")).unwrap(), "is a folder within a class folder");
    // A link back up must end, and be told of.
    check(
        &|path| std::os::unix::fs::symlink(path, path.join("cat/loop")).unwrap(),
        "is a folder within a class folder",
    );
    check(
        &|path| std::os::unix::fs::symlink(path.join("cat/x.png"), path.join("cat/x.png")).unwrap(),
        "x.png",
    );
    check(&|path| picture(&path.join("cat/b.png"), 1, 1, 1), "is 1x1, and");
    // A picture whose header claims more than any memory.
    check(&|path| fs::write(path.join("cat/0.png"), png_header(60_000, 60_000)).unwrap(), "0.png");
    check(&|path| fs::write(path.join("cat/0.png"), png_header(0, 5)).unwrap(), "0.png");
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(folder.path(), &SourceOptions::default()).contains("holds no pictures in class folders"));
    // Headers are read at first; what is cut short behind them is told when its turn comes.
    let folder = fresh();
    let whole = fs::read(folder.path().join("cat/a.png")).unwrap();
    fs::write(folder.path().join("cat/a.png"), &whole[..whole.len() - 20]).unwrap();
    if let Ok(mut source) = open(folder.path(), &SourceOptions::default()) {
        let error = source.train.images.read(0, &mut [0; 4]).unwrap_err().to_string();
        assert!(error.contains("cat/a.png: is no whole PNG or JPEG"), "{error}");
    }
}

/// The beginning of a PNG of this size, with its checksum right.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 0, 0, 0, 0]);
    let checksum = crc32fast::hash(&chunk).to_be_bytes();
    [b"\x89PNG\r\n\x1a\n", &13u32.to_be_bytes()[..], &chunk, &checksum, &0u32.to_be_bytes(), b"IDAT"].concat()
}

#[test]
fn what_is_no_data_at_all_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(&folder.path().join("gone.npz"), &SourceOptions::default()).contains("cannot read"));
    assert!(refused(&file(folder.path(), "x.parquet", b""), &SourceOptions::default()).contains("no format"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_bytes_stand_in_a_file_nothing_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300), which in 0usize..4,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let y = file(folder.path(), "y.npy", &npy("|u1", "(2,)", &[0, 1]));
        let name = ["x.npy", "x.npz", "x.csv", "x.csv.gz"][which];
        let _outcome = open(&file(folder.path(), name, &bytes), &labels(y));
        file(folder.path(), "train-images-idx3-ubyte", &bytes);
        file(folder.path(), "train-labels-idx1-ubyte", &bytes);
        let _outcome = open(folder.path(), &SourceOptions::default());
    }

    #[test]
    fn a_good_file_with_any_byte_changed_or_cut_anywhere_never_panics(at in 0usize..400, to: u8, cut: bool) {
        let folder = tempfile::tempdir().unwrap();
        let y = file(folder.path(), "y.npy", &npy("|u1", "(2,)", &[0, 1]));
        let array = npy("|u1", "(2, 2, 2)", &[1, 2, 3, 4, 5, 6, 7, 8]);
        let packed = npz(&[("images", array.clone()), ("labels", npy("|u1", "(2,)", &[1, 0]))]);
        for (name, mut bytes) in [("x.npy", array), ("x.npz", packed)] {
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] = to }
            let _outcome = open(&file(folder.path(), name, &bytes), &labels(y.clone()));
        }
    }
}
