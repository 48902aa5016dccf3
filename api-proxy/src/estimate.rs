//! Counts tokens where a provider tells none: with OpenAI's own tokenizer, off the request's path, and marked.
//!
//! Three figures, from the dearest to the cheapest: [`counted`] runs the tokenizer over the request's and the answer's words,
//! [`guessed`] knows their lengths alone, and [`most_input`] is what a request can be at most, before it is sent.

mod bound;
mod prompt;

use bpe_openai::Tokenizer;
use wire::Content;

pub(crate) use bound::most_input;

use crate::{
    TokenUsage,
    surface::Endpoint,
    tap::{
        Reading,
        text::{Characters, unescaped},
    },
};

/// What an answer without a word of its usage will have used. Takes milliseconds: to be run off the runtime.
///
/// It is OpenAI's own count for OpenAI's models; the texts of others' models are counted the same and multiplied by [`factor`]. The
/// tokenizer is made when it is first needed, which takes 0.1 s and 67 MB, and stays.
pub(crate) fn counted(endpoint: Endpoint, model: &str, request: &Content, reading: &Reading) -> TokenUsage {
    let tokenizer = tokenizer(model);
    let (times, of) = factor(model);
    let scaled = |tokens: u64| tokens.saturating_mul(times) / of;
    let input = scaled(prompt::tokens(tokenizer, endpoint, request.for_routing()));
    let output = match &reading.words {
        Some(words) => scaled(answer(tokenizer, words.for_routing(), reading.text)),
        None => by_length(reading.text),
    };
    completed(reading, input, output)
}

/// A quick figure from lengths alone, for an answer that its caller did not wait for. Rounded in the caller's favour.
///
/// A token is five bytes of a request, of which its JSON is a part: measured English has 4.7 bytes a token without it. A request
/// with a picture inside is long for its tokens; what was reserved for it is the bound there.
pub(crate) fn guessed(request_bytes: usize, reading: &Reading) -> TokenUsage {
    completed(reading, request_bytes as u64 / 5, by_length(reading.text))
}

/// What was told, and the rest from elsewhere. What a provider said is never replaced, be it zero.
fn completed(reading: &Reading, input: u64, output: u64) -> TokenUsage {
    let mut usage = reading.usage.as_ref().map(|usage| usage.whole).unwrap_or_default();
    if usage.input_tokens().is_none() {
        usage.input = Some(input);
    }
    if usage.output_tokens().is_none() {
        usage.output = Some(output);
    }
    usage
}

/// Tokens of an answer by its characters. Measured with OpenAI's tokenizer, English has 4.6 characters a token and code 3.3,
/// Russian 4.1, Hindi 3.5, Chinese and Japanese 1.2, an emoji is one token and more; the figures here are the caller's side of
/// that.
fn by_length(text: Characters) -> u64 {
    // In sixtieths of a token, so that it is rounded once.
    let sixtieths = [(text.ascii, 12), (text.two, 14), (text.southern, 15), (text.three, 40), (text.four, 60)];
    sixtieths.into_iter().map(|(characters, each)| characters.saturating_mul(each)).fold(0, u64::saturating_add) / 60
}

/// Tokens of an answer's words; of which those beyond the bound of what is gathered were only counted.
fn answer(tokenizer: &Tokenizer, words: &[u8], all: Characters) -> u64 {
    let text = unescaped(words);
    let tokens = tokenizer.count(text.as_str()) as u64;
    let gathered = text.chars().count() as u64;
    let all = all.all();
    if gathered == 0 || all <= gathered { tokens } else { (u128::from(tokens) * u128::from(all) / u128::from(gathered)) as u64 }
}

/// The tokenizer of a model: an older one for OpenAI's older models.
fn tokenizer(model: &str) -> &'static Tokenizer {
    let name = model.rsplit('/').next().unwrap_or(model);
    let newer_4 = ["gpt-4o", "gpt-4.1", "gpt-4.5"].iter().any(|newer| name.starts_with(newer));
    let older = ["gpt-3.5", "gpt-35", "gpt-4", "text-embedding"].iter().any(|older| name.starts_with(older)) && !newer_4;
    if older { bpe_openai::cl100k_base() } else { bpe_openai::o200k_base() }
}

/// What a count is multiplied by for a model of another maker, as a fraction. Anthropic's tokenizer is not public; its counts are a
/// sixth (English) to a third (code) above OpenAI's, so a fifth is added, which is rather too little than too much. Google's and
/// xAI's vocabularies are as large as OpenAI's and give about the same.
fn factor(model: &str) -> (u64, u64) {
    if model.contains("claude") { (6, 5) } else { (1, 1) }
}

#[cfg(test)]
mod tests;
