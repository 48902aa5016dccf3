"""The official `openai` client and a cloud provider: the answer through the Lab is the answer of the provider.

The provider is a fake one whose bodies are a function of the request, so they are compared as they are, ids and times included.
Where the Lab differs on purpose, the test says so.
"""

import json

import openai
import pytest
from conftest import QUESTION, SCHEMA, SYSTEM, WEATHER

MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
TOOLS = [{"type": "function", "function": WEATHER}]


def client(side, root="/v1"):
    http = openai.DefaultHttpxClient(verify=side.trust)
    return openai.OpenAI(base_url=side.url + root, api_key=side.key, http_client=http, max_retries=0)


@pytest.fixture
def sides(cloud):
    return cloud("openai.com")


def plain(answer):
    return answer.model_dump(mode="json", exclude_unset=True, warnings=False)


def same(sides, ask, stream=False, root="/v1"):
    """Asks both sides and compares, event by event if there are some; returns the Lab's."""
    direct, lab = (ask(client(side, root)) for side in sides)
    if stream:
        direct, lab = list(direct), list(lab)
        assert len(lab) > 1
        assert [plain(event) for event in lab] == [plain(event) for event in direct]
    else:
        assert plain(lab) == plain(direct)
    return lab


def chat(model="gpt-fake", **more):
    return lambda api: api.chat.completions.create(model=model, **{"messages": MESSAGES, **more})


def text_of(events):
    return "".join(event.choices[0].delta.content or "" for event in events if event.choices)


def test_chat(sides):
    answer = same(sides, chat())
    assert answer.choices[0].message.content.startswith("« Où est passée")
    assert answer.usage.completion_tokens == 16


def test_chat_streamed(sides):
    events = same(sides, chat(stream=True), stream=True)
    assert text_of(events) == same(sides, chat()).choices[0].message.content
    assert all(event.usage is None for event in events), "usage that nobody asked for"


@pytest.mark.parametrize("wanted", [True, False])
def test_chat_streamed_with_a_word_about_usage(sides, wanted):
    events = same(sides, chat(stream=True, stream_options={"include_usage": wanted}), stream=True)
    assert (events[-1].usage is not None) == wanted
    assert bool(events[-1].choices) != wanted


def test_several_choices(sides):
    answer = same(sides, chat(n=3))
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert len({event.choices[0].index for event in same(sides, chat(n=3, stream=True), stream=True)}) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_tool_call(sides, stream):
    answer = same(sides, chat(tools=TOOLS, stream=stream), stream)
    if stream:
        calls = [event.choices[0].delta.tool_calls[0] for event in answer if event.choices and event.choices[0].delta.tool_calls]
        arguments = "".join(call.function.arguments for call in calls)
    else:
        assert answer.choices[0].finish_reason == "tool_calls"
        arguments = answer.choices[0].message.tool_calls[0].function.arguments
    assert "town" in json.loads(arguments)


def test_tool_result(sides):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Tōkyō"}'}}
    messages = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": "雨, 12 °C"}]
    assert same(sides, chat(messages=messages, tools=TOOLS)).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_image(sides, image, stream):
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]
    answer = same(sides, chat(messages=[{"role": "user", "content": parts}], stream=stream), stream)
    if not stream:
        assert answer.usage.prompt_tokens > 256


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(sides, stream):
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    answer = same(sides, chat(response_format=wanted, stream=stream), stream)
    text = text_of(answer) if stream else answer.choices[0].message.content
    assert json.loads(text)["colour"] in ("rouge", "bleu")


def test_reasoning_cache_and_tier(sides):
    usage = same(sides, chat("gpt-fake-c3", reasoning_effort="low", service_tier="priority")).usage
    assert usage.prompt_tokens_details.cached_tokens == 3
    assert usage.completion_tokens_details.reasoning_tokens == 6


