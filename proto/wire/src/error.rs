//! One list of error codes for gRPC, exit status and people, and how an error travels in a gRPC status.
//!
//! Owns the mapping between them. It must not print, nor know where an error comes from.

use crate::v1::ErrorInfo;
use prost::Message as _;
use spotsweep_proto::ids::{NameError, TrialIdError};
use std::{fmt, str::FromStr};

/// Why something was not done. The word ([`Code::as_str`]) is stable: scripts may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A name, number or request that means nothing.
    BadRequest,
    /// The sweep file is wrong.
    BadSweepFile,
    /// There is no such sweep.
    NoSuchSweep,
    /// The sweep has no such trial.
    NoSuchTrial,
    /// The trial has no such checkpoint.
    NoSuchCheckpoint,
    /// It has ended: nothing can be done to it any more.
    AlreadyEnded,
    /// A limit of the coordinator is reached.
    TooMany,
    /// Another coordinator works on the folder.
    FolderInUse,
    /// The folder belongs to something else, for instance another sweep.
    FolderMismatch,
    /// The folder holds nothing of ours.
    NoSuchFolder,
    /// The journal, or an object, is damaged.
    Damaged,
    /// The disk is full.
    DiskFull,
    /// The coordinator cannot be reached, or is going away.
    Unavailable,
    /// The address is not one that may be listened on.
    BadAddress,
    /// Something that is needed is missing: a program, a library, a data set.
    Missing,
    /// This program does not do that.
    Unsupported,
    /// A fault of this program or of the system below it.
    Internal,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::BadSweepFile,
        Self::NoSuchSweep,
        Self::NoSuchTrial,
        Self::NoSuchCheckpoint,
        Self::AlreadyEnded,
        Self::TooMany,
        Self::FolderInUse,
        Self::FolderMismatch,
        Self::NoSuchFolder,
        Self::Damaged,
        Self::DiskFull,
        Self::Unavailable,
        Self::BadAddress,
        Self::Missing,
        Self::Unsupported,
        Self::Internal,
    ];

    /// Its word, for instance `no_such_sweep`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadSweepFile => "bad_sweep_file",
            Self::NoSuchSweep => "no_such_sweep",
            Self::NoSuchTrial => "no_such_trial",
            Self::NoSuchCheckpoint => "no_such_checkpoint",
            Self::AlreadyEnded => "already_ended",
            Self::TooMany => "too_many",
            Self::FolderInUse => "folder_in_use",
            Self::FolderMismatch => "folder_mismatch",
            Self::NoSuchFolder => "no_such_folder",
            Self::Damaged => "damaged",
            Self::DiskFull => "disk_full",
            Self::Unavailable => "unavailable",
            Self::BadAddress => "bad_address",
            Self::Missing => "missing",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// The code of gRPC that carries it.
    #[must_use]
    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::BadRequest | Self::BadSweepFile | Self::BadAddress => tonic::Code::InvalidArgument,
            Self::NoSuchSweep | Self::NoSuchTrial | Self::NoSuchCheckpoint | Self::NoSuchFolder => {
                tonic::Code::NotFound
            }
            Self::AlreadyEnded | Self::FolderInUse | Self::FolderMismatch | Self::Missing => {
                tonic::Code::FailedPrecondition
            }
            Self::TooMany | Self::DiskFull => tonic::Code::ResourceExhausted,
            Self::Damaged => tonic::Code::DataLoss,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Unsupported => tonic::Code::Unimplemented,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The exit status of a command that ends with it. 0 is success, 2 a command line that cannot be read, 10 a
    /// sweep that ended with trials that failed, 130 an interrupt: those are no errors of this list.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Internal | Self::TooMany => 1,
            Self::BadRequest | Self::BadAddress | Self::Unsupported => 2,
            Self::BadSweepFile => 3,
            Self::NoSuchSweep | Self::NoSuchTrial | Self::NoSuchCheckpoint | Self::NoSuchFolder => 4,
            Self::Unavailable => 5,
            Self::AlreadyEnded | Self::FolderInUse | Self::FolderMismatch => 6,
            Self::Damaged | Self::DiskFull => 7,
            Self::Missing => 8,
        }
    }

    /// The code that a status without details is taken for: one that came from gRPC itself, not from us.
    fn of_grpc(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Self::BadRequest,
            tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
                Self::Unavailable
            }
            tonic::Code::Unimplemented => Self::Unsupported,
            tonic::Code::DataLoss => Self::Damaged,
            tonic::Code::ResourceExhausted => Self::TooMany,
            tonic::Code::Ok
            | tonic::Code::Unknown
            | tonic::Code::NotFound
            | tonic::Code::AlreadyExists
            | tonic::Code::PermissionDenied
            | tonic::Code::FailedPrecondition
            | tonic::Code::Aborted
            | tonic::Code::Internal
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
        Self::ALL.into_iter().find(|code| code.as_str() == word).ok_or_else(|| UnknownCode(word.to_owned()))
    }
}

/// An error for people: what kind, what happened, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// What happened. No full stop, no capital letter; may have several lines.
    pub message: String,
    /// What to do about it, if anything.
    pub hint: Option<String>,
}

impl Failure {
    /// An error without a hint.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// For answers.
impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        let info = ErrorInfo {
            code: failure.code.as_str().to_owned(),
            message: failure.message.clone(),
            hint: failure.hint.unwrap_or_default(),
        };
        Self::with_details(failure.code.grpc(), failure.message, info.encode_to_vec().into())
    }
}

/// For clients. A status without our details keeps its message.
impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let info = match status.details() {
            [] => None,
            details => ErrorInfo::decode(details).ok(),
        };
        match info {
            Some(info) => Self {
                code: info.code.parse().unwrap_or_else(|_| Code::of_grpc(status.code())),
                message: info.message,
                hint: Some(info.hint).filter(|hint| !hint.is_empty()),
            },
            None => Self::new(Code::of_grpc(status.code()), status.message()),
        }
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

impl From<TrialIdError> for Failure {
    fn from(error: TrialIdError) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in Code::ALL {
            let failure = Failure::new(code, "something happened").hint("do this");
            assert_eq!(Failure::from(tonic::Status::from(failure.clone())), failure);
            assert_ne!(code.exit_status(), 0);
        }
    }

    #[test]
    fn a_status_of_another_program_is_still_an_error_in_words() {
        let failure = Failure::from(tonic::Status::unavailable("connection refused"));
        assert_eq!((failure.code, failure.message.as_str()), (Code::Unavailable, "connection refused"));
        let garbage = tonic::Status::with_details(tonic::Code::NotFound, "x", vec![0xff; 9].into());
        assert_eq!(Failure::from(garbage).code, Code::Internal);
    }
}
