//! What people are told when a model gives no answer, or not the whole of one: by the proxy's own codes, in words for somebody who
//! sits before the Lab and holds no key. What a provider wrote is not repeated.

use http::StatusCode;
use wire::RequestId;

use crate::lab::prompt::ModelError;

/// The error of that code.
pub(super) fn error(code: &str, request: Option<RequestId>) -> ModelError {
    let message = sentence(code).unwrap_or("the model gave no whole answer; try again, or choose another model");
    ModelError { code: code.to_owned(), message: message.to_owned(), request }
}

/// The same with the proxy's own sentence where there is no better one.
pub(super) fn told(code: &str, own: Option<String>, request: RequestId) -> ModelError {
    // Who was not let in has no record.
    let request = (!matches!(code, "invalid_api_key" | "missing_api_key" | "not_found")).then_some(request);
    match (sentence(code), own) {
        (None, Some(message)) => ModelError { code: code.to_owned(), message, request },
        _ => error(code, request),
    }
}

/// The error of a host that answered with a status and words of its own.
pub(super) fn of_host(local: bool, status: StatusCode, request: RequestId) -> ModelError {
    let (code, message) = match (local, status.as_u16()) {
        (true, 400) => {
            ("ollama_error", "Ollama refused the request: the model may not take tools, pictures or so long a conversation")
        }
        (true, 404) => ("model_not_found", "Ollama has no such model any more; choose another one"),
        (true, _) => ("ollama_error", "Ollama answered with an error: see its log on the workstation, and try again"),
        (false, 400 | 413 | 422) => (
            "provider_error",
            "the provider refused the request: the conversation may be too long, or hold something that this model does not take",
        ),
        (false, 404) => ("provider_error", "the provider does not know this model in this form; choose another one"),
        (false, 429 | 503 | 529) => ("provider_error", "the provider has too much to do just now; try again in a moment"),
        (false, _) => ("provider_error", "the provider answered with an error; try again, or choose another model"),
    };
    ModelError { code: code.to_owned(), message: message.to_owned(), request: Some(request) }
}

fn sentence(code: &str) -> Option<&'static str> {
    Some(match code {
        "model_not_found" => "there is no such model here any more; choose another one",
        "invalid_model" => "this is no model's name; choose one from the list",
        "model_not_for_chat" => "this model cannot be talked with; choose another one",
        "tools_not_supported" => "this model cannot use tools, and an agent works with tools; choose another one",
        "images_not_supported" => "this model does not see pictures; choose another one, or leave the pictures out",
        "invalid_api_key" => "the project or the account is no more; what runs in it has ended",
        "insufficient_credits" => "the account has not enough credits for this; add some, or choose a model on a workstation",
        "trial_exhausted" => "the free requests are used up; add credits, or choose a model on a workstation",
        "in_flight_budget_exhausted" => "what runs now has set the rest of the credits aside; try again when it is done",
        "rate_limited" => "too many requests in too short a time; try again in a moment",
        "unavailable" => "the lab cannot keep its records just now; try again in a moment",
        "no_provider" => "nobody who serves this model can be reached just now; try again in a moment, or choose another one",
        "provider_error" => "the provider failed in the middle of the answer; try again, or choose another model",
        "upstream_error" => "the provider's answer broke off; try again",
        "upstream_truncated" => "the provider's answer ended before its end; try again",
        "upstream_timeout" => "the provider was silent for too long; try again, or choose another model",
        "bridge_offline" => "the workstation that has this model is not connected; wake it, or choose another model",
        "paused" => "the workstation takes no work now, by its owner's choice; try again later",
        "queue_full" => "as many requests wait at the workstation as its owner lets wait; try again in a moment",
        "ollama_unavailable" => "Ollama does not answer on the workstation; start it there",
        "ollama_error" => "Ollama failed at this; see its log on the workstation, and try again",
        "ollama_truncated" => "Ollama's answer ended before its end; try again",
        "ollama_lost" => "Ollama went away in the middle of the answer; try again",
        "stopped_at_workstation" | "cancelled" => "the answer was stopped",
        "time_limit" => "the answer took longer than the workstation's owner lets one take",
        "answer_too_large" => "the answer has a part that is larger than anybody reads; try again",
        "too_large" => "the conversation is too large to be sent; leave out pictures, or begin a new one",
        "internal" => "the lab failed at this; its log names the cause",
        _ => return None,
    })
}