def test_cut_short(sides):
    assert same(sides, chat(max_completion_tokens=3)).choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_completion(sides, stream):
    same(sides, lambda api: api.completions.create(model="gpt-fake", prompt=QUESTION, stream=stream), stream)


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize("words", [QUESTION, [QUESTION, "deux", "三"]], ids=["one", "three"])
def test_embeddings(sides, form, words):
    answer = same(sides, lambda api: api.embeddings.create(model="gpt-fake-embedding", input=words, encoding_format=form))
    assert len(answer.data) == (1 if isinstance(words, str) else 3)


def responses(**more):
    return lambda api: api.responses.create(**{"model": "gpt-fake", "instructions": SYSTEM, "input": QUESTION, **more})


@pytest.mark.parametrize("stream", [False, True])
def test_responses(sides, stream):
    answer = same(sides, responses(stream=stream), stream)
    if stream:
        assert [event.sequence_number for event in answer] == list(range(len(answer)))
        assert answer[-1].type == "response.completed"
        answer = answer[-1].response
    assert answer.output_text.startswith("« Où est passée")
    assert answer.usage.output_tokens == 16


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_a_tool(sides, stream):
    answer = same(sides, responses(tools=[{"type": "function", "strict": False, **WEATHER}], stream=stream), stream)
    answer = answer[-1].response if stream else answer
    assert answer.output[0].name == "weather"


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_reasoning(sides, stream):
    answer = same(sides, responses(reasoning={"effort": "low", "summary": "auto"}, stream=stream), stream)
    answer = answer[-1].response if stream else answer
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.usage.output_tokens_details.reasoning_tokens == 6


def test_responses_with_an_image_cut_short(sides, image):
    parts = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "auto"}]
    answer = same(sides, responses(input=[{"role": "user", "content": parts}], max_output_tokens=3))
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("stream", [False, True])
def test_images(sides, stream):
    answer = same(sides, lambda api: api.images.generate(model="gpt-fake-image", prompt=QUESTION, stream=stream), stream)
    last = answer[-1] if stream else answer
    assert last.usage.output_tokens == 272


def test_models(sides):
    """The Lab lists its own catalogue and the caller's workstations: what the provider would list is in it."""
    direct, lab = ({entry.id for entry in client(side).models.list()} for side in sides)
    assert {"gpt-fake", "gpt-fake-embedding", "gpt-fake-image"} == direct <= lab
    assert client(sides.lab).models.retrieve("gpt-fake").id == "gpt-fake"


def refusals(sides, ask):
    both = []
    for side in sides:
        with pytest.raises(openai.APIStatusError) as refusal:
            answer = ask(client(side))
            # A stream that was refused is refused before its first event.
            list(answer)
        both.append(refusal.value)
    return both


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_that_is_the_callers(sides, status, stream):
    direct, lab = refusals(sides, chat(f"gpt-fake-h{status}", stream=stream))
    assert type(lab) is type(direct)
    assert (lab.status_code, lab.body) == (direct.status_code, direct.body) == (status, direct.body)


@pytest.mark.parametrize(("status", "kind"), [(429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)])
def test_a_providers_trouble(sides, status, kind):
    """The last answer that a provider gave comes through where no other channel has a better one."""
    direct, lab = refusals(sides, chat(f"gpt-fake-h{status}"))
    assert isinstance(direct, kind) and isinstance(lab, kind)
    assert (lab.status_code, lab.body) == (direct.status_code, direct.body)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_providers_refusal_of_the_operators_key(sides, status):
    """On purpose not the caller's affair: the Lab says that the upstream failed, and nothing of its key or account."""
    direct, lab = refusals(sides, chat(f"gpt-fake-h{status}"))
    assert (direct.status_code, lab.status_code) == (status, 502)
    assert lab.body["code"] == "upstream_error"
    assert sides.direct.key[:8] not in str(lab.body)


def test_a_wrong_request(sides):
    direct, lab = refusals(sides, chat(messages=[]))
    assert isinstance(lab, openai.BadRequestError)
    assert (lab.status_code, lab.body) == (direct.status_code, direct.body)


