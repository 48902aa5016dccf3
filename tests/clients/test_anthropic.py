"""The official `anthropic` client: the answer through the Lab is the answer of Ollama."""

import anthropic
import pytest
from compare import assert_same
from conftest import QUESTION, SYSTEM, WEATHER

MESSAGES = [{"role": "user", "content": QUESTION}]
TOOLS = [{"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}]


def client(side, key=None):
    http = anthropic.DefaultHttpxClient(verify=side.trust)
    return anthropic.Anthropic(base_url=side.url, api_key=key or side.key, http_client=http, max_retries=0)


def plain(answer):
    return answer.model_dump(mode="json", exclude_unset=True)


def ask(side, name, key=None, **more):
    fields = {"max_tokens": 48, "extra_body": {"temperature": 0}, "messages": MESSAGES, **more}
    return client(side, key).messages.create(model=side.model(name), **fields)


def same(sides, name, stream=False, **more):
    """Asks both sides, compares, and returns the Lab's answer or events."""
    direct, lab = (ask(side, name, stream=stream, **more) for side in sides)
    if stream:
        direct, lab = list(direct), list(lab)
        assert lab[0].type == "message_start" and lab[-1].type == "message_stop"
        assert_same([plain(event) for event in direct], [plain(event) for event in lab])
    else:
        assert_same(plain(direct), plain(lab))
    return lab


@pytest.mark.parametrize("stream", [False, True])
def test_message(sides, model, stream):
    same(sides, model("completion"), stream, system=SYSTEM)


def test_text_streamed(sides, model):
    """The client's own assembly of a stream ends in what is answered whole."""
    name = model("completion")
    whole = ask(sides.lab, name)
    with client(sides.lab).messages.stream(model=sides.lab.model(name), max_tokens=48, extra_body={"temperature": 0}, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == whole.content[0].text
    assert last.stop_reason == whole.stop_reason


def test_cut_short(sides, model):
    assert same(sides, model("completion"), max_tokens=3).stop_reason == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_call(sides, model, stream):
    answer = same(sides, model("tools"), stream, tools=TOOLS)
    if not stream and not sides.ollama_is_real:
        assert answer.stop_reason == "tool_use"


def test_tool_result(sides, model):
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Tōkyō"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "雨, 12 °C"}]},
    ]
    same(sides, model("tools"), messages=messages, tools=TOOLS)


@pytest.mark.parametrize("stream", [False, True])
def test_image(sides, model, image, stream):
    source = {"type": "base64", "media_type": "image/png", "data": image}
    same(sides, model("vision"), stream, messages=[{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]}])


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(sides, model, stream):
    answer = same(sides, model("thinking"), stream, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048, extra_body={})
    if not stream and not sides.ollama_is_real:
        assert answer.content[0].type == "thinking"


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model(sides, stream):
    for side in sides:
        with pytest.raises(anthropic.NotFoundError) as refusal:
            ask(side, "no-such-model", stream=stream)
        assert refusal.value.body["type"] == "error"
        assert refusal.value.body["error"]["type"] == "not_found_error"
        assert "no-such-model" in refusal.value.body["error"]["message"]


def test_bad_key(sides, model):
    with pytest.raises(anthropic.AuthenticationError) as refusal:
        ask(sides.lab, model("completion"), key="nonsense")
    assert refusal.value.body["error"]["type"] == "authentication_error"


def test_bearer_is_a_key_too(sides, model):
    http = anthropic.DefaultHttpxClient(verify=sides.lab.trust)
    with_token = anthropic.Anthropic(base_url=sides.lab.url, auth_token=sides.lab.key, api_key=None, http_client=http, max_retries=0)
    answer = with_token.messages.create(model=sides.lab.model(model("completion")), max_tokens=8, messages=MESSAGES)
    assert answer.role == "assistant"


def test_models_are_listed(sides):
    listed = [entry.id for entry in client(sides.lab).models.list()]
    direct = anthropic.DefaultHttpxClient().get(f"{sides.direct.url}/api/tags").json()["models"]
    # The catalogue's models stand beside them.
    assert [name for name in listed if name.startswith("local/")] == [f"local/{tag['name']}" for tag in direct]
