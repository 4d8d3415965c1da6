//! A sweep inside the journal and the snapshot: as JSON text, in which absent keys have defaults, where all around it is a
//! binary form in which every field stands in its place.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use spotsweep_proto::spec::SweepSpec;
use std::ops::Deref;

pub(crate) fn serialize<S: Serializer, T: Deref<Target = SweepSpec>>(
    spec: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serde_json::to_string(&**spec).map_err(ser::Error::custom)?.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<SweepSpec>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    serde_json::from_str::<SweepSpec>(&text).map(T::from).map_err(de::Error::custom)
}
