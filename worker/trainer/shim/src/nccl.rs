//! The library that connects groups over NCCL (`cpp/nccl/nccl.cpp`): loading it, and asking first whether it fits.
//!
//! It must not decide whether NCCL is used: that is agreed upon by the ranks of a gang, in the trainer.

use crate::{
    Group, Member, Rendezvous, TorchError,
    collectives::{Context, ask, milliseconds, small, tell},
    loader::Library,
    native::{Ask, CGroup, Tell},
    taken, torch_version,
};
use libc::{c_char, c_int, c_void};
use std::{
    ffi::{CStr, CString},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr,
    sync::Once,
    time::Duration,
};

/// The interface of which a library is wanted.
const ABI: u32 = 1;

/// Why there is no NCCL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NcclError {
    /// It is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// The loader refuses it.
    #[error("{} cannot be loaded: {reason}; hint: it needs a libtorch {} with CUDA in the library path", .path.display(), torch_version())]
    Unloadable {
        /// Which.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// It is another library.
    #[error("{} is not Spotsweep's library for NCCL: it has no {symbol}", .path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What it lacks.
        symbol: &'static str,
    },
    /// It has another interface.
    #[error("{} has interface {found}, and this trainer needs {ABI}; hint: build it again, from the trainer's source", .path.display())]
    Abi {
        /// Which.
        path: PathBuf,
        /// Its interface.
        found: u32,
    },
    /// It was built for another libtorch.
    #[error("{} is built for libtorch {found}, and this trainer for {}; hint: build it again, for that one", .path.display(), torch_version())]
    Torch {
        /// Which.
        path: PathBuf,
        /// Its libtorch.
        found: String,
    },
}

type Abi = unsafe extern "C" fn() -> u32;
type Torch = unsafe extern "C" fn() -> *const c_char;
type Version = unsafe extern "C" fn() -> u64;
type Connect =
    unsafe extern "C" fn(*mut c_void, Tell, Ask, c_int, c_int, c_int, i64, *mut *mut CGroup) -> *mut c_char;

/// The library, loaded for the life of the process.
#[derive(Debug, Clone)]
pub struct Nccl {
    version: u64,
    connect: Connect,
}

impl Nccl {
    /// Loads it from `path`. Call it after [`crate::load_cuda`] has found libtorch's CUDA half.
    ///
    /// # Errors
    /// Every [`NcclError`]; nothing of a library that does not fit is called but to ask what it is.
    pub fn load(path: &Path) -> Result<Self, NcclError> {
        let own = || path.to_owned();
        if !path.is_file() {
            return Err(NcclError::Missing(own()));
        }
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| NcclError::Missing(own()))?;
        let Some(library) = Library::open(&name, libc::RTLD_LOCAL) else {
            return Err(NcclError::Unloadable { path: own(), reason: loader_error() });
        };
        let find = |name: &'static CStr| -> Result<*mut c_void, NcclError> {
            let symbol = name.to_str().unwrap_or_default();
            library.find(name).ok_or_else(|| NcclError::Foreign { path: own(), symbol })
        };
        let (abi, torch) = (find(c"spotsweep_nccl_abi")?, find(c"spotsweep_nccl_torch")?);
        // SAFETY: functions of these names have had these signatures in every version of the interface.
        let (abi, torch) = unsafe {
            (std::mem::transmute::<*mut c_void, Abi>(abi), std::mem::transmute::<*mut c_void, Torch>(torch))
        };
        // SAFETY: no arguments.
        let found = unsafe { abi() };
        if found != ABI {
            return Err(NcclError::Abi { path: own(), found });
        }
        // SAFETY: no arguments; it gives a constant C string.
        let found = unsafe { CStr::from_ptr(torch()) }.to_string_lossy();
        if found != torch_version() {
            return Err(NcclError::Torch { path: own(), found: found.into_owned() });
        }
        let (version, connect) = (find(c"spotsweep_nccl_version")?, find(c"spotsweep_nccl_connect")?);
        // SAFETY: functions of these names have these signatures in this version of the interface.
        let (version, connect) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Version>(version),
                std::mem::transmute::<*mut c_void, Connect>(connect),
            )
        };
        // SAFETY: no arguments.
        Ok(Self { version: unsafe { version() }, connect })
    }

    /// NCCL's version, for instance `2.28.9`. Ranks of one group need the same.
    #[must_use]
    pub fn version(&self) -> String {
        let part = |shift: u32| (self.version >> shift) & 0xffff;
        format!("{}.{}.{}", self.version >> 32, part(16), part(0))
    }

    /// Connects to all other members, with GPU number `device` of this process, and tries whether an operation works.
    /// Waits for a peer as long as [`set_up_nccl`] was told. Operations take tensors on that GPU alone.
    ///
    /// # Errors
    /// What the rendezvous said or libtorch threw, for instance that there is no GPU.
    pub fn connect(
        &self,
        member: Member<'_>,
        device: usize,
        rendezvous: &mut dyn Rendezvous,
    ) -> Result<Group, TorchError> {
        let mut context = Context(rendezvous);
        let mut handle = ptr::null_mut();
        // SAFETY: as in `Group::connect`; the library was asked whether it is built for this interface and this libtorch.
        taken(unsafe {
            (self.connect)(
                (&raw mut context).cast(),
                tell,
                ask,
                small(member.rank),
                small(member.ranks),
                c_int::try_from(device).unwrap_or(c_int::MAX),
                milliseconds(member.timeout),
                &raw mut handle,
            )
        })?;
        if handle.is_null() {
            return Err(TorchError("the library for NCCL gave no group".to_owned()));
        }
        Ok(Group::over_nccl(handle, &member))
    }
}

