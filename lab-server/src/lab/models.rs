//! How the Lab asks a model, whoever it is.
//!
//! [`Models::ask`] makes a [`Prompt`] into a request of the dialect that the model's host speaks and hands it to the proxy inside this
//! process: the same limits, the same price, the same one record as a key's request has. [`Answer`] reads what comes back, and ends
//! with what the record says, so that the sum over messages is the sum of the ledger.

mod answer;
mod context;
mod dialect;
mod frames;
mod list;
mod speed;
mod words;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use api_proxy::{Abilities, Bridges, KeyId, Presence, Proxy};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use wire::{LocalModel, RequestId, UserId};

pub use answer::Answer;
pub use list::{Availability, CloudPrices, Host, LocalState, ModelView};
pub use speed::Speeds;

use super::{
    content::Use,
    prompt::{ModelError, Payer, Prompt, Said, Turn},
};
use crate::{
    gateway::Gateway,
    meter::Meter,
    metrics::Observed,
    store::{RequestRecord, StoreError},
};
pub(in crate::lab) use dialect::{Dialect, Limits, Piece};
pub(in crate::lab) use frames::Frames;

/// The proxy as this Lab runs it.
pub type House = Proxy<Observed<Meter>, Gateway>;

/// What stands in a record where a key's id would, when the Lab itself asked for somebody: in a conversation, a run, an agent's step.
pub const HOUSE_KEY: KeyId = KeyId::HOUSE;

/// Asks models. Clones share what they know.
#[derive(Clone)]
pub struct Models(Arc<Inner>);

struct Inner {
    proxy: Arc<House>,
    door: Arc<Observed<Meter>>,
    gateway: Arc<Gateway>,
    speeds: Arc<Speeds>,
    cloud: Mutex<Option<(Instant, Arc<[ModelView]>)>>,
}

/// What it is made of.
pub struct Parts {
    /// The proxy that keys' requests go through, too.
    pub proxy: Arc<House>,
    /// Who lets people in.
    pub door: Arc<Observed<Meter>>,
    /// The workstations.
    pub gateway: Arc<Gateway>,
    /// How fast workstations were.
    pub speeds: Arc<Speeds>,
}

impl Models {
    /// Over these parts.
    #[must_use]
    pub fn new(Parts { proxy, door, gateway, speeds }: Parts) -> Self {
        Self(Arc::new(Inner { proxy, door, gateway, speeds, cloud: Mutex::default() }))
    }

    /// Asks a model. What can be told without asking anybody is told here; limits, money and hosts speak in the answer.
    ///
    /// # Errors
    /// `model_not_found`, `invalid_model`, and `tools_not_supported` or `images_not_supported` where that is known.
    pub async fn ask(&self, payer: Payer, prompt: Prompt) -> Result<Answer, ModelError> {
        let request = RequestId::at(SystemTime::now());
        let name = prompt.choice.model.clone();
        let (dialect, limits) = match LocalModel::parse(&name) {
            Some(local) => {
                let local = local.map_err(|_| words::error("invalid_model", None))?;
                let context = self.context(payer.user, &local, &prompt)?;
                (Dialect::Ollama, Limits { context, ..Limits::default() })
            }
            None => {
                let offer = self.0.proxy.offer(&name).ok_or_else(|| words::error("model_not_found", None))?;
                let dialect = Dialect::of(&offer).ok_or_else(|| words::error("model_not_for_chat", None))?;
                let Abilities { tools, vision, .. } = offer.model.can;
                check(&prompt, tools == Some(false), vision == Some(false))?;
                (dialect, Limits { output: Some(offer.model.max_output), ..Limits::default() })
            }
        };
        let following = (dialect == Dialect::Ollama).then(|| self.0.gateway.follow(request));
        let body = body(dialect, prompt, limits).await?;
        let mut asked = Request::new(Full::new(body));
        *asked.method_mut() = Method::POST;
        // A path of ours, with the one name in it escaped.
        *asked.uri_mut() = dialect.path(&name).parse().map_err(|_| words::error("invalid_model", None))?;
        asked.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        if dialect == Dialect::Anthropic {
            asked.headers_mut().insert("anthropic-version", http::HeaderValue::from_static("2023-06-01"));
        }
        let inner = Arc::clone(&self.0);
        let asking = Box::pin(async move {
            let admit = inner.door.admit_person(payer.user, payer.project);
            inner.proxy.handle_for(request, admit, asked).await
        });
        Ok(Answer::new(self.clone(), payer, name, request, dialect, asking, following))
    }

