// `npm run world`: a world that stays up, for whoever works on the pages. It prints one line of JSON: where the Lab is, where its letters
// lie, whose link is ready to be opened, and where to control the rest. Then it takes orders at the control address until it is asked
// to end (Ctrl-C). With `--furnished` its person has conversations, files, agents and keys.
//
//   POST /link?address=ada@example.com   {"link": …}: opened in any browser it signs its owner in, once
//   POST /ollama, /providers             a line for the fake, such as {"do": "hold", "model": "tiny", "token": 3}
//   POST /lab/kill, /lab/start, /cable/pull, /cable/plug, /workstation/off, /workstation/on

import { createServer, type IncomingMessage } from 'node:http';
import { furnish } from './scenes.ts';
import { World } from './world.ts';

const world = await World.start();
const person = world.newPerson();
const workstation = await person.newWorkstation('tower');
await person.giveCredits(10);
const scenes = process.argv.includes('--furnished') ? await furnish(world, person) : undefined;

const orders: Record<string, (body: string, query: URLSearchParams) => unknown> = {
  '/link': (_, query) => world.lab.invite(query.get('address') ?? person.address),
  '/ollama': (body) => world.ollama.command(JSON.parse(body) as object),
  '/providers': (body) => world.providers.command(JSON.parse(body) as object),
  '/lab/kill': () => world.killLab(),
  '/lab/start': () => world.restartLab(),
  '/cable/pull': () => workstation.pullCable(),
  '/cable/plug': () => workstation.plugIn(),
  '/workstation/off': () => workstation.turnOff(),
  '/workstation/on': () => workstation.turnOn(),
};

const control = createServer((request, answer) => {
  void (async () => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const order = orders[url.pathname];
    if (request.method !== 'POST' || !order) return answer.writeHead(404).end();
    const done: unknown = await order(await text(request), url.searchParams);
    return answer.writeHead(200, { 'content-type': 'application/json' }).end(`${JSON.stringify(done ?? {})}\n`);
  })().catch((error: unknown) => answer.writeHead(500).end(`${String(error)}\n`));
});
await new Promise<void>((listening) => control.listen(0, '127.0.0.1', listening));
const at = control.address();

console.log(
  JSON.stringify({
    origin: world.origin,
    ca_file: world.lab.caFile,
    outbox: world.lab.outbox,
    address: person.address,
    sign_in: (await world.lab.invite(person.address)).link,
    session: (await person.client()).session(),
    workstation: workstation.name,
    scenes,
    ollama: world.ollama.url,
    control: at !== null && typeof at === 'object' ? `http://127.0.0.1:${at.port}` : null,
  }),
);

let ending = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (ending) return;
    ending = true;
    control.close();
    void world.end().then(() => process.exit(0));
  });
}

async function text(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
