//! What the assistant can read about 1K4 itself.

/// A topic by its name; the names are those of [`TOPICS`].
pub(super) fn topic(name: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(topic, _)| *topic == name).map(|(_, text)| *text)
}

/// Names of topics, with what they say.
pub(super) const TOPICS: [(&str, &str); 6] = [
    (
        "keys",
        "API keys belong to a project. Under Projects a key is made, limited (models, spending by day, month and in all, requests and \
         tokens a minute), rotated with an overlap, and revoked; it is shown once. A revoked key is refused from that moment.",
    ),
    (
        "devices",
        "A workstation is paired with `1k4-bridge login`: the code that it shows is typed under Devices, and approved after the four \
         words there were found to be those on the workstation. Removing a device ends its link at once.",
    ),
    (
        "credits",
        "One credit is one US dollar. What a request can cost is set aside before it runs and settled exactly when it ends. Models on \
         one's own workstations cost nothing. A new account begins with free requests. The ledger lists every change.",
    ),
    (
        "models",
        "`local/NAME` is a model on whichever workstation is free, `local@WORKSTATION/NAME` one on that workstation; other names are \
         providers' models. Programs ask them at /v1 with the clients of OpenAI and Anthropic, or at /api with Ollama's.",
    ),
    (
        "privacy",
        "Of a request to the model API one line is kept for 90 days: time, model, tokens, cost, duration, key. Prompts and answers of \
         the model API are not kept. Conversations, files and runs of the Lab are encrypted under keys that die with them.",
    ),
    (
        "agents",
        "An agent works in a project with tools: files, tasks, other models, the web where that is allowed. What needs a yes is asked \
         for; rules, budgets and everything that was done stand in the project, in its operation log.",
    ),
];
