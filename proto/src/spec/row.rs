//! What a parameter of a sweep means: a row of the catalogue, or a hyperparameter of a model of one's own.

use crate::{
    catalogue::{
        CatalogueError, Hyperparameter,
        hyperparameters::Kind,
        own::{OwnKind, OwnParameter},
    },
    value::ParamValue,
};

/// One meaning.
#[derive(Debug, Clone, Copy)]
pub(super) enum Row<'a> {
    /// Of the catalogue.
    Known(&'static Hyperparameter),
    /// Of a model that a trainer has added.
    Own(&'a OwnParameter),
}

/// What can be drawn for it from a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draws {
    /// Integers alone.
    Integers,
    /// Any numbers.
    Numbers,
    /// Its values are listed.
    Nothing,
}

impl Row<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Known(row) => row.name,
            Self::Own(parameter) => parameter.name.as_str(),
        }
    }

    /// Type and range in words.
    pub(super) fn takes(&self) -> String {
        match self {
            Self::Known(row) => row.kind.to_string(),
            Self::Own(parameter) => parameter.kind.to_string(),
        }
    }

    pub(super) fn check(&self, value: &ParamValue) -> Result<(), CatalogueError> {
        match self {
            Self::Known(row) => row.check(value),
            Self::Own(parameter) => parameter.read(value).map(|_| ()),
        }
    }

    pub(super) fn draws(&self) -> Draws {
        let kind = match self {
            Self::Known(row) => Some(row.kind),
            Self::Own(OwnParameter { kind: OwnKind::Choice { .. }, .. }) => None,
            Self::Own(parameter) => parameter.kind.built_in(),
        };
        match kind {
            Some(Kind::Int { .. } | Kind::Widths { .. }) => Draws::Integers,
            Some(Kind::Float(_) | Kind::FloatOrNull(_)) => Draws::Numbers,
            Some(Kind::Bool | Kind::Choice(_) | Kind::Model | Kind::Data) | None => Draws::Nothing,
        }
    }
}
