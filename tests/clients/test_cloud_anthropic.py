"""The official `anthropic` client and Anthropic: the answer through the Lab is the answer of the provider.

The provider is a fake one whose bodies are a function of the request, so they are compared as they are, ids and times included.
"""

import anthropic
import pytest
from conftest import QUESTION, SYSTEM, WEATHER

MESSAGES = [{"role": "user", "content": QUESTION}]
TOOLS = [{"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}]


@pytest.fixture
def sides(cloud):
    return cloud("anthropic.com")


def client(side, key=None):
    http = anthropic.DefaultHttpxClient(verify=side.trust)
    return anthropic.Anthropic(base_url=side.url, api_key=key or side.key, http_client=http, max_retries=0)


def plain(answer):
    return answer.model_dump(mode="json", exclude_unset=True, warnings=False)


def ask(side, model="claude-fake", **more):
    return client(side).messages.create(**{"model": model, "max_tokens": 1000, "messages": MESSAGES, **more})


def same(sides, stream=False, **more):
    """Asks both sides, compares, and returns the Lab's answer or events."""
    direct, lab = (ask(side, stream=stream, **more) for side in sides)
    if stream:
        direct, lab = list(direct), list(lab)
        assert (lab[0].type, lab[-1].type) == ("message_start", "message_stop")
        assert [plain(event) for event in lab] == [plain(event) for event in direct]
    else:
        assert plain(lab) == plain(direct)
    return lab


@pytest.mark.parametrize("stream", [False, True])
def test_message(sides, stream):
    answer = same(sides, stream, system=SYSTEM)
    usage = answer[-2].usage if stream else answer.usage
    assert usage.output_tokens == 16


def test_text_streamed(sides):
    """The client's own assembly of a stream ends in what is answered whole."""
    whole = ask(sides.lab)
    with client(sides.lab).messages.stream(model="claude-fake", max_tokens=1000, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert (text, last.stop_reason) == (whole.content[0].text, whole.stop_reason)
    assert last.usage.output_tokens == whole.usage.output_tokens


def test_cut_short(sides):
    assert same(sides, max_tokens=3).stop_reason == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_call(sides, stream):
    answer = same(sides, stream, tools=TOOLS)
    assert (answer[-2].delta if stream else answer).stop_reason == "tool_use"


def test_tool_result(sides):
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Tōkyō"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "雨, 12 °C"}]},
    ]
    assert same(sides, messages=messages, tools=TOOLS).stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_image(sides, image, stream):
    source = {"type": "base64", "media_type": "image/png", "data": image}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    answer = same(sides, stream, messages=[{"role": "user", "content": content}])
    assert (answer[0].message if stream else answer).usage.input_tokens > 256


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(sides, stream):
    answer = same(sides, stream, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    if stream:
        assert {"thinking_delta", "signature_delta", "text_delta"} == {event.delta.type for event in answer if event.type == "content_block_delta"}
    else:
        assert [block.type for block in answer.content] == ["thinking", "text"]


@pytest.mark.parametrize("stream", [False, True])
def test_cache(sides, stream):
    system = [{"type": "text", "text": SYSTEM * 10, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    answer = same(sides, stream, system=system, model="claude-fake-c5")
    usage = (answer[0].message if stream else answer).usage
    assert usage.cache_creation.ephemeral_1h_input_tokens == len(SYSTEM) * 10 // 4
    assert usage.cache_read_input_tokens == 5


def test_a_search_is_told(sides):
    answer = same(sides, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert answer.usage.server_tool_use.web_search_requests == 1


def test_count_tokens(sides):
    direct, lab = (client(side).messages.count_tokens(model="claude-fake", messages=MESSAGES, system=SYSTEM) for side in sides)
    assert lab.input_tokens == direct.input_tokens > 0


def test_models(sides):
    """The Lab lists its own catalogue and the caller's workstations: what the provider would list is in it."""
    direct, lab = ({entry.id for entry in client(side).models.list()} for side in sides)
    assert {"claude-fake", "claude-fake-small"} == direct <= lab


def refusals(sides, **more):
    both = []
    for side in sides:
        with pytest.raises(anthropic.APIStatusError) as refusal:
            ask(side, **more)
        # Each answer's own id stands in an error's body.
        body = {name: value for name, value in refusal.value.body.items() if name != "request_id"}
        both.append((type(refusal.value), refusal.value.status_code, body))
    return both


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 413])
def test_a_refusal_that_is_the_callers(sides, status, stream):
    direct, lab = refusals(sides, model=f"claude-fake-h{status}", stream=stream)
    assert lab == direct
    assert lab[1] == status


@pytest.mark.parametrize("status", [429, 500, 529])
def test_a_providers_trouble(sides, status):
    """The last answer that a provider gave comes through where no other channel has a better one."""
    direct, lab = refusals(sides, model=f"claude-fake-h{status}")
    assert lab == direct
    assert lab[1] == status


def test_a_providers_refusal_of_the_operators_key(sides):
    """On purpose not the caller's affair."""
    direct, lab = refusals(sides, model="claude-fake-h401")
    assert (direct[1], lab[1]) == (401, 502)
    assert lab[2]["error"]["type"] == "api_error"


def test_a_wrong_request(sides):
    direct, lab = refusals(sides, messages=[])
    assert lab == direct
    assert lab[2]["error"]["type"] == "invalid_request_error"


def test_an_unknown_model(sides):
    """The Lab does not ask anybody: the sentence is its own."""
    direct, lab = refusals(sides, model="no-such-model")
    assert lab[:2] == direct[:2] == (anthropic.NotFoundError, 404)
    assert lab[2]["error"]["type"] == direct[2]["error"]["type"] == "not_found_error"


def test_a_wrong_key(sides):
    for side in sides:
        with pytest.raises(anthropic.AuthenticationError) as refusal:
            client(side, key="sk-ant-nonsense").messages.create(model="claude-fake", max_tokens=5, messages=MESSAGES)
        assert refusal.value.body["error"]["type"] == "authentication_error"


def test_a_stream_that_fails(sides):
    heard = []
    for side in sides:
        events = []
        with pytest.raises(anthropic.APIStatusError) as failure:
            events.extend(plain(event) for event in ask(side, model="claude-fake-x3", stream=True))
        heard.append((failure.value.body["error"], len(events)))
    assert heard[0] == heard[1]
    assert heard[1][0]["type"] == "overloaded_error"


def test_headers(sides):
    """The account's own headers stay with the operator, and every answer has an id of the Lab's."""
    direct, lab = (
        client(side).messages.with_raw_response.create(model="claude-fake", max_tokens=5, messages=MESSAGES).headers for side in sides
    )
    assert "anthropic-organization-id" in direct and "anthropic-organization-id" not in lab
    assert lab["x-1k4-request-id"]
