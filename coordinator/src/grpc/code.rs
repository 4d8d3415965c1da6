//! Code on its way in: from messages to archives in the object store, and into the specifications that refer to them.

use crate::{
    error::{Code as ErrorCode, Problem, chain},
    objects::{Objects, PutError},
};
use futures::StreamExt as _;
use spotsweep_proto::{
    digest::Digest,
    program::{CODE_PIECE_BYTES, Code},
    spec::SweepSpec,
};
use spotsweep_wire::v1;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

/// Archives that come in at the same time; others wait.
const AT_ONCE: usize = 4;
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// What a message says of an archive.
///
/// # Errors
/// A digest of another length.
pub(super) fn read(code: &v1::CodeRef) -> Result<Code, Problem> {
    let digest: Result<[u8; 32], _> = code.digest.as_ref().try_into();
    let digest = digest.map_err(|_| Problem::new(ErrorCode::BadRequest, "a digest of code has 32 bytes"))?;
    Ok(Code { digest: Digest(digest), bytes: code.bytes })
}

/// Gives a specification the code that came with it, which must be there.
///
/// # Errors
/// The sweep file asks for code and none came, code came without a program, or the archive is not in the store.
pub(super) async fn attach(
    spec: &mut SweepSpec,
    asks: bool,
    code: Option<Code>,
    objects: Option<&Objects>,
) -> Result<(), Problem> {
    match (spec.program.as_mut(), code) {
        (Some(_), None) if asks => Err(Problem::new(
            ErrorCode::BadRequest,
            "the sweep file names a folder with code, and none came with it",
        )
        .hint("hand the file in with `spotsweep submit`, which packs the folder")),
        (_, None) => Ok(()),
        (None, Some(_)) => {
            Err(Problem::new(ErrorCode::BadRequest, "code came with a sweep file without a program"))
        }
        (Some(program), Some(code)) => {
            let held = match objects {
                Some(objects) => objects.holds_code(code).await?,
                None => false,
            };
            if !held {
                let message = format!("the coordinator does not hold the code {}", code.digest);
                return Err(Problem::new(ErrorCode::NoCode, message).hint("put it first"));
            }
            program.code = Some(code);
            Ok(())
        }
    }
}

/// Takes an archive in; `false` if it was there.
///
/// # Errors
/// No reference in the first message, a piece over its limit, or as [`Objects::put_code`].
pub(super) async fn take_in(
    objects: &Objects,
    mut messages: Streaming<v1::PutCodeRequest>,
) -> Result<bool, Problem> {
    let _place = PLACES.acquire().await.map_err(|error| Problem::internal(&error))?;
    let none = || Problem::new(ErrorCode::BadRequest, "the first message says which code it is");
    let first = messages.message().await.map_err(Problem::from)?.ok_or_else(none)?;
    let code = read(first.code.as_ref().ok_or_else(none)?)?;
    let pieces = futures::stream::once(async { Ok(first.piece) })
        .chain(messages.map(|message| message.map(|message| message.piece)))
        .map(|piece| match piece {
            Ok(piece) if piece.len() > CODE_PIECE_BYTES => {
                let message = format!("a piece of code has at most {CODE_PIECE_BYTES} bytes");
                Err(Status::from(Problem::new(ErrorCode::TooLarge, message)))
            }
            piece => piece,
        });
    objects.put_code(code, pieces).await.map_err(|error| match error {
        PutError::TooLarge(_) => Problem::new(ErrorCode::TooLarge, error.to_string())
            .hint("name data and results in the folder's .gitignore"),
        PutError::Damaged { .. } => {
            Problem::new(ErrorCode::BadRequest, error.to_string()).hint("send it again")
        }
        PutError::Store(error) => {
            Problem::new(ErrorCode::Storage, chain(&error)).hint("is there room on the coordinator's disk?")
        }
        PutError::Pieces(status) => Problem::from(status),
    })
}
