//! Who asks: found out in one place, from every spelling of a key that the model API takes, or else from the session's cookie.

use api_proxy::{NotAdmitted, presented_key};
use axum::{extract::FromRequestParts, http::request::Parts};
use wire::{ProjectId, UserId};

use super::{Api, Session, session};
use crate::{
    account::{
        api_key::{Kid, PresentedKey},
        recognise,
    },
    error::ApiError,
    lab::content::Actor,
    store::{Scope, Scopes},
};

/// A person, and what the credential that was shown lets it do. The handler says which of it it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal {
    user: UserId,
    credential: Credential,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    /// A program's.
    Key { kid: Kid, project: ProjectId, scopes: Scopes },
    /// A person at a browser, who may do all that the account may.
    Session(Session),
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
        match self.credential {
            Credential::Session(_) => Ok(self.user),
            Credential::Key { scopes, .. } if scopes.allow(Scope::Manage) => Ok(self.user),
            Credential::Key { .. } => Err(ApiError::Scope { needs: Scope::Manage.as_str() }),
        }
    }

    /// The same for what cannot be undone or gives others power: a browser that was left alone must not do it.
    pub(super) fn manages_freshly(&self) -> Result<UserId, ApiError> {
        if let Credential::Session(session) = self.credential {
            session.fresh()?;
        }
        self.manages()
    }

    /// Who it is in a project's operation log.
    pub(super) fn actor(&self) -> Actor {
        match self.credential {
            Credential::Session(_) => Actor::Person,
            Credential::Key { kid, .. } => Actor::Program { key: kid.to_string() },
        }
    }

    /// Whose records and sums may be read.
    pub(super) fn reads(&self) -> Result<Reach, ApiError> {
        match self.credential {
            Credential::Session(_) => Ok(Reach::Account(self.user)),
            Credential::Key { scopes, .. } if scopes.allow(Scope::Manage) => Ok(Reach::Account(self.user)),
            Credential::Key { scopes, project, .. } if scopes.allow(Scope::Usage) => Ok(Reach::Project(self.user, project)),
            Credential::Key { .. } => Err(ApiError::Scope { needs: Scope::Usage.as_str() }),
        }
    }

    /// The project whose single requests may be looked up: whoever may ask a model may see what was kept of it. It is the model
    /// API's address, which a browser has no part in.
    pub(super) fn looks_up(&self) -> Result<ProjectId, ApiError> {
        match self.credential {
            Credential::Session(_) => Err(ApiError::Unauthorized),
            Credential::Key { scopes, project, .. } if scopes.allow(Scope::Inference) || scopes.allow(Scope::Usage) => Ok(project),
            Credential::Key { .. } => Err(ApiError::Scope { needs: Scope::Usage.as_str() }),
        }
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
        let shown = match presented_key(&parts.headers, &parts.uri) {
            Ok(shown) => shown,
            Err(NotAdmitted::Missing) => {
                let session = session::of(parts, api).await?.ok_or(ApiError::Unauthorized)?;
                return Ok(Self { user: session.user, credential: Credential::Session(session) });
            }
            Err(_) => return Err(ApiError::Unauthorized),
        };
        // A typo costs no look at anything.
        let key: PresentedKey = shown.expose().parse().map_err(|_| ApiError::Unauthorized)?;
        let valid = recognise(&api.store, &key).await?.ok_or(ApiError::Unauthorized)?;
        let credential = Credential::Key { kid: key.kid(), project: valid.owner.project, scopes: valid.terms.scopes };
        Ok(Self { user: valid.owner.user, credential })
    }
}
