//! Exports on their way in: from messages to the steps of an import, each durable before the next is read.
//!
//! Whatever goes wrong, the engine is told that nothing more comes, and nothing stays.

use crate::{
    driver::Handle,
    error::{Code, Problem},
    import::{Head, Reader},
    orders::refused,
};
use spotsweep_engine::{
    Reply,
    import::{ImportPart, ImportStep, ImportToken},
};
use spotsweep_proto::ids::SweepName;
use spotsweep_wire::v1;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Streaming;

/// Imports at the same time; others wait.
const AT_ONCE: usize = 2;
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);
/// Largest piece of files in one message, in bytes.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Longest silence of a client that is importing.
const SILENCE: Duration = Duration::from_secs(60);

/// Takes an export in.
///
/// # Errors
/// It is damaged or none, its name is taken, it is here already, or it breaks off.
pub(super) async fn take_in(
    handle: &Handle,
    mut messages: Streaming<v1::ImportRequest>,
) -> Result<v1::ImportResponse, Problem> {
    let _place = PLACES.acquire().await.map_err(|error| Problem::internal(&error))?;
    let bad = |what: &str| Problem::new(Code::BadRequest, what);
    let first = next(&mut messages).await?.ok_or_else(|| bad("an import begins with a manifest"))?;
    let v1::ImportBegin { manifest, name, token } =
        first.begin.ok_or_else(|| bad("the first message of an import has the manifest"))?;
    let token: [u8; 16] = token.as_ref().try_into().map_err(|_| bad("a token has 16 bytes"))?;
    let token = ImportToken(u128::from_be_bytes(token));
    let name = name.map(|name| SweepName::new(&name)).transpose();
    let name = name.map_err(|error| Problem::new(Code::BadRequest, error.to_string()))?;
    let mut reader = Reader::new(Head::read(&manifest)?)?;
    let head = reader.head().for_engine(name);
    let (trials, points) = (u64::from(head.spec.trials()), head.points);
    let giving_up = GivingUp { handle: handle.clone(), token: Some(token) };
    told(handle, token, ImportStep::Begin(Box::new(head))).await?;
    let mut piece = first.piece;
    loop {
        if piece.len() > PIECE_BYTES {
            return Err(Problem::new(Code::TooLarge, format!("a piece has at most {PIECE_BYTES} bytes")));
        }
        // Parsed on a thread of its own: it computes for milliseconds.
        let parsed = tokio::task::spawn_blocking(move || {
            let parts = reader.feed(&piece);
            (reader, parts)
        });
        let (back, parts) = parsed.await.map_err(|error| Problem::internal(&error))?;
        reader = back;
        hand_over(handle, token, parts?).await?;
        match next(&mut messages).await? {
            Some(message) => piece = message.piece,
            None => break,
        }
    }
    reader.end()?;
    let reply = told(handle, token, ImportStep::End).await?;
    giving_up.not_needed();
    match reply {
        Reply::Submitted { name, .. } => Ok(v1::ImportResponse { sweep: name.to_string(), trials, points }),
        Reply::Done { .. } | Reply::Importing { .. } => {
            Err(Problem::new(Code::Internal, "an answer to another question"))
        }
    }
}

async fn next(messages: &mut Streaming<v1::ImportRequest>) -> Result<Option<v1::ImportRequest>, Problem> {
    let silent = |_| Problem::new(Code::Unreachable, format!("nothing came for {} s", SILENCE.as_secs()));
    Ok(tokio::time::timeout(SILENCE, messages.message()).await.map_err(silent)??)
}

async fn hand_over(handle: &Handle, token: ImportToken, parts: Vec<ImportPart>) -> Result<(), Problem> {
    for part in parts {
        told(handle, token, ImportStep::Part(part)).await?;
    }
    Ok(())
}

async fn told(handle: &Handle, token: ImportToken, step: ImportStep) -> Result<Reply, Problem> {
    handle.import(token, step).await?.map_err(|refusal| refused(&refusal))
}

/// Tells the engine that nothing more comes, unless it is told before that it is not needed: also where this call is dropped.
struct GivingUp {
    handle: Handle,
    token: Option<ImportToken>,
}

impl GivingUp {
    fn not_needed(mut self) {
        self.token = None;
    }
}

impl Drop for GivingUp {
    fn drop(&mut self) {
        let (Some(token), Ok(runtime)) = (self.token, tokio::runtime::Handle::try_current()) else { return };
        let handle = self.handle.clone();
        runtime.spawn(async move { handle.abandon_import(token).await });
    }
}
