//! TorchScript modules: loaded from memory, their tensors by the module's own names, and one forward pass.

use crate::{TorchError, native, taken};
use libc::{c_char, c_int, c_void};
use std::{ffi::CStr, fmt, ptr};
use tch::{Device, Tensor};

/// A module in memory, on one device. Belongs to the thread that has loaded it: there its graphs run unoptimised, so that they
/// compute the same bits from their first run on.
pub struct Script {
    raw: *mut native::CScript,
}

/// A tensor that lies in an attribute of a module.
#[derive(Debug)]
pub struct ScriptTensor {
    /// Dotted, as `state_dict` has it.
    pub name: String,
    /// Shares its values with the module.
    pub tensor: Tensor,
    /// Whether it is registered as a parameter.
    pub is_parameter: bool,
    /// Whether a name before this one, in ascending order, stands for the same tensor.
    pub is_repeated: bool,
    /// Whether another tensor, of a name before this one, begins at the same place in memory.
    pub is_shared: bool,
}

/// What in a module's `forward` makes training wrong, or what it computes more than a function of what is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptFault {
    /// These operations are fixed in evaluation mode, and nothing in the module asks for the mode: it was traced.
    Frozen(String),
    /// These attributes are assigned.
    Assigned(String),
    /// These attributes, which are no tensors, are changed.
    Mutated(String),
    /// It starts work on threads of its own.
    Forks,
}

impl Script {
    /// Loads a module from the bytes of its file onto `device`.
    ///
    /// # Errors
    /// What libtorch said of it, in one line.
    pub fn load(bytes: &[u8], device: Device) -> Result<Self, TorchError> {
        let device = match device {
            Device::Cuda(index) => c_int::try_from(index).unwrap_or(c_int::MAX),
            _ => -1,
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the bytes live until the call returns, and the callee does not keep them; it catches every exception and
        // gives a module of ours if it gives no error.
        taken(unsafe {
            native::spotsweep_script_load(bytes.as_ptr().cast(), bytes.len(), device, &raw mut raw)
        })?;
        Ok(Self { raw })
    }

    /// All its tensors, in ascending order of names.
    ///
    /// # Errors
    /// What libtorch threw.
    pub fn tensors(&self) -> Result<Vec<ScriptTensor>, TorchError> {
        let mut found: Vec<ScriptTensor> = Vec::new();
        // SAFETY: the module lives; the callee calls back before it returns, with the context that it was given.
        taken(unsafe { native::spotsweep_script_tensors(self.raw, (&raw mut found).cast(), note_tensor) })?;
        Ok(found)
    }

    /// What its graph says against training it.
    ///
    /// # Errors
    /// What libtorch threw, for instance that there is no `forward`.
    pub fn faults(&self) -> Result<Vec<ScriptFault>, TorchError> {
        let mut found: Vec<ScriptFault> = Vec::new();
        // SAFETY: as in `tensors`.
        taken(unsafe { native::spotsweep_script_faults(self.raw, (&raw mut found).cast(), note_fault) })?;
        Ok(found)
    }

    /// Its `forward` of one tensor, in training or evaluation mode.
    ///
    /// # Errors
    /// What the module or libtorch threw, in one line; or that it gives something else than one tensor.
    pub fn forward(&self, input: &Tensor, training: bool) -> Result<Tensor, TorchError> {
        let mut out = ptr::null_mut();
        // SAFETY: module and input live; the callee gives a tensor of ours if it gives no error.
        taken(unsafe { native::spotsweep_script_forward(self.raw, input.as_ptr(), training, &raw mut out) })?;
        // SAFETY: made by the callee for us, once.
        Ok(unsafe { Tensor::from_ptr(out) })
    }
}

unsafe extern "C" fn note_tensor(
    context: *mut c_void,
    name: *const c_char,
    tensor: *mut torch_sys::C_tensor,
    is_parameter: bool,
    is_repeated: bool,
    is_shared: bool,
) {
    // SAFETY: the context is the list of `Script::tensors`, which waits; the name is a C string; the tensor is ours now.
    let (found, name, tensor) = unsafe {
        (&mut *context.cast::<Vec<ScriptTensor>>(), CStr::from_ptr(name), Tensor::from_ptr(tensor))
    };
    let name = name.to_string_lossy().into_owned();
    found.push(ScriptTensor { name, tensor, is_parameter, is_repeated, is_shared });
}

unsafe extern "C" fn note_fault(context: *mut c_void, kind: c_int, names: *const c_char) {
    // SAFETY: the context is the list of `Script::faults`, which waits; the names are a C string.
    let (found, names) =
        unsafe { (&mut *context.cast::<Vec<ScriptFault>>(), CStr::from_ptr(names).to_string_lossy()) };
    let names = names.into_owned();
    found.push(match kind {
        0 => ScriptFault::Frozen(names),
        1 => ScriptFault::Assigned(names),
        2 => ScriptFault::Mutated(names),
        _ => ScriptFault::Forks,
    });
}

impl Drop for Script {
    fn drop(&mut self) {
        // SAFETY: given by `spotsweep_script_load`, and freed once.
        unsafe { native::spotsweep_script_free(self.raw) }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}
