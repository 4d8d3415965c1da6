//! A gang on GPUs trains whether or not there is NCCL: what does not fit is refused in words, and all ranks take Gloo.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]
#![allow(clippy::print_stdout, reason = "figures for people")]

use spotsweep_trainer::gang::backend::{Backend, LIBRARY_VARIABLE, Seat, connect_on_gpus};
use spotsweep_trainer_shim::{Group, Member, Nccl, Rendezvous, load_cuda, torch_version};
use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Condvar, Mutex},
    thread,
    time::Duration,
};
use tch::{Kind, Tensor};

/// Never waited out.
const PATIENT: Duration = Duration::from_secs(60);

/// A library that says of itself what it is told to, and whose groups fail as c10d's do without a GPU.
const FAKE: &str = r#"
#include <stdint.h>
#include <string.h>
uint32_t spotsweep_nccl_abi(void) { return ABI; }
const char* spotsweep_nccl_torch(void) { return TORCH; }
uint64_t spotsweep_nccl_version(void) { return 2ull << 32 | 28 << 16 | 9; }
char* spotsweep_nccl_connect(void) { return strdup("no GPUs found!\nfrom somewhere in C++"); }
"#;

fn compiled(folder: &Path, name: &str, source: &str, defines: &[String]) -> PathBuf {
    let (text, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    fs::write(&text, source).unwrap();
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let made = Command::new(compiler)
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &text])
        .args(defines)
        .status()
        .unwrap();
    assert!(made.success());
    library
}

fn fake(folder: &Path, name: &str, abi: u32, torch: &str) -> PathBuf {
    compiled(folder, name, FAKE, &[format!("-DABI={abi}"), format!("-DTORCH=\"{torch}\"")])
}

#[test]
fn a_library_that_does_not_fit_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| Nccl::load(path).unwrap_err().to_string();
    let missing = refusal(&folder.path().join("none.so"));
    assert!(missing.starts_with("there is no ") && missing.ends_with("none.so"), "{missing}");
    let text = folder.path().join("text.so");
    fs::write(&text, "no library").unwrap();
    assert!(refusal(&text).contains("cannot be loaded: "), "{}", refusal(&text));
    // As that of another libtorch is: it wants what is not there.
    let source = "extern int not_there; int* wants(void) { return &not_there; }";
    let undefined = refusal(&compiled(folder.path(), "undefined", source, &[]));
    assert!(undefined.contains("not_there") && undefined.contains("hint: "), "{undefined}");
    let foreign = refusal(&compiled(folder.path(), "foreign", "int other;", &[]));
    assert!(
        foreign.ends_with("foreign.so is not Spotsweep's library for NCCL: it has no spotsweep_nccl_abi")
    );
    let newer = refusal(&fake(folder.path(), "newer", 99, torch_version()));
    assert!(newer.contains("newer.so has interface 99, and this trainer needs 1; hint: "), "{newer}");
    let older = refusal(&fake(folder.path(), "older", 1, "2.10.0"));
    let wanted =
        format!("older.so is built for libtorch 2.10.0, and this trainer for {}; hint: ", torch_version());
    assert!(older.contains(&wanted), "{older}");
}

/// A rendezvous store in this process.
#[derive(Default)]
struct Store {
    values: Mutex<HashMap<String, Vec<u8>>>,
    told: Condvar,
}

impl Rendezvous for &Store {
    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        self.values.lock().unwrap().insert(key.to_owned(), value.to_owned());
        self.told.notify_all();
        Ok(())
    }

    fn get(&mut self, key: &str) -> Result<Vec<u8>, String> {
        let values = self.values.lock().unwrap();
        let values = self.told.wait_while(values, |values| !values.contains_key(key)).unwrap();
        Ok(values[key].clone())
    }
}

