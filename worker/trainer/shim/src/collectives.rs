//! Collective operations among processes: libtorch's c10d, over Gloo or, with a library that is loaded ([`crate::Nccl`]),
//! over NCCL.
//!
//! A group connects through a rendezvous store that its caller keeps, and then over connections of its own, which are
//! neither encrypted nor authenticated. Every rank must start the same operations in the same order. An operation
//! ends with an error when a peer is gone or too slow; after that the group is of no use but to be dropped.

use crate::{
    TorchError,
    native::{self, CGroup, COverlap, CWork},
    taken,
};
use libc::{c_char, c_int, c_void};
use std::{
    ffi::CString,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    time::Duration,
};
use tch::Tensor;

/// Where the ranks of a group find each other.
pub trait Rendezvous {
    /// Keeps `value` under `key`.
    ///
    /// # Errors
    /// In words; connecting then fails with them.
    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String>;

    /// Waits until some rank has set `key`.
    ///
    /// # Errors
    /// In words; connecting then fails with them.
    fn get(&mut self, key: &str) -> Result<Vec<u8>, String>;
}

/// A place in a group.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// From 0.
    pub rank: u32,
    /// Of the whole group.
    pub ranks: u32,
    /// Where this process listens: an address or host name of this machine that its peers reach.
    pub address: &'a str,
    /// Longest wait for a peer in one operation.
    pub timeout: Duration,
}

/// A connected group.
#[derive(Debug)]
pub struct Group {
    handle: *mut CGroup,
    ranks: u32,
    /// What [`native::spotsweep_work_wait`] wants to know.
    poll_ms: i64,
}

/// An operation under way. Its tensors must not be touched until it is waited for.
#[derive(Debug)]
#[must_use = "an operation is finished only when it was waited for"]
pub struct Work {
    handle: *mut CWork,
    poll_ms: i64,
}

/// What the callbacks get back as their context: a fat pointer behind a thin one.
pub(crate) struct Context<'a>(pub(crate) &'a mut dyn Rendezvous);

impl Group {
    /// Over NCCL. `handle` is a group's of C++, and becomes this one's own.
    pub(crate) fn over_nccl(handle: *mut CGroup, member: &Member<'_>) -> Self {
        Self { handle, ranks: member.ranks, poll_ms: milliseconds(member.timeout).max(1) }
    }

    /// Connects over Gloo to all other members; waits for each at most the timeout.
    ///
    /// # Errors
    /// What the rendezvous said, what libtorch threw, or that an address makes no sense.
    pub fn connect(member: Member<'_>, rendezvous: &mut dyn Rendezvous) -> Result<Self, TorchError> {
        let address = CString::new(member.address)
            .map_err(|_| TorchError(format!("{:?} is no address", member.address)))?;
        let mut context = Context(rendezvous);
        let mut handle = ptr::null_mut();
        // SAFETY: the context outlives the call, and the callee uses it and the callbacks during the call and on this
        // thread alone; the address is a C string; the callee catches every exception.
        taken(unsafe {
            native::spotsweep_gloo_connect(
                (&raw mut context).cast(),
                tell,
                ask,
                small(member.rank),
                small(member.ranks),
                address.as_ptr(),
                milliseconds(member.timeout),
                &raw mut handle,
            )
        })?;
        Ok(Self { handle, ranks: member.ranks, poll_ms: 0 })
    }

    /// Adds up `tensor` over all ranks, in place and with the same bits everywhere; in which order is libtorch's.
    ///
    /// # Errors
    /// What libtorch threw, for instance about a tensor that is not contiguous.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<Work, TorchError> {
        // SAFETY: group and tensor are alive; the callee keeps a reference of its own to the tensor.
        self.started(|out| unsafe { native::spotsweep_group_all_reduce(self.handle, tensor.as_ptr(), out) })
    }

    /// Sends `input` in parts of `input_rows` rows, one to each rank in order, and receives `output` likewise.
    ///
    /// # Errors
    /// What libtorch threw, for instance about shapes that do not match.
    pub fn all_to_all(
        &self,
        output: &Tensor,
        output_rows: &[i64],
        input: &Tensor,
        input_rows: &[i64],
    ) -> Result<Work, TorchError> {
        let ranks = self.ranks as usize;
        crate::same_count(&[ranks, output_rows.len(), input_rows.len()])?;
        // SAFETY: as in `all_reduce`; both lists hold `ranks` numbers, which the callee copies.
        self.started(|out| unsafe {
            native::spotsweep_group_all_to_all(
                self.handle,
                output.as_ptr(),
                input.as_ptr(),
                output_rows.as_ptr(),
                input_rows.as_ptr(),
                ranks,
                out,
            )
        })
    }

    /// Receives the `input` of every rank, in order, in `output`.
    ///
    /// # Errors
    /// What libtorch threw, for instance about shapes that do not match.
    pub fn all_gather(&self, output: &Tensor, input: &Tensor) -> Result<Work, TorchError> {
        // SAFETY: as in `all_reduce`.
        self.started(|out| unsafe {
            native::spotsweep_group_all_gather(self.handle, output.as_ptr(), input.as_ptr(), out)
        })
    }

    /// Overwrites `tensor` with that of the rank `source`.
    ///
    /// # Errors
    /// What libtorch threw, for instance about a tensor that is not contiguous.
    pub fn broadcast(&self, tensor: &Tensor, source: u32) -> Result<Work, TorchError> {
        let source = c_int::try_from(source).unwrap_or(c_int::MAX);
        // SAFETY: as in `all_reduce`.
        self.started(|out| unsafe {
            native::spotsweep_group_broadcast(self.handle, tensor.as_ptr(), source, out)
        })
    }

    /// All-reduces `row` in buckets beside the next backward pass over `params`, whose gradients are added to `views` of
    /// it. Gradients that do not come count as zero. Every rank must have the same buckets.
    ///
    /// # Errors
    /// What libtorch threw, for instance about a parameter without gradients.
    pub fn overlap(
        &self,
        row: &Tensor,
        views: &[Tensor],
        params: &[Tensor],
        buckets: &Buckets,
    ) -> Result<Overlap, TorchError> {
        crate::same_count(&[views.len(), params.len(), buckets.of.len()])?;
        if buckets.of.iter().any(|bucket| *bucket >= buckets.starts.len()) {
            return Err(TorchError("a gradient in a bucket that is not there".to_owned()));
        }
        let (v, p) = (crate::handles(views), crate::handles(params));
        let mut handle = ptr::null_mut();
        // SAFETY: group and tensors are alive, the callee keeps references of its own to them; the three lists over
        // parameters are equally long, every bucket that they name is there; the callee catches every exception.
        taken(unsafe {
            native::spotsweep_overlap_new(
                self.handle,
                row.as_ptr(),
                v.as_ptr(),
                p.as_ptr(),
                buckets.of.as_ptr(),
                buckets.of.len(),
                buckets.starts.as_ptr(),
                buckets.starts.len(),
                &raw mut handle,
            )
        })?;
        Ok(Overlap { handle, poll_ms: self.poll_ms })
    }

    fn started(&self, start: impl FnOnce(*mut *mut CWork) -> *mut c_char) -> Result<Work, TorchError> {
        let mut handle = ptr::null_mut();
        taken(start(&raw mut handle))?;
        Ok(Work { handle, poll_ms: self.poll_ms })
    }
}

