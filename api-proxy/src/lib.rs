//! The stateless path of a model request: `ingress -> admit -> route -> forward -> settle`, exactly once.
//!
//! A request comes in ([`Proxy::handle`]); [`surface()`] says which of the model API's routes it is. Its key is looked up through
//! [`Meter::admit`] before its body is read. The body is kept as it came and only its `model` and `stream` are looked at, once.
//! `local/<model>` is one of the caller's own workstations: among those that [`Bridges::workstations`] names, the least busy that
//! has the model, the one that the caller used last where that costs nothing. [`Bridges::relay`] takes the body there, byte for
//! byte, and the answer's status, content type and bytes come back as they are and go out as they come.
//!
//! While a workstation loads its model, the caller hears something every 15 s wherever their protocol has a way to say nothing.
//! Whatever goes wrong is said in the caller's dialect: with a status while there still can be one, as an event or a line of the
//! stream after that, by breaking off where neither would be understood. One that simply ends is whole.
//!
//! Each admitted request leaves one [`Record`] behind: ids, numbers and a model's name. This crate has no database, no cache and
//! no file under it, so that is all that anybody can learn from it; `tests/dependencies.rs` and `clippy.toml` keep it so. It knows no
//! web framework either: it takes and gives `http` types, and the Lab's server mounts it.

mod body;
mod bridges;
mod calendar;
mod catalogue;
mod cloud;
mod error;
mod estimate;
mod exact;
mod forward;
mod head;
mod keys;
mod listing;
mod manners;
mod meter;
mod provider;
mod route;
mod scan;
mod settle;
mod surface;
mod tap;
mod upstream;
mod usage;

pub use body::{Aborted, ProxyBody, TooSlow};
pub use bridges::{Answer, AnswerBody, AnswerSender, Bridges, HungUp, NotRelayed, Order, Part, Presence, Workstation};
pub use catalogue::{
    Abilities, Bound, Catalogue, CatalogueError, InvalidPrice, ListPrice, Model, ModelOverride, ModelPrices, NANO_PER_CREDIT,
    Price, Snapshot,
};
pub use forward::Proxy;
pub use keys::presented_key;
pub use listing::{Offer, local_prefix};
pub use meter::{
    Admitted, Allowance, Ask, AskedModel, Caller, InvalidKeyId, KeyId, Leash, Meter, NotAdmitted, NotReserved, PresentedKey, Quota,
    Record, RecordOutcome, Reservation,
};
pub use provider::{BaseUrl, Channel, InvalidBaseUrl, InvalidName, Name, ProviderKind, ProviderSecret};
pub use surface::{Endpoint, Listing, Protocol, Route, Surface, surface};
pub use upstream::{ChannelHealth, ChannelState, Probe, Tuning, Upstream};
pub use usage::{Iteration, Tier, TokenUsage, Usage};
