//! TorchScript modules on their way in: their names in a specification pinned to files in the object store. The files come as
//! code does.

use super::code;
use crate::{
    error::{Code as ErrorCode, Problem},
    objects::Objects,
};
use spotsweep_proto::{
    module::{MODULE_BYTES, MODULES_PER_SWEEP},
    program::Code,
    spec::SweepSpec,
};
use spotsweep_wire::v1;
use std::collections::BTreeMap;

/// Pins the modules of a specification to the files that came with it, which must be there.
///
/// # Errors
/// The sweep file names a module and no file came, or the other way round; a file is too large, not what the sweep file pins
/// its name to, or not in the store.
pub(super) async fn attach(
    spec: &mut SweepSpec,
    files: Vec<v1::ModuleFile>,
    objects: Option<&Objects>,
) -> Result<(), Problem> {
    let bad = |message: String| Problem::new(ErrorCode::BadRequest, message);
    if files.len() > MODULES_PER_SWEEP {
        return Err(bad(format!("a sweep has at most {MODULES_PER_SWEEP} TorchScript modules")));
    }
    let mut came: BTreeMap<String, Code> = BTreeMap::new();
    for v1::ModuleFile { file, content } in files {
        let content = content.ok_or_else(|| bad(format!("no digest came with the module {file}")))?;
        let content = code::read(&content)?;
        if content.bytes > MODULE_BYTES {
            let message =
                format!("the module {file} has {} bytes; at most are {MODULE_BYTES}", content.bytes);
            return Err(Problem::new(ErrorCode::TooLarge, message));
        }
        came.insert(file, content);
    }
    let named = spec.modules();
    if let Some(file) = came.keys().find(|file| !named.iter().any(|module| module.file() == **file)) {
        return Err(bad(format!("the module {file} came with a sweep file that does not name it")));
    }
    for module in &named {
        let file = module.file();
        let content = came.get(file).ok_or_else(|| {
            bad(format!("the sweep file names the module {file}, and none came with it"))
                .hint("hand the file in with `spotsweep submit`, which stores the module")
        })?;
        if module.digest().is_some_and(|digest| digest != content.digest) {
            let message = format!("the module {file} is not what the sweep file pins it to");
            return Err(Problem::new(ErrorCode::BadSweepFile, message));
        }
        let held = match objects {
            Some(objects) => objects.holds_code(*content).await?,
            None => false,
        };
        if !held {
            let message = format!("the coordinator does not hold the module {file}, {}", content.digest);
            return Err(Problem::new(ErrorCode::NoCode, message).hint("put it first, as code"));
        }
    }
    spec.pin_modules(|module| came.get(module.file()).map(|content| content.digest));
    Ok(())
}
