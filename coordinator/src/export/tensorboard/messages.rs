//! The messages of TensorBoard that an event file holds, with the fields that are written. Numbers are TensorBoard's.

use prost::{Message, Oneof};
use std::collections::BTreeMap;

/// `tensorboard.DataType`.
pub(super) const DT_FLOAT: i32 = 1;
/// `tensorboard.DataType`.
pub(super) const DT_DOUBLE: i32 = 2;
/// `tensorboard.DataClass`.
pub(super) const DATA_CLASS_UNKNOWN: i32 = 0;
/// `tensorboard.DataClass`.
pub(super) const DATA_CLASS_SCALAR: i32 = 1;
/// `tensorboard.hparams.Status`.
pub(super) const UNKNOWN: i32 = 0;
/// `tensorboard.hparams.Status`.
pub(super) const SUCCESS: i32 = 1;
/// `tensorboard.hparams.Status`.
pub(super) const FAILURE: i32 = 2;
/// `tensorboard.hparams.Status`.
pub(super) const RUNNING: i32 = 3;

/// `tensorboard.Event`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(oneof = "event::What", tags = "3, 5")]
    pub(super) what: Option<event::What>,
}

/// What an event is.
pub(super) mod event {
    /// One of them.
    #[derive(Clone, PartialEq, super::Oneof)]
    pub(in super::super) enum What {
        /// The first event of a file.
        #[prost(string, tag = "3")]
        FileVersion(String),
        /// Values.
        #[prost(message, tag = "5")]
        Summary(super::Summary),
    }
}

/// `tensorboard.Summary`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) values: Vec<Value>,
}

/// `tensorboard.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(message, optional, tag = "8")]
    pub(super) tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    pub(super) metadata: Option<SummaryMetadata>,
}

/// `tensorboard.SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin: Option<PluginData>,
    #[prost(int32, tag = "4")]
    pub(super) data_class: i32,
}

/// `tensorboard.SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub(super) plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) content: Vec<u8>,
}

/// `tensorboard.TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int32, tag = "1")]
    pub(super) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) content: Vec<u8>,
}

/// `tensorboard.TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "2")]
    pub(super) dims: Vec<Dim>,
}

/// `tensorboard.TensorShapeProto.Dim`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dim {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
}

/// `tensorboard.hparams.HParamsPluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HparamsData {
    #[prost(message, optional, tag = "3")]
    pub(super) start: Option<SessionStart>,
    #[prost(message, optional, tag = "4")]
    pub(super) end: Option<SessionEnd>,
}

/// `tensorboard.hparams.SessionStartInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) hparams: BTreeMap<String, Plain>,
    #[prost(string, tag = "4")]
    pub(super) group_name: String,
    #[prost(double, tag = "5")]
    pub(super) start_time_secs: f64,
}

/// `tensorboard.hparams.SessionEndInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionEnd {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
    #[prost(double, tag = "2")]
    pub(super) end_time_secs: f64,
}

/// `google.protobuf.Value`, as far as a hyperparameter may be one: number, text, truth value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Plain {
    #[prost(oneof = "Kind", tags = "2, 3, 4")]
    pub(super) kind: Option<Kind>,
}

/// Which it is.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Kind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
}

/// A parameter as the plugin takes it. Lists, `null` and integers that no double holds are their JSON text.
pub(super) fn plain(value: &serde_json::Value) -> Plain {
    const EXACT: u64 = 1 << 53;
    let large = value.as_i64().is_some_and(|int| int.unsigned_abs() > EXACT);
    let kind = match value {
        serde_json::Value::Bool(truth) => Kind::Bool(*truth),
        serde_json::Value::String(text) => Kind::Text(text.clone()),
        other => match other.as_f64() {
            Some(number) if !large => Kind::Number(number),
            Some(_) | None => Kind::Text(other.to_string()),
        },
    };
    Plain { kind: Some(kind) }
}
