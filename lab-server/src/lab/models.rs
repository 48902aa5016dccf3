//! How the Lab asks a model, whoever it is.
//!
//! [`Models::ask`] makes a [`Prompt`] into a request of the dialect that the model's host speaks and hands it to the proxy inside this
//! process: the same limits, the same price, the same one record as a key's request has. [`Answer`] reads what comes back.

mod list;

use wire::RequestId;

pub use list::{Availability, CloudPrices, Host, LocalState, ModelView};

use super::prompt::{Delta, ModelError, Payer, Prompt};

/// Asks models. Clones share what they know.
#[derive(Clone, Default)]
pub struct Models(());

/// What a model says. Dropping it stops the model: a workstation's graphics card is free at once.
pub struct Answer {
    request: RequestId,
}

impl Models {
    /// Asks a model. Ready as soon as the request was let in and what it may cost is set aside; everything else comes from the answer.
    ///
    /// # Errors
    /// Why it is not asked: `model_not_found`, `insufficient_credits`, `rate_limited`, ...
    pub async fn ask(&self, _payer: Payer, _prompt: Prompt) -> Result<Answer, ModelError> {
        Err(ModelError { code: "not_built".to_owned(), message: "this Lab cannot ask models yet".to_owned(), request: None })
    }

    /// Every model that a person can ask: first those on their workstations, then the catalogue's that somebody serves.
    #[must_use]
    pub fn list(&self, _user: wire::UserId) -> Vec<ModelView> {
        Vec::new()
    }
}

impl Answer {
    /// Which request it is, as it stands in the account's records.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        self.request
    }

    /// What comes next; `None` after [`Delta::End`] or an error. Giving up in the middle of waiting loses nothing.
    pub async fn next(&mut self) -> Option<Result<Delta, ModelError>> {
        None
    }
}