/// Tells NCCL and c10d, which read the environment, how they are used here; the first call counts for the life of the
/// process. `interface` is the network interface for all traffic, `patience` the longest wait for a peer that connects.
///
/// What the person who started the process has set stays, but for what the process's life depends on:
///
/// - `TORCH_NCCL_BLOCKING_WAIT=1`: the caller waits, and no watchdog ends the process when a peer is lost.
/// - `TORCH_NCCL_ASYNC_ERROR_HANDLING=0`, `TORCH_NCCL_ENABLE_MONITORING=0`, `TORCH_NCCL_DUMP_ON_TIMEOUT=0` and
///   `TORCH_NCCL_PROPAGATE_ERROR=0`: nor does anything else, and nobody asks the store once it is closed.
///
/// Source: PyTorch 2.11's documentation "ProcessGroupNCCL Environment Variables", NCCL's "Environment Variables".
pub fn set_up_nccl(interface: Option<&str>, patience: Duration) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let set = |name: &str, value: &str| {
            // SAFETY: it is called before libtorch's and NCCL's threads that read the environment exist; the threads
            // that are there (the reader of stdin, libtorch's workers) do not read it.
            unsafe { std::env::set_var(name, value) };
        };
        let offer = |name: &str, value: &str| {
            if std::env::var_os(name).is_none() {
                set(name, value);
            }
        };
        set("TORCH_NCCL_BLOCKING_WAIT", "1");
        for name in ["ASYNC_ERROR_HANDLING", "ENABLE_MONITORING", "DUMP_ON_TIMEOUT", "PROPAGATE_ERROR"] {
            set(&format!("TORCH_NCCL_{name}"), "0");
        }
        set("TORCH_NCCL_NONBLOCKING_TIMEOUT", &patience.as_secs().max(1).to_string());
        if let Some(interface) = interface {
            // `=`: this one, and none whose name begins so.
            offer("NCCL_SOCKET_IFNAME", &format!("={interface}"));
            // InfiniBand and RoCE would go past it.
            if std::env::var_os("NCCL_IB_HCA").is_none() {
                offer("NCCL_IB_DISABLE", "1");
            }
        }
    });
}

/// The network interface of this machine that has `address`, an IP address or a host name; `None` if none has.
#[must_use]
pub fn interface_of(address: &str) -> Option<String> {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    let wanted: Vec<IpAddr> = match bare.parse() {
        Ok(ip) => vec![ip],
        Err(_) => (bare, 0).to_socket_addrs().ok()?.map(|found| found.ip()).collect(),
    };
    let mut list = ptr::null_mut();
    // SAFETY: the out pointer is a variable of ours.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return None;
    }
    let mut found = None;
    let mut next = list;
    while !next.is_null() && found.is_none() {
        // SAFETY: `next` is an element of the list that getifaddrs gave, which is freed only behind the loop; its name
        // is a C string, and its address is null or one of the family that it says.
        unsafe {
            let entry = &*next;
            if ip_of(entry.ifa_addr).is_some_and(|ip| wanted.contains(&ip)) {
                found = Some(CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned());
            }
            next = entry.ifa_next;
        }
    }
    // SAFETY: the list came from getifaddrs and is given back once.
    unsafe { libc::freeifaddrs(list) };
    found
}

/// # Safety
/// `address` is null, or goes to a socket address of the family that it says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's promise; both kinds may be read wherever they lie.
    unsafe {
        match c_int::from((*address).sa_family) {
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let address = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

/// What the loader said last.
fn loader_error() -> String {
    // SAFETY: dlerror gives null or a C string that stays until this thread's next call of the loader.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_goes_to_the_interface_that_has_the_address() {
        assert_eq!(interface_of("127.0.0.1").as_deref(), Some("lo"));
        assert_eq!(interface_of("localhost").as_deref(), Some("lo"));
        // Of a block for documentation (RFC 5737): nobody's.
        assert_eq!(interface_of("192.0.2.77"), None);
        assert_eq!(interface_of("no such host"), None);
    }
}
