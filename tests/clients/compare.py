"""What "the same answer" means: everything is equal apart from ids and times."""

# Names of members whose values are ids: made anew for each answer.
IDS = {"id", "call_id", "item_id", "request_id", "response_id", "tool_call_id", "tool_use_id"}

# Names of members whose values are moments or durations.
TIMES = {
    "created",
    "created_at",
    "completed_at",
    "expires_at",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
}


def assert_same(direct, lab):
    """Fails with both sides when an answer through the Lab is not the one that Ollama gives directly."""
    assert timeless(lab) == timeless(direct)


def timeless(answer):
    """The answer without the values of ids and times: that they are there, and of which type, still counts."""
    if isinstance(answer, dict):
        return {name: f"<{type(value).__name__}>" if name in IDS | TIMES and is_value(value) else timeless(value) for name, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [timeless(item) for item in answer]
    return answer


def is_value(value):
    return isinstance(value, (str, int, float))
