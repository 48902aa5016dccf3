//! The Lab's OpenAPI file as a test walks it: every operation, every text that it takes, and a request for each.
//!
//! What a battery does to "every route" or "every field" is made from here, so that a new route is in it without anybody's thinking
//! of it.

mod meaning;

use http::Method;
use serde_json::{Map, Value, json};

pub use meaning::{Meaning, guess, made, makes, meaning, place_of};

/// The description of a Lab.
pub struct Description(Value);

/// One method of one path.
#[derive(Clone)]
pub struct Operation<'a> {
    /// How it is asked.
    pub method: Method,
    /// As it is described, such as `/api/projects/{id}`.
    pub path: &'a str,
    about: &'a Value,
    whole: &'a Value,
}

/// A text that somebody chooses: not one of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it stands.
    pub place: Place,
    /// Its name; in a body with the names above it, `order.model`.
    pub name: String,
    /// Characters that it may have at most, where there is a limit.
    pub longest: Option<u64>,
    /// Whether it has to be there.
    pub required: bool,
}

/// Where in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Between slashes.
    Path,
    /// Behind the question mark.
    Query,
    /// In a header of its own.
    Header,
    /// In the JSON body.
    Body,
}

/// How much is in a request.
#[derive(Debug, Clone, Copy)]
pub enum Fill<'t> {
    /// What has to be.
    Least,
    /// All that may be.
    Most,
    /// What has to be, and this text with what it stands in.
    With(&'t Text),
}

struct Parameter<'a> {
    name: &'a str,
    place: Place,
    required: bool,
    schema: &'a Value,
}

const JSON: &str = "application/json";
/// Schemas within schemas; one that holds itself has no end.
const DEEPEST: usize = 10;

/// A request that is yet to be sent.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// With its query.
    pub path: String,
    /// The headers that it has beside everybody's.
    pub headers: Vec<(String, String)>,
    /// The body and its type, where it has one.
    pub body: Option<(String, Vec<u8>)>,
}

impl Description {
    /// Of the Lab as it is.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn of_this_lab() -> Self {
        let text = lab_server::api::document().expect("a description");
        Self(serde_json::from_str(&text).expect("JSON"))
    }

    /// Everything that can be asked, in the order of the file.
    ///
    /// # Panics
    /// When the description is none.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let all = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").iter();
            methods.map(move |(method, about)| (path.as_str(), method, about))
        });
        let operation = |(path, method, about): (_, &String, _)| {
            let method = method.to_uppercase().parse().expect("a method");
            Operation { method, path, about, whole: &self.0 }
        };
        all.map(operation).collect()
    }
}

