//! What both ends of the link say to each other: identities, the hello, the relay's vocabulary and the byte stream it all runs over.
//!
//! This is the ground of the house: no sockets, no TLS, no web framework. [`hello`] proves who dialled, [`stream`] turns the
//! WebSocket into bytes, and over those bytes HTTP/2 runs with the roles reversed (the Lab asks, the bridge answers) in the words
//! of [`relay`]. [`content`] is the type in which a person's words travel on both sides.

pub mod content;
pub mod fingerprint;
pub mod hello;
pub mod ids;
pub mod model;
pub mod pairing;
pub mod relay;
pub mod stream;

pub use content::Content;
pub use ids::{
    ApprovalId, BlobId, ConversationId, DeviceId, FileId, FolderId, IdentityId, MessageId, ProjectId, RelayId, RequestId, RuleId,
    RunId, SessionId, TaskId, ToolServerId, UserId,
};
pub use model::{LocalModel, ModelName};
