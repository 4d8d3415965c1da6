//! The TorchScript modules of a sweep: which it names, and pinning them to their content.

use super::SweepSpec;
use crate::{catalogue::canonical, digest::Digest, module::ModuleRef, value::ParamValue};
use std::collections::BTreeSet;

/// The key of models, in `train` and among parameters.
const KEY: &str = "model";

impl SweepSpec {
    /// The modules that trials may name.
    #[must_use]
    pub fn modules(&self) -> BTreeSet<ModuleRef> {
        // Of a program, `model` is a parameter like any other.
        if self.program.is_some() {
            return BTreeSet::new();
        }
        let mut found = BTreeSet::new();
        let mut note = |text: &str| found.extend(module(text));
        match self.space.0.iter().find(|parameter| canonical(&parameter.name) == KEY) {
            Some(parameter) => parameter.domain.listed().iter().for_each(|value| {
                if let ParamValue::Text(text) = value {
                    note(text);
                }
            }),
            None => self.train.model.iter().for_each(|text| note(text)),
        }
        found
    }

    /// All that its trials fetch from where code is stored: the folder of its program, its modules.
    #[must_use]
    pub fn stored_code(&self) -> Vec<Digest> {
        let program = self.program.as_ref().and_then(|program| program.code).map(|code| code.digest);
        program.into_iter().chain(self.modules().iter().filter_map(ModuleRef::digest)).collect()
    }

    /// Pins every module to the content for which `digest_of` gives the digest.
    pub fn pin_modules(&mut self, digest_of: impl Fn(&ModuleRef) -> Option<Digest>) {
        if self.program.is_some() {
            return;
        }
        let pin = |text: &mut String| {
            if let Some(module) = module(text)
                && let Some(digest) = digest_of(&module)
            {
                *text = module.pinned(digest).to_string();
            }
        };
        let pin_value = |value: &mut ParamValue| {
            if let ParamValue::Text(text) = value {
                pin(text);
            }
        };
        self.train.model.iter_mut().for_each(pin);
        for parameter in self.space.0.iter_mut().filter(|parameter| canonical(&parameter.name) == KEY) {
            parameter.domain.listed_mut().iter_mut().for_each(pin_value);
        }
    }
}

fn module(text: &str) -> Option<ModuleRef> {
    if ModuleRef::is_meant_by(text) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    fn sweep(rest: &str) -> SweepSpec {
        parse(format!("method: grid\n{rest}\n").as_bytes(), "a.yaml").unwrap()
    }

    #[test]
    fn modules_are_found_and_pinned_wherever_they_stand() {
        let pins = |module: &ModuleRef| (module.file() != "other.pt").then(|| Digest::of(b"net"));
        let pinned = format!("net.pt@blake3:{}", Digest::of(b"net"));
        let mut spec = sweep("train: {model: net.pt, data: mnist}\nparameters: {batch_size: {value: 4}}");
        assert_eq!(spec.modules(), BTreeSet::from(["net.pt".parse().unwrap()]));
        let before = spec.digest();
        assert_eq!(spec.stored_code(), []);
        spec.pin_modules(pins);
        assert_eq!(spec.train.model.as_deref(), Some(pinned.as_str()));
        assert_ne!(spec.digest(), before);
        assert_eq!(spec.stored_code(), [Digest::of(b"net")], "or it would be deleted as nobody's");

        let mut spec = sweep(
            "train: {data: mnist}\nparameters: {model: {values: [net.pt, mlp, other.pt]}, lr.learning_rate: {value: 0.1}}",
        );
        assert_eq!(spec.modules().len(), 2);
        spec.pin_modules(pins);
        let models: Vec<_> = (0..3).map(|number| spec.assignment(number).0[0].1.to_string()).collect();
        assert_eq!(models, [pinned.as_str(), "mlp", "other.pt"]);
    }

    #[test]
    fn an_architecture_beside_a_module_is_refused_with_the_reason_where_it_stands() {
        let text = "method: grid\nparameters: {hidden: {value: 8}}\ntrain: {model: net.pt, data: mnist}\n";
        let error = parse(text.as_bytes(), "a.yaml").unwrap_err().to_string();
        assert!(error.contains("a.yaml:2:14"), "{error}");
        assert!(error.contains("its architecture was fixed when it was exported"), "{error}");
    }

    #[test]
    fn of_a_program_model_is_a_parameter_like_any_other() {
        let mut spec = sweep("program: train.py\nparameters: {model: {values: [a.pt, b.pt]}}");
        assert!(spec.modules().is_empty());
        let before = spec.clone();
        spec.pin_modules(|_| Some(Digest::of(b"net")));
        assert_eq!(spec, before);
    }
}