/// Connects one rank a library and gives why they took Gloo, having exchanged over it.
fn fall_back(libraries: &[Result<Nccl, String>]) -> Vec<String> {
    let store = Store::default();
    let rank = |rank: usize| {
        let (number, ranks) = (rank as u32, libraries.len() as u32);
        let member = Member { rank: number, ranks, address: "127.0.0.1", timeout: PATIENT };
        let library = libraries[rank].as_ref().map_err(Clone::clone);
        let seat = Seat { gpu: 0, identity: format!("gpu {rank}"), library };
        let (group, backend) = connect_on_gpus(member, &seat, &mut &store).unwrap();
        let numbers = Tensor::from_slice(&[1.0_f32, number as f32]);
        group.all_reduce(&numbers).unwrap().wait().unwrap();
        assert_eq!(Vec::<f32>::try_from(numbers).unwrap(), [2.0, 1.0]);
        match backend {
            Backend::Gloo { instead: Some(why) } => why,
            other => panic!("{other:?}"),
        }
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..libraries.len()).map(|number| scope.spawn(move || rank(number))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn all_ranks_take_gloo_and_know_why_when_one_has_no_library_or_nccl_fails() {
    let folder = tempfile::tempdir().unwrap();
    let library = Nccl::load(&fake(folder.path(), "fake", 1, torch_version())).unwrap();
    assert_eq!(library.version(), "2.28.9");
    let none = Err("there is no library here".to_owned());
    assert_eq!(fall_back(&[Ok(library.clone()), none]), ["rank 1: there is no library here"; 2]);
    assert_eq!(fall_back(&[Ok(library.clone()), Ok(library)]), ["rank 0: no GPUs found!"; 2]);
}

fn real_library() -> Nccl {
    let path = env::var_os(LIBRARY_VARIABLE).unwrap_or_else(|| panic!("{LIBRARY_VARIABLE} names no library"));
    assert!(load_cuda(), "no libtorch_cuda.so: LD_LIBRARY_PATH is to name a libtorch with CUDA");
    Nccl::load(Path::new(&path)).unwrap()
}

#[test]
#[ignore = "needs libspotsweep_nccl.so and a libtorch with CUDA, but no GPU: CONTRIBUTING.md, Tests"]
fn without_a_gpu_the_real_library_loads_says_so_and_all_ranks_take_gloo() {
    let library = real_library();
    if tch::Cuda::is_available() {
        println!("skipped: there is a GPU");
        return;
    }
    let whys = fall_back(&[Ok(library.clone()), Ok(library)]);
    assert!(whys.iter().all(|why| why.contains("no GPUs found")), "{whys:?}");
}

#[test]
#[ignore = "needs libspotsweep_nccl.so, a libtorch with CUDA, and a GPU: python3 deploy/libtorch/gpu.py"]
fn nccl_at_world_size_1_gives_every_tensor_back_as_it_was() {
    const TURNS: u32 = 200;
    let library = real_library();
    assert!(tch::Cuda::is_available(), "no GPU");
    let store = Store::default();
    let member = Member { rank: 0, ranks: 1, address: "127.0.0.1", timeout: PATIENT };
    let seat = Seat { gpu: 0, identity: "it".to_owned(), library: Ok(&library) };
    let (group, backend) = connect_on_gpus(member, &seat, &mut &store).unwrap();
    assert_eq!(backend, Backend::Nccl { gpu: 0 });
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double, Kind::Int64, Kind::Uint8] {
        let given = Tensor::arange(100, (Kind::Float, tch::Device::Cuda(0))).to_kind(kind);
        assert!(all_operations(&group, &given).iter().all(|got| *got == given), "{kind:?}");
    }
    let row = Tensor::ones([1 << 20], (Kind::Float, tch::Device::Cuda(0)));
    let begun = std::time::Instant::now();
    for _ in 0..TURNS {
        group.all_reduce(&row).unwrap().wait().unwrap();
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS);
    println!("| NCCL {}, one rank, all-reduce of 4 MiB, with its wait | {each:.0} µs |", library.version());
}

/// What one rank gets of `given` by every operation that exchanges use.
fn all_operations(group: &Group, given: &Tensor) -> Vec<Tensor> {
    let own = || (given.copy(), given.zeros_like());
    let (reduced, _) = own();
    let (broadcast, _) = own();
    let (input, gathered) = own();
    let (_, exchanged) = own();
    group.all_reduce(&reduced).unwrap().wait().unwrap();
    group.broadcast(&broadcast, 0).unwrap().wait().unwrap();
    group.all_gather(&gathered, &input).unwrap().wait().unwrap();
    group.all_to_all(&exchanged, &[100], &input, &[100]).unwrap().wait().unwrap();
    vec![reduced, broadcast, gathered, exchanged]
}