impl Drop for Group {
    /// Closes the connections, on a thread of its own: a peer that hangs holds nobody up.
    fn drop(&mut self) {
        // SAFETY: the handle came from the C++ that connected and is given back once.
        unsafe { native::spotsweep_group_free(self.handle, self.poll_ms > 0) }
    }
}

/// How a row is cut into buckets, from its end to its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    /// Where each begins; the first one ends with the row, each next one where that before begins. The last begins at 0.
    pub starts: Vec<i64>,
    /// The bucket of each gradient.
    pub of: Vec<usize>,
}

/// All-reduces beside a backward pass.
#[derive(Debug)]
#[must_use = "a row is added up only when it was waited for"]
pub struct Overlap {
    handle: *mut COverlap,
    poll_ms: i64,
}

impl Overlap {
    /// Waits until the row is added up.
    ///
    /// # Errors
    /// That a peer is gone, or did not answer in time.
    pub fn wait(self) -> Result<(), TorchError> {
        // SAFETY: the handle came from `Group::overlap` and lives until `self` is dropped.
        taken(unsafe { native::spotsweep_overlap_wait(self.handle, self.poll_ms) })
    }
}

impl Drop for Overlap {
    fn drop(&mut self) {
        // SAFETY: the handle came from `Group::overlap` and is given back once; its hooks go with it.
        unsafe { native::spotsweep_overlap_free(self.handle) }
    }
}

impl Work {
    /// Waits until the operation is over.
    ///
    /// # Errors
    /// That a peer is gone, or did not answer in time.
    pub fn wait(self) -> Result<(), TorchError> {
        // SAFETY: the handle came from an operation and lives until `self` is dropped.
        taken(unsafe { native::spotsweep_work_wait(self.handle, self.poll_ms) })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: the handle came from an operation and is given back once. An operation that still runs has a
        // reference of its own.
        unsafe { native::spotsweep_work_free(self.handle) }
    }
}

pub(crate) fn small(number: u32) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

pub(crate) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// [`Rendezvous::set`] for C++.
pub(crate) unsafe extern "C" fn tell(
    context: *mut c_void,
    key: *const c_char,
    key_len: usize,
    value: *const u8,
    value_len: usize,
) -> *mut c_char {
    answered(|| {
        // SAFETY: the caller hands back the context of `Group::connect`, during that call, on its thread, and texts of
        // the lengths that it says.
        let (rendezvous, key, value) = unsafe {
            (&mut *context.cast::<Context<'_>>(), bytes(key.cast(), key_len), bytes(value, value_len))
        };
        rendezvous.0.set(&String::from_utf8_lossy(key), value)
    })
}

/// [`Rendezvous::get`] for C++.
pub(crate) unsafe extern "C" fn ask(
    context: *mut c_void,
    key: *const c_char,
    key_len: usize,
    value: *mut *mut u8,
    value_len: *mut usize,
) -> *mut c_char {
    answered(|| {
        // SAFETY: as in `tell`.
        let (rendezvous, key) = unsafe { (&mut *context.cast::<Context<'_>>(), bytes(key.cast(), key_len)) };
        let found = rendezvous.0.get(&String::from_utf8_lossy(key))?;
        // SAFETY: malloc gives null or room for all of `found`, one byte at least; both out pointers are the caller's
        // own variables.
        unsafe {
            let room: *mut u8 = libc::malloc(found.len().max(1)).cast();
            if room.is_null() {
                return Err("out of memory".to_owned());
            }
            ptr::copy_nonoverlapping(found.as_ptr(), room, found.len());
            (*value, *value_len) = (room, found.len());
        }
        Ok(())
    })
}

/// # Safety
/// `start` goes to `len` bytes that stay as they are for `'a`; it may be null if there are none.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// What a callback gives to C++: null, or the error's text. A panic becomes a text too.
fn answered(body: impl FnOnce() -> Result<(), String>) -> *mut c_char {
    let outcome = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err("a panic in the rendezvous store".to_owned()));
    let Err(text) = outcome else { return ptr::null_mut() };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: `text` is a C string.
    unsafe { libc::strdup(text.as_ptr()) }
}