impl<'a> Operation<'a> {
    /// For a person who reads of a failure.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether it changes nothing by what HTTP says of its method.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// Whether its answer goes on for as long as its reader likes.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.about["responses"]["200"]["content"].get("text/event-stream").is_some()
    }

    /// The names of those who may ask: `key`, `session`; nobody's where anybody may.
    #[must_use]
    pub fn credentials(&self) -> Vec<&'a str> {
        let own = self.about["security"].as_array().or(self.whole["security"].as_array());
        own.into_iter().flatten().flat_map(|way| way.as_object().into_iter().flatten()).map(|(name, _)| name.as_str()).collect()
    }

    /// Every text that it takes, also those of which a request has one or the other.
    #[must_use]
    pub fn texts(&self) -> Vec<Text> {
        let mut texts = Vec::new();
        for Parameter { name, place, required, schema } in self.parameters() {
            self.texts_of(schema, place, name, required, 0, &mut texts);
        }
        match self.media_type() {
            Some(JSON) => self.texts_of(self.body(JSON), Place::Body, "", true, 0, &mut texts),
            Some(_) => texts.push(Text::raw_body()),
            None => {}
        }
        texts
    }

    /// The media type of its body, where it takes one.
    #[must_use]
    pub fn media_type(&self) -> Option<&'a str> {
        let kind = self.about["requestBody"]["content"].as_object()?.keys().next()?;
        Some(if kind == "*/*" { "application/octet-stream" } else { kind })
    }

    /// A request with as much in it as `fill` says, its texts being those that `choose` gives.
    pub fn draft(&self, fill: Fill<'_>, choose: &mut dyn FnMut(&Text) -> String) -> Draft {
        let mut path = self.path.to_owned();
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for Parameter { name, place, required, schema } in self.parameters() {
            if !self.includes(fill, schema, place, name, required) {
                continue;
            }
            let value = self.value(schema, place, name, required, fill, choose);
            let value = escaped(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            match place {
                Place::Path => path = path.replace(&format!("{{{name}}}"), &value),
                Place::Header => headers.push((name.to_owned(), value)),
                Place::Query | Place::Body => query.push(format!("{name}={value}")),
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let body = self.media_type().map(|media_type| {
            let bytes = if media_type == JSON {
                self.value(self.body(JSON), Place::Body, "", true, fill, choose).to_string().into_bytes()
            } else {
                choose(&Text::raw_body()).into_bytes()
            };
            (media_type.to_owned(), bytes)
        });
        Draft { path, headers, body }
    }

    fn parameters(&self) -> impl Iterator<Item = Parameter<'a>> {
        let all = self.about["parameters"].as_array().into_iter().flatten();
        all.filter_map(|about| {
            let place = match about["in"].as_str()? {
                "path" => Place::Path,
                "query" => Place::Query,
                "header" => Place::Header,
                _ => return None,
            };
            let required = about["required"].as_bool().unwrap_or_default();
            Some(Parameter { name: about["name"].as_str()?, place, required, schema: &about["schema"] })
        })
    }

    fn body(&self, media_type: &str) -> &'a Value {
        &self.about["requestBody"]["content"][media_type]["schema"]
    }

    fn texts_of(&self, schema: &'a Value, place: Place, name: &str, required: bool, depth: usize, texts: &mut Vec<Text>) {
        let schema = self.resolved(schema);
        if depth > DEEPEST || is_fixed(schema) {
            return;
        }
        for choice in choices(schema) {
            self.texts_of(choice, place, name, required, depth + 1, texts);
        }
        if is(schema, "string") {
            let text = Text { place, name: name.to_owned(), longest: schema["maxLength"].as_u64(), required };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        for (key, below) in schema["properties"].as_object().into_iter().flatten() {
            self.texts_of(below, place, &joined(name, key), needs(schema, key), depth + 1, texts);
        }
        if is(schema, "array") {
            self.texts_of(&schema["items"], place, name, required, depth + 1, texts);
        }
    }

    /// Whether something belongs into a request that is filled like this.
    fn includes(&self, fill: Fill<'_>, schema: &'a Value, place: Place, name: &str, required: bool) -> bool {
        required || {
            match fill {
                Fill::Least => false,
                Fill::Most => true,
                Fill::With(text) => self.holds(text, schema, place, name),
            }
        }
    }

    fn holds(&self, text: &Text, schema: &'a Value, place: Place, name: &str) -> bool {
        let mut texts = Vec::new();
        self.texts_of(schema, place, name, false, 0, &mut texts);
        texts.iter().any(|found| found.place == text.place && found.name == text.name)
    }

    fn value(
        &self,
        schema: &'a Value,
        place: Place,
        name: &str,
        required: bool,
        fill: Fill<'_>,
        choose: &mut dyn FnMut(&Text) -> String,
    ) -> Value {
        let schema = self.resolved(schema);
        if let Some(fixed) = schema.get("const").or_else(|| schema["enum"].get(0)) {
            return fixed.clone();
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let parts = parts.iter().map(|part| self.value(part, place, name, required, fill, choose));
            return Value::Object(parts.filter_map(|part| part.as_object().cloned()).flatten().collect());
        }
        let choices = choices(schema);
        if let Some(first) = choices.first() {
            let wanted = choices.iter().find(|choice| matches!(fill, Fill::With(text) if self.holds(text, choice, place, name)));
            return self.value(wanted.unwrap_or(first), place, name, required, fill, choose);
        }
        if is(schema, "string") {
            return Value::String(choose(&Text { place, name: name.to_owned(), longest: schema["maxLength"].as_u64(), required }));
        }
        if is(schema, "object") || schema.get("properties").is_some() {
            let mut object = Map::new();
            for (key, below) in schema["properties"].as_object().into_iter().flatten() {
                let (name, needed) = (joined(name, key), needs(schema, key));
                if self.includes(fill, below, place, &name, needed) {
                    object.insert(key.clone(), self.value(below, place, &name, needed, fill, choose));
                }
            }
            return Value::Object(object);
        }
        if is(schema, "array") {
            let needs_one = schema["minItems"].as_u64().is_some_and(|least| least > 0);
            let holds_one = self.includes(fill, &schema["items"], place, name, needs_one);
            return Value::Array(if holds_one {
                vec![self.value(&schema["items"], place, name, true, fill, choose)]
            } else {
                Vec::new()
            });
        }
        if is(schema, "boolean") {
            return json!(true);
        }
        json!(schema["minimum"].as_i64().unwrap_or_default().max(1))
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value
    where
        Self: 'a,
    {
        let Some(reference) = schema["$ref"].as_str() else { return schema };
        self.whole.pointer(reference.trim_start_matches('#')).expect("what a reference names")
    }
}

impl Draft {
    /// The same with what a body needs to be understood, though none of it has to be in every one. `model` answers where one is asked.
    ///
    /// # Panics
    /// When the body is not JSON.
    #[must_use]
    pub fn completed(mut self, operation: &Operation<'_>, model: &str) -> Self {
        let needed = match (operation.method.as_str(), operation.path) {
            ("POST", "/api/runs") => json!({ "says": [{ "type": "text", "text": "mark" }], "model": { "model": model } }),
            _ => return self,
        };
        if let (Value::Object(mut whole), Some((_, body))) = (needed, &mut self.body) {
            let own: Value = serde_json::from_slice(body).expect("JSON");
            whole.extend(own.as_object().cloned().unwrap_or_default());
            *body = Value::Object(whole).to_string().into_bytes();
        }
        self
    }
}

impl Text {
    /// The whole of a body that is not JSON.
    fn raw_body() -> Self {
        Self { place: Place::Body, name: "content".to_owned(), longest: None, required: true }
    }
}

/// What a schema may be instead of itself; null is none.
fn choices(schema: &Value) -> Vec<&Value> {
    let lists = ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array());
    lists.flatten().filter(|choice| choice["type"] != "null").collect()
}

fn is_fixed(schema: &Value) -> bool {
    schema.get("const").is_some() || schema.get("enum").is_some()
}

fn is(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
}

fn needs(schema: &Value, key: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.contains(&json!(key)))
}

fn joined(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

/// For a path, a query or a header.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}
