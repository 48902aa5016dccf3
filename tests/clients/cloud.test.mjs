// The official npm clients `openai` and `@anthropic-ai/sdk` and cloud providers: the answer through the Lab is the answer of the provider.
//
// The providers are fake ones whose bodies are a function of the request, so they are compared as they are, ids and times included.
// ONEK4_RUN names a file with the line of `cargo xtask run --json`, and NODE_EXTRA_CA_CERTS the Lab's CA: `cargo xtask test` sets both.

import Anthropic from '@anthropic-ai/sdk';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test as anyTest } from 'node:test';
import OpenAI, { AzureOpenAI } from 'openai';

const run = JSON.parse(readFileSync(process.env.ONEK4_RUN, 'utf8'));
const skip = run.providers ? false : 'this run has no fake providers';
const test = (name, body) => anyTest(`cloud: ${name}`, { skip }, body);

const question = "Où est passée l'été ? <answer> & “quote” it: 東京 🦀";
const messages = [{ role: 'user', content: question }];
const parameters = { type: 'object', properties: { town: { type: 'string' }, days: { type: 'integer' } }, required: ['town'] };
const weather = { name: 'weather', description: 'The weather of a town', parameters };
// An image of one pixel.
const image = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';

/** Both ways to a provider: where it is, and with which key. */
const ways = (provider) => [run.providers[provider], { url: run.lab_url, key: run.api_key }];
const openai = ({ url, key }, root = '/v1') => new OpenAI({ baseURL: url + root, apiKey: key, maxRetries: 0 });
const anthropic = ({ url, key }) => new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });

const plain = (value) => JSON.parse(JSON.stringify(value));

async function collected(stream) {
  const events = [];
  for await (const event of stream) events.push(plain(event));
  return events;
}

/** Asks both sides and compares; gives the Lab's answer, or its events. */
async function same(sides, ask, stream) {
  const answers = [];
  for (const side of sides) {
    const answer = await ask(side, stream);
    answers.push(stream ? await collected(answer) : plain(answer));
  }
  assert.deepEqual(answers[1], answers[0]);
  if (stream) assert.ok(answers[1].length > 1);
  return answers[1];
}

/** One test whole and one streamed. */
function both(name, provider, ask, look = () => {}) {
  for (const stream of [false, true]) {
    test(`${name}${stream ? ', streamed' : ''}`, async () => look(await same(ways(provider), ask, stream), stream));
  }
}

const chat =
  (model, more = {}, root = '/v1') =>
  (side, stream) =>
    openai(side, root).chat.completions.create({ model, messages, stream, ...more });

both('chat', 'openai.com', chat('gpt-fake'), (answer, stream) => {
  if (stream) assert.ok(answer.every((event) => event.usage == null), 'usage that nobody asked for');
  else assert.equal(answer.usage.completion_tokens, 16);
});
both('tool call', 'openai.com', chat('gpt-fake', { tools: [{ type: 'function', function: weather }] }));
both(
  'image',
  'openai.com',
  chat('gpt-fake', {
    messages: [
      { role: 'user', content: [{ type: 'text', text: question }, { type: 'image_url', image_url: { url: `data:image/png;base64,${image}` } }] },
    ],
  }),
);
both('completion', 'openai.com', (side, stream) => openai(side).completions.create({ model: 'gpt-fake', prompt: question, stream }));
both('responses', 'openai.com', (side, stream) =>
  openai(side).responses.create({ model: 'gpt-fake', input: question, stream, reasoning: { effort: 'low', summary: 'auto' } }),
);
both('responses with a tool', 'openai.com', (side, stream) =>
  openai(side).responses.create({ model: 'gpt-fake', input: question, stream, tools: [{ type: 'function', strict: false, ...weather }] }),
);
both('images', 'openai.com', (side, stream) => openai(side).images.generate({ model: 'gpt-fake-image', prompt: question, stream }));
both('xAI', 'x.ai', chat('grok-fake', { reasoning_effort: 'high' }));
both("Gemini's compatible endpoint", 'googleapis.com', chat('gemini-fake', {}, '/v1beta/openai'));

