// A life with 1K4, for pages that are looked at: projects, conversations, agents, keys and what they cost. Everything is made through the
// Lab's own API and said by the fakes, so that each screen shows what it would show.

import type { Person } from './world/person.ts';
import { until } from './world/until.ts';
import type { World } from './world.ts';

export interface Scenes {
  project: string;
  /** A conversation with code, a table, a formula and two branches. */
  conversation: string;
  /** One whose agent has done its work. */
  worked: string;
  /** One whose agent waits for an answer. */
  asking: string;
  /** The run that waits, and the one that is over. */
  agentRun: string;
  workedRun: string;
  file: string;
  key: string;
  device: string;
  task: string;
}

const LOCAL = 'local/llama3.2:3b';

export async function furnish(world: World, owner: Person): Promise<Scenes> {
  const project = await projects(owner);
  await files(owner, project);
  const conversation = await conversations(world, owner);
  const agents = await agentsAtWork(world, owner, project);
  await board(owner, project);
  const key = await keys(owner, project);
  const { data: kept } = await owner.api<Page<{ id: string; path: string }>>('GET', `/api/projects/${project}/files`);
  const { data: tasks } = await owner.api<Page<{ id: string }>>('GET', `/api/projects/${project}/tasks`);
  const tower = await owner.device('tower');
  return {
    project,
    conversation,
    ...agents,
    key,
    file: found(kept.find((one) => one.path.endsWith('outline.md'))).id,
    device: found(tower).id,
    task: found(tasks[0]).id,
  };
}

interface Page<T> {
  data: T[];
}

function found<T>(thing: T | undefined): T {
  if (thing === undefined) throw new Error('a scene lacks something');
  return thing;
}

async function projects(owner: Person): Promise<string> {
  const { id } = await owner.api<{ id: string }>('POST', '/api/projects', { name: 'Field guide to mosses' });
  await owner.api('PATCH', `/api/projects/${id}/brief`, {
    description: 'A pocket guide to forty mosses of the northern Alps, for people who kneel down to look.',
    instructions: 'Write for walkers, not for botanists. Latin names in italics, once per page. Metric units.',
  });
  await owner.api('POST', '/api/projects', { name: 'Workshop accounts' });
  return id;
}

async function files(owner: Person, project: string): Promise<void> {
  const outline = '# Field guide to mosses\n\n1. How to look\n2. Forty mosses\n3. Where they grow\n';
  await owner.writeFile(project, 'outline.md', outline);
  await owner.writeFile(project, 'outline.md', `${outline}4. A calendar of spores\n5. Index\n`);
  await owner.writeFile(project, 'species/hylocomium-splendens.md', '# Glittering wood-moss\n\nSteps like a staircase, one a year.\n');
  await owner.writeFile(project, 'species/sphagnum-palustre.md', '# Blunt-leaved bog-moss\n\nHolds twenty times its weight in water.\n');
  await owner.writeFile(project, 'data/sites.csv', 'site,altitude_m,species\nAlpsee,780,31\nHintersee,790,28\nSpitzingsee,1084,40\n');
  await owner.writeFile(project, 'tools/count.py', 'import csv\n\nwith open("data/sites.csv") as sites:\n    print(sum(1 for _ in csv.DictReader(sites)))\n');
}

const ANSWER = [
  'Three things decide how much water a cushion holds: the **surface** of the leaves, the **gaps** between the shoots, and the dead',
  ' cells that some mosses keep only to store it.\n\n| moss | water, times dry weight |\n|---|---|\n| *Sphagnum palustre* | 20 |\n',
  '| *Hylocomium splendens* | 9 |\n| *Polytrichum commune* | 4 |\n\nAs a rule of thumb the volume follows $V = k \\cdot A^{3/2}$, so a',
  ' cushion twice as wide holds almost three times as much:\n\n```python\ndef litres(area_cm2: float, k: float = 0.021) -> float:\n',
  '    """What a cushion of this area holds."""\n    return k * area_cm2 ** 1.5 / 1000\n```\n\nMeasure after two dry days; a wet cushion weighs what the weather weighs.\n',
].join('');

