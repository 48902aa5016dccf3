//! Who asks: found out in one place, from every spelling of a key that the model API takes.

use api_proxy::presented_key;
use axum::{extract::FromRequestParts, http::request::Parts};
use wire::{ProjectId, UserId};

use super::Api;
use crate::{
    account::{api_key::PresentedKey, recognise},
    error::ApiError,
    store::{Scope, Scopes},
};

/// A person, and what the credential that was shown lets it do. The handler says which of it it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    user: UserId,
    project: ProjectId,
    scopes: Scopes,
}

/// How far a credential sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All that the person has.
    Account(UserId),
    /// One project of theirs.
    Project(UserId, ProjectId),
}

impl Principal {
    /// Whose account may be looked at and changed.
    pub(super) fn manages(&self) -> Result<UserId, ApiError> {
        if self.scopes.allow(Scope::Manage) { Ok(self.user) } else { Err(ApiError::Scope { needs: Scope::Manage.as_str() }) }
    }

    /// Whose records and sums may be read.
    pub(super) fn reads(&self) -> Result<Reach, ApiError> {
        if self.scopes.allow(Scope::Manage) {
            Ok(Reach::Account(self.user))
        } else if self.scopes.allow(Scope::Usage) {
            Ok(Reach::Project(self.user, self.project))
        } else {
            Err(ApiError::Scope { needs: Scope::Usage.as_str() })
        }
    }

    /// The project whose single requests may be looked up: whoever may ask a model may see what was kept of it.
    pub(super) fn looks_up(&self) -> Result<ProjectId, ApiError> {
        let may = self.scopes.allow(Scope::Inference) || self.scopes.allow(Scope::Usage);
        if may { Ok(self.project) } else { Err(ApiError::Scope { needs: Scope::Usage.as_str() }) }
    }
}

impl Reach {
    /// Whose.
    pub(super) fn owner(self) -> UserId {
        match self {
            Self::Account(owner) | Self::Project(owner, _) => owner,
        }
    }

    /// The one project that is meant, if one is: a key that sees one cannot ask for another.
    pub(super) fn project(self, asked: Option<ProjectId>) -> Result<Option<ProjectId>, ApiError> {
        match (self, asked) {
            (Self::Account(_), asked) => Ok(asked),
            (Self::Project(_, own), Some(asked)) if asked != own => Err(ApiError::NotFound),
            (Self::Project(_, own), _) => Ok(Some(own)),
        }
    }
}

impl FromRequestParts<Api> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, Api(api): &Api) -> Result<Self, ApiError> {
        let shown = presented_key(&parts.headers, &parts.uri).map_err(|_| ApiError::Unauthorized)?;
        // A typo costs no look at anything.
        let key: PresentedKey = shown.expose().parse().map_err(|_| ApiError::Unauthorized)?;
        let valid = recognise(&api.store, &key).await?.ok_or(ApiError::Unauthorized)?;
        Ok(Self { user: valid.owner.user, project: valid.owner.project, scopes: valid.terms.scopes })
    }
}
