//! Asking providers through a whole Lab: real sockets, TLS, the database, and fakes behind the channels. Rows are those of the issue
//! "The API proxy".

mod adversary;
mod bytes;
mod hangups;
mod keys;
mod money;
mod pace;
mod records;
mod revocation;
mod smuggling;

use journeys::world::cloud::{ANTHROPIC, AZURE, DEPLOYMENTS, GOOGLE, HOME, OPENAI, Provider, XAI};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// A question of two tokens in OpenAI's words, with room for an answer of 16.
fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_tokens": 16, "messages": [{"role": "user", "content": "hello"}]})
}

/// Where a provider's usual question is asked, and the question: in Anthropic's and Google's words at theirs.
fn question(provider: Provider, model: &str, stream: bool) -> (String, Value) {
    match provider {
        ANTHROPIC => (MESSAGES.to_owned(), chat(model, stream)),
        GOOGLE => {
            let verb = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            (format!("/v1beta/models/{model}:{verb}"), json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}))
        }
        DEPLOYMENTS => (format!("/openai/deployments/{model}/chat/completions"), chat(model, stream)),
        AZURE => ("/openai/v1/chat/completions".to_owned(), chat(model, stream)),
        OPENAI | XAI | HOME => (CHAT.to_owned(), chat(model, stream)),
        other => panic!("{other:?} is asked nothing"),
    }
}
