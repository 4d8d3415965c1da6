//! What the trainers of connected workers have besides Spotsweep's own models: the union of what they told, against which
//! sweeps are checked. Kept in memory and told anew after a restart; a sweep that was taken has its part of it pinned.
//!
//! It must not decide where trials go: that follows from the hellos in the journal.

use spotsweep_proto::catalogue::OwnCatalogue;
use std::sync::{Arc, PoisonError, RwLock};

/// Most models, and most data sets, that are remembered of all workers together. The oldest are forgotten first.
const TOLD: usize = 256;

/// The union, shared by all that ask.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<RwLock<OwnCatalogue>>);

impl Told {
    /// Takes in what a worker told, which was checked. Of two that describe one name differently the later one counts.
    pub fn add(&self, told: &OwnCatalogue) {
        if told.is_empty() {
            return;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for model in &told.models {
            if let Some(before) = all.model(model.name.as_str())
                && before.item() != model.item()
            {
                tracing::warn!(model = %model.name, "a worker's trainer describes a model otherwise than one before; new sweeps mean the new one");
            }
        }
        all.models.retain(|model| told.model(model.name.as_str()).is_none());
        all.data.retain(|set| told.data_set(set.name.as_str()).is_none());
        all.models.extend(told.models.iter().cloned());
        all.data.extend(told.data.iter().cloned());
        let (models, data) = (all.models.len().saturating_sub(TOLD), all.data.len().saturating_sub(TOLD));
        all.models.drain(..models);
        all.data.drain(..data);
    }

    /// All that is known.
    #[must_use]
    pub fn all(&self) -> OwnCatalogue {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: impl IntoIterator<Item = String>, version: u32) -> OwnCatalogue {
        let models: Vec<_> =
            names.into_iter().map(|name| serde_json::json!({"name": name, "version": version})).collect();
        OwnCatalogue::read(serde_json::json!({"models": models}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_union_of_what_workers_told_is_known_and_the_later_word_counts() {
        let all = Told::default();
        all.add(&told(["a".to_owned(), "b".to_owned()], 1));
        all.add(&told(["b".to_owned(), "c".to_owned()], 2));
        let known: Vec<_> =
            all.all().models.iter().map(|model| format!("{} {}", model.name, model.version)).collect();
        assert_eq!(known, ["a 1", "b 2", "c 2"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let all = Told::default();
        for worker in 0..20 {
            all.add(&told((0..20).map(|n| format!("m{worker}_{n}")), 1));
        }
        let known = all.all();
        assert_eq!(known.models.len(), TOLD);
        assert!(known.model("m19_19").is_some() && known.model("m0_0").is_none());
    }
}
