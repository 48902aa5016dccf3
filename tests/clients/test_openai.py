"""The official `openai` client: the answer through the Lab is the answer of Ollama."""

import json

import openai
import pytest
from compare import assert_same
from conftest import QUESTION, SCHEMA, SYSTEM, WEATHER

MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
TOOLS = [{"type": "function", "function": WEATHER}]
FIXED = {"temperature": 0, "seed": 7, "max_tokens": 48}


def client(side, key=None):
    http = openai.DefaultHttpxClient(verify=side.trust)
    return openai.OpenAI(base_url=f"{side.url}/v1", api_key=key or side.key, http_client=http, max_retries=0)


def plain(answer):
    """The answer as the client holds it, in JSON's types: an embedding's base64 is decoded by then."""
    return answer.model_dump(mode="json", exclude_unset=True, warnings=False)


def same_answer(sides, ask):
    """Asks both sides and compares; returns the Lab's."""
    direct, lab = (ask(client(side), side) for side in sides)
    assert_same(plain(direct), plain(lab))
    return lab


def same_stream(sides, ask):
    """Asks both sides for a stream and compares it event by event; returns the Lab's."""
    direct, lab = ([event for event in ask(client(side), side)] for side in sides)
    assert len(lab) > 1
    assert_same([plain(event) for event in direct], [plain(event) for event in lab])
    return lab


def chat(name, **more):
    return lambda api, side: api.chat.completions.create(model=side.model(name), **{"messages": MESSAGES, **FIXED, **more})


def test_chat(sides, model):
    answer = same_answer(sides, chat(model("completion")))
    assert answer.choices[0].message.content


