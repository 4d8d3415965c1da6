//! Code that was put and that no sweep refers to: its client gave up between the two, or the sweep was refused. It is
//! deleted after a while; code of a sweep never, as no sweep is.
//!
//! Whoever is about to refer to code holds it ([`Objects::hold_code`]) from the look whether it is there until the sweep is
//! in the engine; whoever deletes waits until nobody does.

use super::Objects;
use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStore as _, ObjectStoreExt as _, path::Path as ObjectPath};
use spotsweep_proto::{digest::Digest, program::Code};
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};
use tokio::sync::OwnedRwLockReadGuard;

/// How long code lies that no sweep refers to. Between the last piece and the sweep there is one call of the same client,
/// which hands the code in again should it be gone.
pub const CODE_UNCLAIMED: Duration = Duration::from_secs(3600);
/// Between two looks.
pub const CODE_LOOK_EVERY: Duration = Duration::from_secs(1800);

/// Code cannot be deleted as long as one of these is there.
pub struct HeldCode {
    _guard: OwnedRwLockReadGuard<()>,
}

impl Objects {
    /// Keeps all code that is there.
    pub async fn hold_code(&self) -> HeldCode {
        HeldCode { _guard: self.code.clone().read_owned().await }
    }

    /// Deletes archives that have lain for [`CODE_UNCLAIMED`] and that are not among those that `refers` gives, which is
    /// asked only if there are any. Gives how many.
    ///
    /// # Errors
    /// What `refers` says: then nothing is deleted. What resists is left for the next time.
    pub async fn collect_code<E>(
        &self,
        refers: impl Future<Output = Result<Vec<Digest>, E>>,
    ) -> Result<usize, E> {
        let _alone = self.code.write().await;
        let old = match self.old_code().await {
            Ok(old) => old,
            Err(error) => {
                tracing::warn!(%error, "code that nobody needs cannot be looked for");
                return Ok(0);
            }
        };
        if old.is_empty() {
            return Ok(0);
        }
        let needed: HashSet<ObjectPath> =
            refers.await?.iter().map(|digest| ObjectPath::from(Code::path_of(digest))).collect();
        let mut deleted = 0;
        for path in old.into_iter().filter(|path| !needed.contains(path)) {
            match self.store.delete(&path).await {
                Ok(()) => deleted += 1,
                Err(error) => tracing::warn!(%path, %error, "code that nobody needs is left behind"),
            }
        }
        Ok(deleted)
    }

    async fn old_code(&self) -> Result<Vec<ObjectPath>, object_store::Error> {
        let until = SystemTime::now() - CODE_UNCLAIMED;
        let is_old = |meta: &ObjectMeta| SystemTime::from(meta.last_modified) < until;
        let all: Vec<ObjectMeta> = self.store.list(Some(&ObjectPath::from("code"))).try_collect().await?;
        Ok(all.into_iter().filter(is_old).map(|meta| meta.location).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::{convert::Infallible, path::Path};

    async fn put(objects: &Objects, content: &'static [u8]) -> Code {
        let code = Code { digest: Digest::of(content), bytes: content.len() as u64 };
        let pieces = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(content))]);
        assert!(objects.put_code(code, pieces).await.unwrap());
        code
    }

    fn age(folder: &Path, code: Code) {
        let file = std::fs::File::options().write(true).open(folder.join(code.path())).unwrap();
        file.set_modified(SystemTime::now() - CODE_UNCLAIMED - Duration::from_secs(1)).unwrap();
    }

    #[tokio::test]
    async fn only_code_that_is_old_and_belongs_to_no_sweep_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let (old, used, fresh) =
            (put(&objects, b"old").await, put(&objects, b"used").await, put(&objects, b"fresh").await);
        [old, used].into_iter().for_each(|code| age(folder.path(), code));
        let failed = objects.collect_code(async { Err::<Vec<Digest>, _>("the driver ends") }).await;
        assert!(failed.is_err() && objects.holds_code(old).await.unwrap());
        let deleted = objects.collect_code(async { Ok::<_, Infallible>(vec![used.digest]) }).await;
        assert_eq!(deleted, Ok(1));
        assert!(!objects.holds_code(old).await.unwrap());
        assert!(objects.holds_code(used).await.unwrap() && objects.holds_code(fresh).await.unwrap());
    }

    #[tokio::test]
    async fn nothing_is_deleted_while_somebody_is_about_to_refer_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(folder.path()).unwrap();
        let code = put(&objects, b"code").await;
        age(folder.path(), code);
        let held = objects.hold_code().await;
        let mut collecting = Box::pin(objects.collect_code(async { Ok::<_, Infallible>(Vec::new()) }));
        assert!(futures::poll!(&mut collecting).is_pending());
        assert!(objects.holds_code(code).await.unwrap());
        drop(held);
        assert_eq!(collecting.await, Ok(1));
    }
}
