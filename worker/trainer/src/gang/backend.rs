//! Over what the ranks of one generation exchange: NCCL, if each of them can and it works, else Gloo.
//!
//! All ranks must take the same, so each says in the rendezvous store what it can; all read all, and decide alike. NCCL
//! counts as working once every rank has said that it is connected. It must not know what is exchanged.

use crate::error::TrainError;
use serde::{Deserialize, Serialize};
use spotsweep_trainer_shim::{
    Group, Member, Nccl, Rendezvous, TorchError, cuda_devices, interface_of, set_up_nccl,
};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt, io,
    io::Write as _,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};
use tch::Device;

/// Names the library for NCCL; empty: none is used.
pub const LIBRARY_VARIABLE: &str = "SPOTSWEEP_NCCL_LIBRARY";
/// The library's name beside the program.
pub const LIBRARY_NAME: &str = "libspotsweep_nccl.so";
/// Longest reason that a rank tells the others, in characters.
const REASON_CHARS: usize = 300;

/// What carries an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Memory of the host.
    Gloo {
        /// For ranks on GPUs: why not NCCL.
        instead: Option<String>,
    },
    /// Memory of this GPU.
    Nccl {
        /// Its number in this process.
        gpu: usize,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gloo { instead: None } => f.write_str("gloo"),
            Self::Gloo { instead: Some(why) } => write!(f, "gloo, not nccl: {why}"),
            Self::Nccl { .. } => f.write_str("nccl"),
        }
    }
}

/// A rank's GPU, and what it needs to use NCCL on it.
#[derive(Debug)]
pub struct Seat<'a> {
    /// The GPU's number in this process.
    pub gpu: usize,
    /// Which one of all GPUs; empty if nobody knows.
    pub identity: String,
    /// The library, or why there is none.
    pub library: Result<&'a Nccl, String>,
}

/// What a rank says in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Offer {
    /// It can.
    Nccl {
        /// NCCL's.
        version: String,
        /// Which one of all GPUs.
        gpu: String,
    },
    /// It cannot, and why.
    Gloo(String),
}

/// Connects with whatever all ranks can.
///
/// # Errors
/// [`TrainError::Peer`] if one of them is not there.
pub fn connect(
    member: Member<'_>,
    device: Device,
    rendezvous: &mut dyn Rendezvous,
) -> Result<(Group, Backend), TrainError> {
    let Device::Cuda(gpu) = device else { return over_gloo(member, None, rendezvous) };
    let identity = cuda_devices().into_iter().nth(gpu).map_or_else(String::new, |found| found.uuid);
    connect_on_gpus(member, &Seat { gpu, identity, library: library() }, rendezvous)
}

/// As [`connect`], for ranks on GPUs.
///
/// # Errors
/// As [`connect`].
pub fn connect_on_gpus(
    member: Member<'_>,
    seat: &Seat<'_>,
    rendezvous: &mut dyn Rendezvous,
) -> Result<(Group, Backend), TrainError> {
    let interface = interface_of(member.address);
    let own = match (&seat.library, &interface) {
        (Err(why), _) => Offer::Gloo(why.clone()),
        (Ok(_), None) => Offer::Gloo(format!("no network interface here has the address {}", member.address)),
        (Ok(library), Some(_)) => Offer::Nccl { version: library.version(), gpu: seat.identity.clone() },
    };
    let told = serde_json::to_vec(&own.shortened()).map_err(|error| lost(error.to_string()))?;
    let mut offers = Vec::new();
    for text in told_by_all(member, "offer", &told, rendezvous)? {
        offers.push(serde_json::from_slice(&text).map_err(|error| lost(format!("an offer: {error}")))?);
    }
    let (Ok(()), Ok(library)) = (agree(&offers), &seat.library) else {
        return over_gloo(member, agree(&offers).err(), rendezvous);
    };
    // Half of the wait: who fails late must still find the others waiting for its word.
    set_up_nccl(interface.as_deref(), member.timeout / 2);
    let tried = library.connect(Member { timeout: member.timeout / 2, ..member }, seat.gpu, rendezvous);
    let word = tried.as_ref().err().map_or_else(String::new, |error| first_line(&error.0));
    let words = told_by_all(member, "nccl-works", word.as_bytes(), rendezvous)?;
    let failed = words.iter().enumerate().find(|(_, word)| !word.is_empty());
    match (tried, failed) {
        (Ok(group), None) => Ok((group, Backend::Nccl { gpu: seat.gpu })),
        (tried, failed) => {
            let why = failed.map_or_else(String::new, |(rank, word)| {
                format!("rank {rank}: {}", String::from_utf8_lossy(word))
            });
            drop(tried);
            // It will not be otherwise next time, and each try may take a timeout.
            *GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
            over_gloo(member, Some(why), rendezvous)
        }
    }
}

fn over_gloo(
    member: Member<'_>,
    instead: Option<String>,
    rendezvous: &mut dyn Rendezvous,
) -> Result<(Group, Backend), TrainError> {
    let group = Group::connect(member, rendezvous).map_err(|TorchError(text)| lost(text))?;
    Ok((group, Backend::Gloo { instead }))
}

