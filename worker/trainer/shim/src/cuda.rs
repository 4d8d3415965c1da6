//! Names and memory of GPUs, asked of NVIDIA's driver, because libtorch's C interface does not tell them.
//!
//! Source of the signatures: NVIDIA's CUDA Driver API reference, "Device Management".

use crate::loader::Library;
use libc::{c_char, c_int, c_void};
use std::ffi::CStr;

/// A GPU as its driver knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CudaDevice {
    /// For instance `NVIDIA H200`; empty if the driver does not say.
    pub model: String,
    /// Memory in bytes; 0 if the driver does not say.
    pub memory_bytes: u64,
    /// Which one of all GPUs, in hex, the same in every process and machine; empty if the driver does not say.
    pub uuid: String,
}

/// Longest name that is read, in bytes.
const NAME_BYTES: usize = 128;

type Init = unsafe extern "C" fn(u32) -> c_int;
type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type Uuid = unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int;
type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;

/// The GPUs that this process sees, in libtorch's order; none if there is no driver.
#[must_use]
pub fn cuda_devices() -> Vec<CudaDevice> {
    let Some(driver) = Library::open(c"libcuda.so.1", libc::RTLD_LOCAL) else { return Vec::new() };
    let find = |name: &CStr| driver.find(name);
    let symbols = (
        find(c"cuInit"),
        find(c"cuDeviceGetCount"),
        find(c"cuDeviceGet"),
        find(c"cuDeviceGetName"),
        find(c"cuDeviceTotalMem_v2"),
    );
    let (Some(init), Some(count), Some(get), Some(name), Some(memory)) = symbols else {
        return Vec::new();
    };
    // SAFETY: these are the driver's functions of these names, whose signatures are documented as above.
    let (init, count, get, name, memory) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Init>(init),
            std::mem::transmute::<*mut c_void, Count>(count),
            std::mem::transmute::<*mut c_void, Get>(get),
            std::mem::transmute::<*mut c_void, Name>(name),
            std::mem::transmute::<*mut c_void, Memory>(memory),
        )
    };
    // Of drivers from 2021 on (CUDA 11.4).
    // SAFETY: as above.
    let uuid =
        find(c"cuDeviceGetUuid_v2").map(|found| unsafe { std::mem::transmute::<*mut c_void, Uuid>(found) });
    let mut devices = 0;
    // SAFETY: cuInit takes 0; the count goes to a c_int of ours.
    if unsafe { init(0) != 0 || count(&raw mut devices) != 0 } {
        return Vec::new();
    }
    (0..devices)
        .map(|number| {
            let (mut device, mut text, mut bytes) = (0, [0 as c_char; NAME_BYTES], 0_usize);
            let mut id = [0; 16];
            // SAFETY: every pointer goes to a variable of ours; the name's length is passed with it, and one byte
            // of it stays zero.
            let told = unsafe {
                get(&raw mut device, number) == 0
                    && name(text.as_mut_ptr(), NAME_BYTES as c_int - 1, device) == 0
                    && memory(&raw mut bytes, device) == 0
            };
            if !told {
                return CudaDevice::default();
            }
            // SAFETY: `text` ends with a zero byte.
            let model = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            // SAFETY: the identity goes to a variable of ours, which has its 16 bytes.
            let has_id = uuid.is_some_and(|uuid| unsafe { uuid(&raw mut id, device) } == 0);
            let uuid =
                if has_id { id.iter().map(|byte| format!("{byte:02x}")).collect() } else { String::new() };
            CudaDevice { model, memory_bytes: bytes as u64, uuid }
        })
        .collect()
}
