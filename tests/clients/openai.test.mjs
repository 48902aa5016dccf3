// The official `openai` client of npm: the answer through the Lab is the answer of Ollama.
//
// ONEK4_RUN names a file with the line of `cargo xtask run --json`, and NODE_EXTRA_CA_CERTS the Lab's CA: `cargo xtask test` sets both.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import OpenAI from 'openai';

const run = JSON.parse(readFileSync(process.env.ONEK4_RUN, 'utf8'));
const direct = { api: new OpenAI({ baseURL: `${run.ollama_url}/v1`, apiKey: 'unused', maxRetries: 0 }), prefix: '' };
const lab = { api: new OpenAI({ baseURL: `${run.lab_url}/v1`, apiKey: run.api_key, maxRetries: 0 }), prefix: 'local/' };

const question = "Où est passée l'été ? <answer> & “quote” it: 東京 🦀";
const messages = [{ role: 'user', content: question }];
const fixed = { temperature: 0, seed: 7, max_tokens: 48 };
const weather = {
  name: 'weather',
  description: 'The weather of a town',
  parameters: { type: 'object', properties: { town: { type: 'string' }, days: { type: 'integer' } }, required: ['town'] },
};
const schema = {
  type: 'object',
  properties: { colour: { type: 'string', enum: ['rouge', 'bleu'] }, count: { type: 'integer' } },
  required: ['colour', 'count'],
};
// An image of one pixel.
const image = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';

const tags = (await (await fetch(`${run.ollama_url}/api/tags`)).json()).models;

/** A model that can do that, or nothing. */
function model(capability) {
  const named = process.env[`ONEK4_MODEL_${capability.toUpperCase()}`];
  const found = tags.find((tag) => tag.capabilities?.includes(capability) && !tag.remote_host)?.name;
  return (named ?? found)?.replace(/:latest$/, '');
}

const TIMELESS = new Set(['id', 'call_id', 'item_id', 'response_id', 'tool_call_id', 'created', 'created_at', 'completed_at']);

/** The answer without the values of ids and times: that they are there, and of which type, still counts. */
function timeless(answer) {
  if (Array.isArray(answer)) return answer.map(timeless);
  if (answer === null || typeof answer !== 'object') return answer;
  return Object.fromEntries(
    Object.entries(answer).map(([name, value]) => {
      const isValue = typeof value === 'string' || typeof value === 'number';
      return [name, TIMELESS.has(name) && isValue ? `<${typeof value}>` : timeless(value)];
    }),
  );
}

const plain = (value) => JSON.parse(JSON.stringify(value));

async function collected(stream) {
  const events = [];
  for await (const event of stream) events.push(plain(event));
  return events;
}

/** Asks both sides and compares; gives the Lab's answer, or its events. */
async function same(ask, stream) {
  const answers = [];
  for (const side of [direct, lab]) {
    const answer = await ask(side.api, side.prefix);
    answers.push(stream ? await collected(answer) : plain(answer));
  }
  assert.deepEqual(timeless(answers[1]), timeless(answers[0]));
  if (stream) assert.ok(answers[1].length > 1);
  return answers[1];
}

/** One test whole and one streamed; skipped where no model can do it. */
function both(name, capability, ask) {
  const skip = model(capability) ? false : `no local model has the capability ${capability}`;
  for (const stream of [false, true]) {
    test(`${name}${stream ? ', streamed' : ''}`, { skip }, () =>
      same((api, prefix) => ask(api, prefix + model(capability), stream), stream),
    );
  }
}

const chat = (more) => (api, model, stream) => api.chat.completions.create({ model, messages, stream, ...fixed, ...more });

both('chat', 'completion', chat());
both('tool call', 'tools', chat({ tools: [{ type: 'function', function: weather }] }));
both('thinking', 'thinking', chat({ reasoning_effort: 'low' }));
both('structured output', 'completion', chat({ response_format: { type: 'json_schema', json_schema: { name: 'answer', schema } } }));
both(
  'image',
  'vision',
  chat({
    messages: [
      { role: 'user', content: [{ type: 'text', text: question }, { type: 'image_url', image_url: { url: `data:image/png;base64,${image}` } }] },
    ],
  }),
);
both('completion', 'completion', (api, model, stream) => api.completions.create({ model, prompt: question, stream, ...fixed }));
both('responses', 'completion', (api, model, stream) =>
  api.responses.create({ model, input: question, stream, temperature: 0, max_output_tokens: 48 }),
);
both('responses with a tool', 'tools', (api, model, stream) =>
  api.responses.create({ model, input: question, stream, temperature: 0, max_output_tokens: 48, tools: [{ type: 'function', strict: false, ...weather }] }),
);

test('chat, streamed with usage', async () => {
  const ask = chat({ stream_options: { include_usage: true } });
  const events = await same((api, prefix) => ask(api, prefix + model('completion'), true), true);
  assert.ok(events.at(-1).usage.completion_tokens > 0);
});

test('embeddings', { skip: model('embedding') ? false : 'no local model embeds' }, async () => {
  const answer = await same((api, prefix) => api.embeddings.create({ model: prefix + model('embedding'), input: [question, 'deux'] }), false);
  assert.equal(answer.data.length, 2);
});

test('models are listed', async () => {
  const [there, here] = await Promise.all([direct, lab].map(async ({ api }) => (await collected(await api.models.list())).map(({ id }) => id)));
  // The catalogue's models stand beside them.
  assert.deepEqual(here.filter((id) => id.startsWith('local/')), there.map((id) => `local/${id}`));
});

test('an unknown model is not found', async () => {
  for (const { api, prefix } of [direct, lab]) {
    await assert.rejects(api.chat.completions.create({ model: `${prefix}no-such-model`, messages }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.match(error.message, /no-such-model/);
      return true;
    });
  }
});

test('a bad key is refused', async () => {
  const api = new OpenAI({ baseURL: `${run.lab_url}/v1`, apiKey: 'nonsense', maxRetries: 0 });
  await assert.rejects(api.models.list(), OpenAI.AuthenticationError);
});