def test_chat_streamed(sides, model):
    events = same_stream(sides, chat(model("completion"), stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert all(event.usage is None for event in events), "usage that nobody asked for"


def test_chat_streamed_with_usage(sides, model):
    events = same_stream(sides, chat(model("completion"), stream=True, stream_options={"include_usage": True}))
    assert events[-1].usage.completion_tokens > 0


def test_chat_streamed_without_usage(sides, model):
    events = same_stream(sides, chat(model("completion"), stream=True, stream_options={"include_usage": False}))
    assert all(event.usage is None for event in events)


def test_chat_streamed_is_what_it_is_whole(sides, model):
    whole = chat(model("completion"))(client(sides.lab), sides.lab)
    events = chat(model("completion"), stream=True)(client(sides.lab), sides.lab)
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == whole.choices[0].message.content


def test_chat_cut_short(sides, model):
    answer = same_answer(sides, chat(model("completion"), max_tokens=3))
    assert answer.choices[0].finish_reason == "length"


def test_tool_call(sides, model):
    answer = same_answer(sides, chat(model("tools"), tools=TOOLS))
    if not sides.ollama_is_real:
        call = answer.choices[0].message.tool_calls[0]
        assert call.function.name == "weather"
        assert "town" in json.loads(call.function.arguments)


def test_tool_call_streamed(sides, model):
    events = same_stream(sides, chat(model("tools"), tools=TOOLS, stream=True))
    if not sides.ollama_is_real:
        assert any(event.choices and event.choices[0].delta.tool_calls for event in events)


def test_tool_result(sides, model):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Tōkyō"}'}}
    messages = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": "雨, 12 °C"}]
    same_answer(sides, chat(model("tools"), messages=messages, tools=TOOLS))


@pytest.mark.parametrize("stream", [False, True])
def test_image(sides, model, image, stream):
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]
    same = same_stream if stream else same_answer
    same(sides, chat(model("vision"), messages=[{"role": "user", "content": parts}], stream=stream))


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(sides, model, stream):
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    if stream:
        same_stream(sides, chat(model("completion"), response_format=wanted, stream=True))
        return
    answer = same_answer(sides, chat(model("completion"), response_format=wanted, max_tokens=200))
    if not sides.ollama_is_real:
        assert json.loads(answer.choices[0].message.content)["colour"] in ("rouge", "bleu")


def test_any_json(sides, model):
    answer = same_answer(sides, chat(model("completion"), response_format={"type": "json_object"}, max_tokens=200))
    if not sides.ollama_is_real:
        json.loads(answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("effort", ["none", "low"])
def test_thinking(sides, model, stream, effort):
    same = same_stream if stream else same_answer
    answer = same(sides, chat(model("thinking"), reasoning_effort=effort, stream=stream))
    if not stream and not sides.ollama_is_real:
        assert bool(getattr(answer.choices[0].message, "reasoning", "")) == (effort != "none")


@pytest.mark.parametrize("stream", [False, True])
def test_completion(sides, model, stream):
    same = same_stream if stream else same_answer
    same(sides, lambda api, side: api.completions.create(model=side.model(model("completion")), prompt=QUESTION, stream=stream, **FIXED))


def test_completion_streamed_with_usage(sides, model):
    same_stream(
        sides,
        lambda api, side: api.completions.create(
            model=side.model(model("completion")), prompt=QUESTION, stream=True, stream_options={"include_usage": True}, **FIXED
        ),
    )


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("words", [QUESTION, [QUESTION, "deux", "三"]], ids=["one", "three"])
def test_embeddings(sides, model, form, words):
    answer = same_answer(
        sides, lambda api, side: api.embeddings.create(model=side.model(model("embedding")), input=words, encoding_format=form)
    )
    assert len(answer.data) == (1 if isinstance(words, str) else 3)


@pytest.mark.parametrize("stream", [False, True])
def test_responses(sides, model, stream):
    same = same_stream if stream else same_answer
    same(
        sides,
        lambda api, side: api.responses.create(
            model=side.model(model("completion")), instructions=SYSTEM, input=QUESTION, stream=stream, temperature=0, max_output_tokens=48
        ),
    )


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_a_tool(sides, model, stream):
    same = same_stream if stream else same_answer
    tool = {"type": "function", "strict": False, **WEATHER}
    same(
        sides,
        lambda api, side: api.responses.create(
            model=side.model(model("tools")), input=QUESTION, tools=[tool], stream=stream, temperature=0, max_output_tokens=48
        ),
    )


def test_responses_with_thinking(sides, model):
    same_stream(
        sides,
        lambda api, side: api.responses.create(
            model=side.model(model("thinking")), input=QUESTION, reasoning={"effort": "low"}, stream=True, temperature=0, max_output_tokens=64
        ),
    )


def test_responses_structured(sides, model):
    text = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
    same_answer(
        sides,
        lambda api, side: api.responses.create(
            model=side.model(model("completion")), input=QUESTION, text=text, temperature=0, max_output_tokens=200
        ),
    )


def test_models_are_listed(sides):
    direct, lab = ([entry.id for entry in client(side).models.list()] for side in sides)
    # The catalogue's models stand beside them.
    assert [name for name in lab if name.startswith("local/")] == [f"local/{name}" for name in direct]


def test_one_model(sides, model):
    name = model("completion")
    direct, lab = (client(side).models.retrieve(side.model(name)) for side in sides)
    # Ollama repeats the name as it was asked for, the Lab the one that it lists.
    assert lab.id.removesuffix(":latest") == f"local/{name}"
    assert (lab.object, lab.created) == (direct.object, direct.created)


def test_the_whole_name_is_a_name_too(sides, model):
    name = model("completion")
    answer = chat(name)(client(sides.lab), sides.lab)
    full = name if ":" in name else f"{name}:latest"
    listed = client(sides.lab).chat.completions.create(model=f"local/{full}", messages=MESSAGES, **FIXED)
    assert listed.choices[0].finish_reason == answer.choices[0].finish_reason


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_model(sides, stream):
    for side in sides:
        with pytest.raises(openai.NotFoundError) as refusal:
            chat("no-such-model", stream=stream)(client(side), side)
        assert refusal.value.status_code == 404
        assert "no-such-model" in refusal.value.body["message"]
        assert refusal.value.body["type"]


def test_bad_key(sides, model):
    key = sides.lab.key
    for wrong in ("nonsense", key[:-1] + ("0" if key[-1] != "0" else "1"), key + "x"):
        with pytest.raises(openai.AuthenticationError) as refusal:
            chat(model("completion"))(client(sides.lab, wrong), sides.lab)
        assert refusal.value.status_code == 401
        assert wrong not in str(refusal.value)


def test_wrong_type(sides, model):
    """Ollama's own refusal comes through."""
    for side in sides:
        with pytest.raises(openai.BadRequestError):
            client(side).chat.completions.create(model=side.model(model("completion")), messages=[])
