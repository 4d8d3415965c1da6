//! How an attempt ended, as JSON: the form that exports and the wire share. Pure.

use serde::{Deserialize, Serialize};
use spotsweep_engine::action::{AttemptEnd, RevokeReason};
use spotsweep_proto::{
    limits::FAILURE_TEXT_BYTES,
    line::FailureKind,
    notice::{Notice, NoticeKind, NoticeSource},
};

/// How an attempt ended. Its words stand in exports: they never change, new ones are added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum How {
    /// The trial is done.
    Finished,
    /// It failed.
    Failed {
        /// Of which kind.
        kind: FailureKind,
        /// For people.
        message: String,
    },
    /// The worker gave it back.
    Released,
    /// The worker said goodbye.
    WorkerGone,
    /// The connection broke.
    Disconnected,
    /// Nothing was heard of the worker.
    Expired,
    /// It was taken away.
    Revoked {
        /// Why.
        reason: RevokeReason,
    },
    /// The worker was warned.
    Noticed {
        /// Who warned.
        source: NoticeSource,
        /// Of what.
        kind: NoticeKind,
        /// Seconds until it happens, as promised.
        in_s: Option<f64>,
        /// More for people.
        reason: String,
        /// Steps that no stored checkpoint holds.
        lost_steps: u64,
    },
    /// It could not read the newest checkpoint.
    Unreadable {
        /// Steps that the checkpoint held.
        step: u64,
        /// Where the next attempt resumes.
        next_step: u64,
        /// For people.
        message: String,
    },
}

impl From<&AttemptEnd> for How {
    fn from(end: &AttemptEnd) -> Self {
        match end.clone() {
            AttemptEnd::Finished => Self::Finished,
            AttemptEnd::Failed { kind, message } => Self::Failed { kind, message },
            AttemptEnd::Released => Self::Released,
            AttemptEnd::WorkerGone => Self::WorkerGone,
            AttemptEnd::Disconnected => Self::Disconnected,
            AttemptEnd::Expired => Self::Expired,
            AttemptEnd::Revoked { reason } => Self::Revoked { reason },
            AttemptEnd::Noticed { notice, lost_steps } => {
                let Notice { source, kind, in_s, reason } = notice;
                Self::Noticed { source, kind, in_s, reason, lost_steps }
            }
            AttemptEnd::Unreadable { step, next_step, message } => {
                Self::Unreadable { step, next_step, message }
            }
        }
    }
}

impl How {
    /// As the engine knows it.
    ///
    /// # Errors
    /// A text is longer than one that a worker may send.
    pub fn into_end(self) -> Result<AttemptEnd, &'static str> {
        let short = |text: &str, most: usize| {
            if text.len() <= most { Ok(()) } else { Err("a message is longer than any that is kept") }
        };
        Ok(match self {
            Self::Finished => AttemptEnd::Finished,
            Self::Failed { kind, message } => {
                short(&message, FAILURE_TEXT_BYTES)?;
                AttemptEnd::Failed { kind, message }
            }
            Self::Released => AttemptEnd::Released,
            Self::WorkerGone => AttemptEnd::WorkerGone,
            Self::Disconnected => AttemptEnd::Disconnected,
            Self::Expired => AttemptEnd::Expired,
            Self::Revoked { reason } => AttemptEnd::Revoked { reason },
            Self::Noticed { source, kind, in_s, reason, lost_steps } => {
                // Cuts what is too long, and takes control characters out.
                let notice = Notice::new(source, kind, in_s).because(&reason);
                AttemptEnd::Noticed { notice, lost_steps }
            }
            Self::Unreadable { step, next_step, message } => {
                short(&message, FAILURE_TEXT_BYTES)?;
                AttemptEnd::Unreadable { step, next_step, message }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_comes_back_as_it_was() {
        let notice = Notice::new(NoticeSource::Aws, NoticeKind::Rebalance, Some(120.0)).because("why");
        let message = "line one\n\u{1b}[31m\"two\"".to_owned();
        let ends = [
            AttemptEnd::Finished,
            AttemptEnd::Failed { kind: FailureKind::OutOfMemory, message: message.clone() },
            AttemptEnd::Released,
            AttemptEnd::WorkerGone,
            AttemptEnd::Disconnected,
            AttemptEnd::Expired,
            AttemptEnd::Revoked { reason: RevokeReason::NotNeeded },
            AttemptEnd::Noticed { notice, lost_steps: 7 },
            AttemptEnd::Unreadable { step: 9, next_step: 0, message },
        ];
        let texts: Vec<String> =
            ends.iter().map(|end| serde_json::to_string(&How::from(end)).unwrap()).collect();
        insta::assert_snapshot!(texts.join("\n"));
        for (end, text) in ends.iter().zip(&texts) {
            let how: How = serde_json::from_str(text).unwrap();
            assert_eq!(how.into_end().as_ref(), Ok(end));
        }
    }

    #[test]
    fn a_text_that_no_worker_could_send_is_refused() {
        let message = "x".repeat(FAILURE_TEXT_BYTES + 1);
        assert!(How::Failed { kind: FailureKind::Crashed, message }.into_end().is_err());
    }
}