def test_an_unknown_model(sides):
    """The Lab does not ask anybody: the sentence is its own, the type and the code are the provider's."""
    direct, lab = refusals(sides, chat("no-such-model"))
    assert isinstance(direct, openai.NotFoundError) and isinstance(lab, openai.NotFoundError)
    assert lab.body["code"] == direct.body["code"] == "model_not_found"


def test_a_wrong_key(sides):
    for side in sides:
        http = openai.DefaultHttpxClient(verify=side.trust)
        stranger = openai.OpenAI(base_url=f"{side.url}/v1", api_key="sk-nonsense", http_client=http, max_retries=0)
        with pytest.raises(openai.AuthenticationError) as refusal:
            chat()(stranger)
        assert refusal.value.body["code"] == "invalid_api_key"


@pytest.mark.parametrize("model", ["gpt-fake-x3"])
def test_a_stream_that_fails(sides, model):
    """What came before the failure came through, and so did the failure."""
    heard = []
    for side in sides:
        text = ""
        with pytest.raises(openai.APIError) as failure:
            for event in chat(model, stream=True)(client(side)):
                text += text_of([event])
        heard.append((text, failure.value.body))
    assert heard[0] == heard[1]
    assert heard[1][0]


def test_headers(sides):
    """The account's own headers stay with the operator, and every answer has an id of the Lab's."""
    direct, lab = (client(side).chat.completions.with_raw_response.create(model="gpt-fake", messages=MESSAGES).headers for side in sides)
    for name in ("openai-organization", "openai-project", "set-cookie"):
        assert name in direct and name not in lab
    assert lab["x-1k4-request-id"]
    assert lab["content-type"] == direct["content-type"]


@pytest.mark.parametrize("stream", [False, True])
def test_xai(cloud, stream):
    answer = same(cloud("x.ai"), chat("grok-fake", reasoning_effort="high", stream=stream, **usage_if(stream)), stream)
    usage = answer[-1].usage if stream else answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens + usage.completion_tokens_details.reasoning_tokens
    assert usage.cost_in_usd_ticks > 0


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_compatible_endpoint(cloud, stream):
    same(cloud("anthropic.com"), chat("claude-fake", stream=stream), stream)


@pytest.mark.parametrize("stream", [False, True])
def test_geminis_compatible_endpoint(cloud, stream):
    same(cloud("googleapis.com"), chat("gemini-fake", stream=stream, **usage_if(stream)), stream, root="/v1beta/openai")


@pytest.mark.parametrize("stream", [False, True])
def test_a_compatible_provider(cloud, stream):
    same(cloud("compatible"), chat("other-fake", stream=stream, **usage_if(stream)), stream)


@pytest.mark.parametrize("stream", [False, True])
def test_azure(cloud, stream):
    """The v1 API, with the plain client."""
    answer = same(cloud("azure.com"), chat("azure-fake", stream=stream, **usage_if(stream)), stream, root="/openai/v1")
    assert (answer[-1].usage if stream else answer.usage).completion_tokens == 16


def deployment(side, name):
    http = openai.DefaultHttpxClient(verify=side.trust)
    return openai.AzureOpenAI(
        azure_endpoint=side.url, api_key=side.key, api_version="2024-10-21", azure_deployment=name, http_client=http, max_retries=0
    )


@pytest.mark.parametrize("stream", [False, True])
def test_azures_deployments(cloud, stream):
    """The older API, with Azure's client: the operator's deployment goes by the name of the catalogue."""
    both = cloud("azure.com")
    direct, lab = (
        chat("ignored", stream=stream)(deployment(side, name)) for side, name in zip(both, ("operators-deployment", "deployed-fake"))
    )
    if stream:
        direct, lab = list(direct), list(lab)
        assert [plain(event) for event in lab] == [plain(event) for event in direct]
        # What the filter said first has neither an id nor a delta.
        assert lab[0].choices == [] and lab[0].model_extra["prompt_filter_results"]
    else:
        assert plain(lab) == plain(direct)


def usage_if(stream):
    return {"stream_options": {"include_usage": True}} if stream else {}