/// What every rank says under `what`, in order.
fn told_by_all(
    member: Member<'_>,
    what: &str,
    own: &[u8],
    rendezvous: &mut dyn Rendezvous,
) -> Result<Vec<Vec<u8>>, TrainError> {
    rendezvous.set(&format!("{what}/{}", member.rank), own).map_err(lost)?;
    (0..member.ranks).map(|rank| rendezvous.get(&format!("{what}/{rank}")).map_err(lost)).collect()
}

fn lost(text: String) -> TrainError {
    TrainError::Peer(text)
}

/// What there is to say of an error, and never nothing: nothing is what a rank says that has connected.
fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("an error without words");
    line.chars().take(REASON_CHARS).collect()
}

impl Offer {
    fn shortened(self) -> Self {
        match self {
            Self::Gloo(why) => Self::Gloo(first_line(&why)),
            offer @ Self::Nccl { .. } => offer,
        }
    }
}

/// Whether ranks with these offers can use NCCL together; if not, why.
fn agree(offers: &[Offer]) -> Result<(), String> {
    let mut first_version: Option<&str> = None;
    let mut on_gpu = BTreeMap::new();
    for (rank, offer) in offers.iter().enumerate() {
        let (version, gpu) = match offer {
            Offer::Nccl { version, gpu } => (version, gpu),
            Offer::Gloo(why) => return Err(format!("rank {rank}: {why}")),
        };
        let first = *first_version.get_or_insert(version);
        if first != version {
            return Err(format!("rank 0 has NCCL {first}, rank {rank} {version}"));
        }
        if gpu.is_empty() {
            return Err(format!("rank {rank}: its driver does not say which GPU it has"));
        }
        if let Some(other) = on_gpu.insert(gpu, rank) {
            return Err(format!("ranks {other} and {rank} are on one GPU"));
        }
    }
    Ok(())
}

/// Why this process does not try NCCL any more.
static GIVEN_UP: Mutex<Option<String>> = Mutex::new(None);

/// The library of this process, loaded when it is first asked for.
fn library() -> Result<&'static Nccl, String> {
    static LIBRARY: OnceLock<Result<Nccl, String>> = OnceLock::new();
    if let Some(why) = &*GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner) {
        return Err(why.clone());
    }
    let loaded = LIBRARY.get_or_init(|| {
        let path = library_path(env::var_os(LIBRARY_VARIABLE), env::current_exe().ok())?;
        Nccl::load(&path).map_err(|error| error.to_string())
    });
    loaded.as_ref().map_err(Clone::clone)
}

/// Where the library is: as the variable says, else beside the program.
fn library_path(named: Option<OsString>, program: Option<PathBuf>) -> Result<PathBuf, String> {
    match named {
        Some(path) if path.is_empty() => Err(format!("{LIBRARY_VARIABLE} is empty")),
        Some(path) => Ok(PathBuf::from(path)),
        None => program
            .and_then(|program| Some(program.parent()?.join(LIBRARY_NAME)))
            .ok_or_else(|| "this program does not know where it lies".to_owned()),
    }
}

/// Tells people on stderr over what ranks on GPUs exchange, as often as it changes.
pub fn tell_people(backend: &Backend, ranks: u32) {
    static TOLD: Mutex<Option<Backend>> = Mutex::new(None);
    if *backend == (Backend::Gloo { instead: None }) {
        return;
    }
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.as_ref() != Some(backend) {
        // If stderr is gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "spotsweep-trainer: {ranks} ranks exchange over {backend}");
        *told = Some(backend.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(version: &str, gpu: &str) -> Offer {
        Offer::Nccl { version: version.to_owned(), gpu: gpu.to_owned() }
    }

    #[test]
    fn nccl_is_used_only_if_every_rank_can_with_one_version_and_a_gpu_of_its_own() {
        assert_eq!(agree(&[offer("2.28.9", "a"), offer("2.28.9", "b")]), Ok(()));
        let why = |offers: &[Offer]| agree(offers).unwrap_err();
        assert_eq!(
            why(&[offer("2.28.9", "a"), Offer::Gloo("there is no x.so".to_owned())]),
            "rank 1: there is no x.so"
        );
        assert_eq!(
            why(&[offer("2.28.9", "a"), offer("2.27.5", "b")]),
            "rank 0 has NCCL 2.28.9, rank 1 2.27.5"
        );
        assert_eq!(why(&[offer("2", "a"), offer("2", "b"), offer("2", "a")]), "ranks 0 and 2 are on one GPU");
        assert!(why(&[offer("2", "")]).contains("which GPU"));
    }

    #[test]
    fn the_library_is_the_one_that_is_named_else_the_one_beside_the_program() {
        let program = || Some(PathBuf::from("/opt/bin/spotsweep-trainer"));
        assert_eq!(library_path(Some("/x.so".into()), program()), Ok(PathBuf::from("/x.so")));
        assert_eq!(library_path(None, program()), Ok(PathBuf::from("/opt/bin").join(LIBRARY_NAME)));
        assert!(library_path(Some(OsString::new()), program()).unwrap_err().contains(LIBRARY_VARIABLE));
    }

    #[test]
    fn a_reason_of_many_lines_is_told_in_one_short_one() {
        let long = format!("{}\nat 0x1", "x".repeat(1000));
        assert_eq!(Offer::Gloo(long).shortened(), Offer::Gloo("x".repeat(REASON_CHARS)));
        assert_eq!(first_line("\nlate"), "late");
        assert!(!first_line("").is_empty());
    }
}