async function conversations(world: World, owner: Person): Promise<string> {
  await world.ollama.plays('llama3.2:3b', [
    { say: ANSWER },
    { say: 'Weigh a cushion wet, let it dry on a sieve for a week, weigh it again. The difference is water; a litre weighs a kilogram.' },
  ]);
  await world.providers.plays('gpt-5.5', [
    { say: 'Two good weeks: the second half of **April**, when the capsules ripen, and late **October**, when the beeches stand bare and the light reaches the ground.' },
  ]);
  await world.providers.plays('claude-sonnet-4-6', [
    { say: 'A hand lens of 10×, a spray bottle, paper envelopes, a pencil. Leave the knife at home: what you cut will not grow back within your lifetime.' },
  ]);
  const names: [string, string, string][] = [
    ['claude-sonnet-4-6', 'What to pack', 'What do I need to carry for a day of looking at mosses?'],
    ['gpt-5.5', 'When to go', 'When is the best time of the year for a first walk?'],
    [LOCAL, 'How much water a cushion holds', 'How much water does a moss cushion hold, and how could I estimate it from its size?'],
  ];
  let last = '';
  for (const [model, title, question] of names) {
    const talk = await owner.newConversation(model);
    await talk.ask(question);
    if (model === LOCAL) await talk.ask('And how do I measure that without a laboratory?');
    await owner.api('PATCH', `/api/conversations/${talk.id}`, { title });
    last = talk.id;
  }
  return last;
}

async function agentsAtWork(world: World, owner: Person, project: string): Promise<Pick<Scenes, 'worked' | 'asking' | 'agentRun' | 'workedRun'>> {
  const allow = (tool: string) =>
    owner.api('POST', `/api/projects/${project}/rules`, { tool, targets: { type: 'any' }, verdict: 'allow' });
  for (const tool of ['files_list', 'files_read', 'tasks_create']) await allow(tool);
  await owner.api('POST', `/api/projects/${project}/rules`, {
    tool: 'files_write',
    targets: { type: 'matching', pattern: 'species/**' },
    verdict: 'allow',
  });
  const page = '# Common haircap\n\nLooks like a small fir, drinks through a stem. Grows on poor, moist ground, often by the square metre.\n';
  await world.ollama.plays('qwen3:30b', [
    { think: 'I should see what is there before I write.', calls: [{ tool: 'files_list', arguments: {} }] },
    { calls: [{ tool: 'files_write', arguments: { path: 'species/polytrichum-commune.md', text: page } }] },
    { calls: [{ tool: 'tasks_create', arguments: { title: 'Check the haircap page against the herbarium' } }] },
    { say: 'I wrote the page about the common haircap and put a task on the board: somebody should compare it with the herbarium.' },
  ]);
  const worked = await owner.newConversation('local/qwen3:30b', project);
  const workedRun = await worked.ask('Write the page about the common haircap.', {});
  await owner.api('PATCH', `/api/conversations/${worked.id}`, { title: 'Common haircap' });
  await world.ollama.plays('qwen3:30b', [
    { calls: [{ tool: 'files_write', arguments: { path: 'outline.md', text: '# Field guide to mosses\n\n1. How to look\n2. Forty-one mosses\n' } }] },
    { say: 'The outline counts forty-one mosses now.' },
  ]);
  const asking = await owner.newConversation('local/qwen3:30b', project);
  const agentRun = await asking.say('Add the haircap to the outline.', {});
  await owner.api('PATCH', `/api/conversations/${asking.id}`, { title: 'Outline' });
  await until('a question', async () => {
    const { data } = await owner.api<Page<{ run: string }>>('GET', '/api/approvals');
    return data.find((one) => one.run === agentRun);
  });
  return { worked: worked.id, asking: asking.id, agentRun, workedRun };
}

async function board(owner: Person, project: string): Promise<void> {
  const agent = { type: 'agent', name: 'local/qwen3:30b' };
  const tasks = [
    { title: 'Photograph the capsules at Alpsee', state: 'open', assignee: { type: 'person' } },
    { title: 'Draft the chapter "How to look"', state: 'in_progress', assignee: agent },
    { title: 'Sort the sites by altitude', state: 'done', assignee: agent },
    { title: 'Ask the printer about lay-flat binding', state: 'open' },
    { title: 'Second lens in the kit list', state: 'cancelled' },
  ];
  for (const task of tasks) await owner.api('POST', `/api/projects/${project}/tasks`, task);
}

async function keys(owner: Person, project: string): Promise<string> {
  const make = (name: string, more: object = {}) =>
    owner.api<{ key: string; kid?: string; id?: string }>('POST', `/api/projects/${project}/keys`, { name, ...more });
  const editor = await make('editor', { spending: { month: '5' } });
  await make('nightly report', { models: ['gpt-5.5'], spending: { day: '0.5' } });
  const client = await owner.client();
  for (const model of ['gpt-5.5', 'claude-haiku-4-5', LOCAL]) {
    for (let turn = 0; turn < 3; turn += 1) {
      const body = { model, messages: [{ role: 'user', content: 'How many species at Alpsee?' }] };
      await client.json('POST', '/v1/chat/completions', body, { authorization: `Bearer ${editor.key}` });
    }
  }
  const { data } = await owner.api<Page<{ kid: string; name: string }>>('GET', `/api/projects/${project}/keys`);
  return found(data.find((key) => key.name === 'editor')).kid;
}