    /// What a request took, from the moment in which it ended: for an answer that was dropped or broke off. `None` while it runs, and
    /// for one that was never let in. An answer that its provider goes on with after a stop ends when the provider does.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn used(&self, payer: Payer, request: RequestId, model: &str) -> Result<Option<Use>, StoreError> {
        let record = self.0.door.meter().record(payer.project, request).await?;
        Ok(record.map(|record| self.use_of(payer, request, model, &record, None)))
    }

    /// Every model that a person can ask: first those on their workstations, then the catalogue's that somebody serves.
    #[must_use]
    pub fn list(&self, user: UserId) -> Vec<ModelView> {
        list::list(&self.0, user)
    }

    fn use_of(&self, payer: Payer, request: RequestId, model: &str, record: &RequestRecord, load_ms: Option<u64>) -> Use {
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        let device = record.device.as_ref().map(|device| {
            let workstations = self.0.gateway.workstations(payer.user);
            let named = workstations.into_iter().find(|workstation| workstation.device.to_string() == *device);
            named.map_or_else(|| device.clone(), |workstation| workstation.name)
        });
        Use {
            request,
            model: model.to_owned(),
            device,
            provider: record.provider.clone(),
            input_tokens: record.input_tokens.map(count),
            output_tokens: record.output_tokens.map(count),
            estimated: record.estimated,
            cost_nano: record.cost_nano,
            first_token_ms: record.first_token_ms.map(count),
            total_ms: count(record.latency_ms),
            load_ms,
        }
    }

    /// Looks at the workstations that may be meant: whether they say that they cannot do what is asked, and how long a context to ask
    /// for. Where they say nothing, they are asked.
    fn context(&self, user: UserId, local: &LocalModel, prompt: &Prompt) -> Result<Option<u64>, ModelError> {
        let workstations = self.0.gateway.workstations(user);
        let meant = |name: &str| local.device.as_deref().is_none_or(|device| device.eq_ignore_ascii_case(name));
        let places: Vec<_> = workstations
            .iter()
            .filter(|workstation| workstation.presence != Presence::Offline && meant(&workstation.name))
            .filter_map(|workstation| {
                let model = workstation.snapshot.models.iter().find(|model| model.name == local.model)?;
                Some((&workstation.snapshot, model))
            })
            .collect();
        let none_can = |what: &str| {
            let cannot = |(_, model): &(_, &wire::relay::Model)| {
                !model.capabilities.is_empty() && model.capabilities.iter().all(|can| can != what)
            };
            !places.is_empty() && places.iter().all(cannot)
        };
        check(prompt, none_can("tools"), none_can("vision"))?;
        let places: Vec<_> = places
            .iter()
            .map(|(snapshot, model)| context::Place {
                most: list::longest_context(snapshot, model),
                loaded: list::loaded_context(snapshot, model),
            })
            .collect();
        Ok(context::wanted(prompt, &places))
    }
}

/// Whether a model is asked for what it is known not to do.
fn check(prompt: &Prompt, no_tools: bool, no_pictures: bool) -> Result<(), ModelError> {
    let has_image = |turn: &Turn| {
        let (Turn::User(said) | Turn::Assistant(said)) = turn;
        said.iter().any(|said| matches!(said, Said::Image { .. }))
    };
    if no_tools && !prompt.tools.is_empty() {
        return Err(words::error("tools_not_supported", None));
    }
    if no_pictures && prompt.turns.iter().any(has_image) {
        return Err(words::error("images_not_supported", None));
    }
    Ok(())
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to models")
    }
}

/// Writes the request's body, away from the runtime where pictures make it large.
async fn body(dialect: Dialect, prompt: Prompt, limits: Limits) -> Result<Bytes, ModelError> {
    let write = move || Bytes::from(dialect.body(&prompt, limits).to_string());
    // It does not panic: a value can always be written.
    tokio::task::spawn_blocking(write).await.map_err(|_| words::error("internal", None))
}
