//! The body of a request to the Lab's own API: a JSON object.

use axum::{
    Json,
    extract::{FromRequest, Request, rejection::JsonRejection},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, value::RawValue};

/// An object of this shape. `serde` would take a list for it too, whose items are the fields in order; nobody means that.
pub(crate) struct Object<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Object<T> {
    type Rejection = JsonRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, JsonRejection> {
        let Json(body) = Json::<Box<RawValue>>::from_request(request, state).await?;
        let body = body.get().as_bytes();
        if body.first() != Some(&b'{') {
            // For its refusal.
            drop(Json::<Map<String, Value>>::from_bytes(body)?);
        }
        Json::from_bytes(body).map(|Json(body)| Self(body))
    }
}
