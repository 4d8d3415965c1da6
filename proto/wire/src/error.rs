//! Every error that a person or a program outside may see: one stable word, one gRPC code, one HTTP status, one
//! exit status each.
//!
//! Owns the table and the way of an error over the wire. Errors inside a crate are typed (`StoreError`, …) and
//! become a [`Problem`] at the edge, once.

use crate::v1;
use prost::Message as _;
use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $grpc:ident, $http:literal, $exit:literal;)*) => {
        /// What kind of error it is. Its word never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The code that gRPC gives it.
            #[must_use]
            pub fn grpc(self) -> tonic::Code {
                match self { $(Self::$name => tonic::Code::$grpc,)* }
            }

            /// The status that HTTP gives it.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }

            /// The exit status of a command that ends with it.
            #[must_use]
            pub fn exit_status(self) -> u8 {
                match self { $(Self::$name => $exit,)* }
            }
        }
    };
}

// Word, gRPC status, HTTP status, exit status: the only table of them. docs/command-line.md repeats it, which a test of
// the command line compares.
codes! {
    /// A defect of this program.
    Internal = "internal", Internal, 500, 1;
    /// A request that makes no sense: a bad name, a field out of range, a message that is none.
    BadRequest = "bad_request", InvalidArgument, 400, 2;
    /// The sweep file has errors; the message holds all that were found.
    BadSweepFile = "bad_sweep_file", InvalidArgument, 400, 2;
    /// What should be an export of a finished sweep is none, or of a version that is not read.
    BadExport = "bad_export", InvalidArgument, 400, 2;
    /// A message over its limit.
    TooLarge = "too_large", OutOfRange, 413, 2;
    /// What should be an address is none.
    BadAddress = "bad_address", InvalidArgument, 400, 2;
    /// Asked to listen where strangers could come in.
    NotLoopback = "not_loopback", InvalidArgument, 400, 2;
    /// No sweep of that name.
    NoSuchSweep = "no_such_sweep", NotFound, 404, 3;
    /// No trial of that number.
    NoSuchTrial = "no_such_trial", NotFound, 404, 3;
    /// The trial has no attempt of that number.
    NoSuchAttempt = "no_such_attempt", NotFound, 404, 3;
    /// The trial keeps no checkpoint (of the kind asked for).
    NoCheckpoint = "no_checkpoint", NotFound, 404, 3;
    /// There is nothing at that path of the HTTP API or the web page.
    NoSuchPath = "no_such_path", NotFound, 404, 3;
    /// There is no coordinator's folder there.
    NoFolder = "no_folder", NotFound, 404, 3;
    /// It has ended, so nothing can be done to it.
    AlreadyEnded = "already_ended", FailedPrecondition, 409, 4;
    /// The coordinator holds as many sweeps as it can.
    TooManySweeps = "too_many_sweeps", ResourceExhausted, 429, 4;
    /// Agent and coordinator speak different versions of the contract.
    ProtocolMismatch = "protocol_mismatch", FailedPrecondition, 409, 4;
    /// A worker or watcher does not read what it is sent.
    TooSlow = "too_slow", ResourceExhausted, 429, 4;
    /// Who asks may not: a page of another origin, or under a name that is not this machine's.
    Forbidden = "forbidden", PermissionDenied, 403, 4;
    /// As many follow the coordinator's events as may.
    TooManyWatchers = "too_many_watchers", ResourceExhausted, 429, 4;
    /// The coordinator does not hold the code that the sweep is to run: it is put first.
    NoCode = "no_code", FailedPrecondition, 409, 4;
    /// A sweep of that name is there already, or one of the same export.
    AlreadyThere = "already_there", AlreadyExists, 409, 4;
    /// The sweep was imported, so nothing is done to it any more.
    ReadOnly = "read_only", FailedPrecondition, 409, 4;
    /// The coordinator is not there or does not answer.
    Unreachable = "unreachable", Unavailable, 503, 5;
    /// The coordinator is going down.
    ShuttingDown = "shutting_down", Unavailable, 503, 5;
    /// The journal cannot be written just now (disk full); it is tried again.
    StorageStalled = "storage_stalled", Unavailable, 503, 5;
    /// Another coordinator has the folder, or the address is taken.
    InUse = "in_use", FailedPrecondition, 409, 6;
    /// The folder holds another sweep than the one that is to be run in it.
    OtherSweep = "other_sweep", FailedPrecondition, 409, 6;
    /// A file of the folder is damaged, beyond what may be cut off.
    Damaged = "damaged", DataLoss, 500, 7;
    /// The folder was written by a newer program.
    NewerFormat = "newer_format", FailedPrecondition, 500, 7;
    /// Another error of the disk or object store.
    Storage = "storage", Aborted, 500, 7;
    /// Something that is needed is not on this machine: a program, a library, a data set.
    Missing = "missing", FailedPrecondition, 500, 8;
}