test('chat, streamed with usage', async () => {
  const ask = (side) => chat('gpt-fake', { stream_options: { include_usage: true } })(side, true);
  const events = await same(ways('openai.com'), ask, true);
  assert.deepEqual(events.at(-1).choices, []);
  assert.equal(events.at(-1).usage.completion_tokens, 16);
});

test('embeddings', async () => {
  const ask = (side) => openai(side).embeddings.create({ model: 'gpt-fake-embedding', input: [question, 'deux'] });
  assert.equal((await same(ways('openai.com'), ask, false)).data.length, 2);
});

test("Azure's deployments", async () => {
  // The operator's deployment goes by the name of the catalogue.
  const answers = [];
  for (const [index, deployment] of ['operators-deployment', 'deployed-fake'].entries()) {
    const { url, key } = ways('azure.com')[index];
    const api = new AzureOpenAI({ endpoint: url, apiKey: key, apiVersion: '2024-10-21', deployment, maxRetries: 0 });
    answers.push(plain(await api.chat.completions.create({ model: 'ignored', messages })));
  }
  assert.deepEqual(answers[1], answers[0]);
});

const message = (model, more = {}) => (side, stream) => anthropic(side).messages.create({ model, max_tokens: 2048, messages, stream, ...more });

both('message', 'anthropic.com', message('claude-fake'), (answer, stream) => {
  const usage = stream ? answer.findLast((event) => event.usage).usage : answer.usage;
  assert.equal(usage.output_tokens, 16);
});
both('message with a tool', 'anthropic.com', message('claude-fake', { tools: [{ name: 'weather', input_schema: parameters }] }));
both('message with thought', 'anthropic.com', message('claude-fake', { thinking: { type: 'enabled', budget_tokens: 1024 } }));
both(
  'message with an image',
  'anthropic.com',
  message('claude-fake', {
    messages: [
      {
        role: 'user',
        content: [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data: image } }, { type: 'text', text: question }],
      },
    ],
  }),
);

test('counted tokens', async () => {
  const answer = await same(ways('anthropic.com'), (side) => anthropic(side).messages.countTokens({ model: 'claude-fake', messages }), false);
  assert.ok(answer.input_tokens > 0);
});

test('what the provider would list is in the list of the Lab', async () => {
  for (const [provider, list] of [
    ['openai.com', (side) => openai(side).models.list()],
    ['anthropic.com', (side) => anthropic(side).models.list()],
  ]) {
    const [there, here] = await Promise.all(ways(provider).map(async (side) => (await collected(await list(side))).map(({ id }) => id)));
    assert.ok(there.length > 0);
    assert.deepEqual(there.filter((id) => !here.includes(id)), []);
  }
});

// Models that fail have a name for this suite alone: the Lab leaves an account alone that misbehaved.

/** What both sides say instead of an answer. The id of a request stands in an error of Anthropic's. */
async function refusals(provider, ask) {
  const said = [];
  for (const side of ways(provider)) {
    await assert.rejects(ask(side, false), (error) => {
      const { request_id: _, ...body } = plain(error.error);
      said.push({ kind: error.constructor.name, status: error.status, body });
      return true;
    });
  }
  return said;
}

for (const status of [400, 404, 429, 500]) {
  test(`OpenAI's ${status}`, async () => {
    const [there, here] = await refusals('openai.com', chat(`gpt-fake-h${status}-node`));
    assert.equal(here.status, status);
    assert.deepEqual(here, there);
  });
  test(`Anthropic's ${status}`, async () => {
    const [there, here] = await refusals('anthropic.com', message(`claude-fake-h${status}-node`));
    assert.equal(here.status, status);
    assert.deepEqual(here, there);
  });
}

test("a provider's refusal of the operator's key is not the caller's affair", async () => {
  for (const [provider, ask] of [
    ['openai.com', chat('gpt-fake-h401-node')],
    ['anthropic.com', message('claude-fake-h401-node')],
  ]) {
    const [there, here] = await refusals(provider, ask);
    assert.deepEqual([there.status, here.status], [401, 502]);
  }
});

test('a wrong key', async () => {
  for (const [provider, ask] of [
    ['openai.com', chat('gpt-fake')],
    ['anthropic.com', message('claude-fake')],
  ]) {
    for (const side of ways(provider)) {
      await assert.rejects(ask({ ...side, key: 'nonsense' }, false), { status: 401 });
    }
  }
});
