//! Libraries that are loaded when they are there. None is ever unloaded, so nothing can point into one after its end. It
//! must not know what is in a library: whoever asks for a function says what it is.

use libc::{c_int, c_void};
use std::{ffi::CStr, ptr::NonNull};

/// An open library.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Library(NonNull<c_void>);

impl Library {
    /// Loads `name`, a file or a name that the loader looks for, with these flags besides `RTLD_NOW`; `None` if it refuses.
    pub(crate) fn open(name: &CStr, flags: c_int) -> Option<Self> {
        // SAFETY: the name is a C string; the constructors of the libraries that are asked for register what they have and
        // nothing else.
        NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | flags) }).map(Self)
    }

    /// Where the function or variable of this name is.
    pub(crate) fn find(self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: it is an open library, and `name` a C string.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) }).map(NonNull::as_ptr)
    }
}