impl Code {
    /// The code of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word)
    }

    /// The nearest code of our own for an error that some other layer made (a proxy, tonic itself).
    fn from_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
                Self::Unreachable
            }
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Self::TooLarge,
            tonic::Code::InvalidArgument | tonic::Code::Unimplemented => Self::BadRequest,
            tonic::Code::Ok
            | tonic::Code::Unknown
            | tonic::Code::NotFound
            | tonic::Code::AlreadyExists
            | tonic::Code::PermissionDenied
            | tonic::Code::FailedPrecondition
            | tonic::Code::Aborted
            | tonic::Code::Internal
            | tonic::Code::DataLoss
            | tonic::Code::Unauthenticated => Self::Internal,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no code; a newer coordinator may know more of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no error code of this version")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        Self::from_word(word).ok_or_else(|| UnknownCode(word.to_owned()))
    }
}

/// An error at the edge: what people read and what goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do about it; empty where there is nothing to say.
    pub hint: String,
}

impl Problem {
    /// Without a hint.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// A defect: `error` and its sources in one line.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Code::Internal, chain(error))
    }

    /// What a client got back.
    #[must_use]
    pub fn from_status(status: &tonic::Status) -> Self {
        if let Ok(info) = v1::ErrorInfo::decode(status.details())
            && let Some(code) = Code::from_word(&info.code)
        {
            return Self { code, message: info.message, hint: info.hint };
        }
        let code = Code::from_grpc(status.code());
        let hint = match code {
            Code::Unreachable => "is the coordinator running, and is its address right?",
            _ => "",
        };
        Self::new(code, status.message()).hint(hint)
    }
}

/// An error and its sources, joined by colons.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let next_text = next.to_string();
        // Transparent layers repeat their source's text.
        if !text.ends_with(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        source = next.source();
    }
    text
}

impl From<Problem> for tonic::Status {
    fn from(problem: Problem) -> Self {
        let grpc = problem.code.grpc();
        let info = v1::ErrorInfo {
            code: problem.code.as_str().to_owned(),
            message: problem.message.clone(),
            hint: problem.hint,
        };
        // Headers carry the message: long ones (a sweep file with many errors) go in the details only, which
        // are limited too, by the 16 KiB of headers that HTTP/2 peers usually accept.
        let short: String = problem.message.chars().take(STATUS_MESSAGE_CHARS).collect();
        Self::with_details(grpc, short, cut(info).encode_to_vec().into())
    }
}

/// For clients; see [`Problem::from_status`].
impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        Self::from_status(&status)
    }
}

/// Longest message in a gRPC status, in characters.
const STATUS_MESSAGE_CHARS: usize = 300;
/// Longest message and hint in a status' details, in bytes; base64 makes them 4/3 as long on the wire.
const DETAIL_BYTES: usize = 6 << 10;

fn cut(mut info: v1::ErrorInfo) -> v1::ErrorInfo {
    for text in [&mut info.message, &mut info.hint] {
        if text.len() > DETAIL_BYTES {
            let end = (0..=DETAIL_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_word_of_its_own() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| Code::from_word(code.as_str()) == Some(*code)));
    }

    #[test]
    fn every_code_has_a_status_of_every_kind_that_says_whose_fault_it_is() {
        for &code in Code::ALL {
            let (grpc, http, exit) = (code.grpc(), code.http_status(), code.exit_status());
            assert_ne!(grpc, tonic::Code::Ok, "{code}");
            // 0 is success; from 10 on commands end that did what they were asked to; 126 and more are the shell's.
            assert!((1..10).contains(&exit), "{code}: {exit}");
            let theirs = match exit {
                2 | 3 | 4 | 6 => 400..500,
                1 | 5 | 7 | 8 => 500..600,
                _ => panic!("{code}: nobody knows what {exit} means"),
            };
            assert!(theirs.contains(&http), "{code}: {http} and {exit}");
            // What may be tried again as it is, and only that, is unavailable everywhere.
            let again = [exit == 5, http == 503, grpc == tonic::Code::Unavailable];
            assert!(again == [true; 3] || again == [false; 3], "{code}: {again:?}");
        }
    }

    #[test]
    fn codes_of_one_exit_status_stand_together() {
        let exits: Vec<u8> = Code::ALL.iter().map(|code| code.exit_status()).collect();
        assert!(exits.is_sorted(), "{exits:?}");
    }

    #[test]
    fn a_problem_survives_the_wire() {
        for &code in Code::ALL {
            let problem = Problem::new(code, "no").hint("try this");
            assert_eq!(Problem::from_status(&problem.clone().into()), problem);
        }
    }

    #[test]
    fn a_problem_of_a_megabyte_fits_into_headers() {
        let status = tonic::Status::from(Problem::new(Code::BadSweepFile, "é".repeat(1 << 20)));
        assert!(status.details().len() < 8 << 10);
        assert_eq!(Problem::from_status(&status).code, Code::BadSweepFile);
    }
}
