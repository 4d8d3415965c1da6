//! What the report shares with the web page: how much each hyperparameter explains.

pub mod importance;
