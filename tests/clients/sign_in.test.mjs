// Signing in at providers (row 1 of the Lab's issue): the certified `oidc-provider` of npm and a server shaped like GitHub let people
// in; a provider that lies, a browser that is not theirs and whatever else comes with a state, a code or a token lets nobody in.
//
// The Lab is one of this suite's own that opens accounts for everybody, so that whoever is let in by mistake shows as an account. The
// providers' certificate is the one of the Lab that `cargo xtask run` started: ONEK4_RUN names a file with its line of JSON.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { after, before, test as anyTest } from 'node:test';
import { Browser } from './sign_in/browser.mjs';
import { certified } from './sign_in/certified.mjs';
import { github, jwt, liar, now, otherJwk, publicPem } from './sign_in/fakes.mjs';
import { freePort, OwnLab } from './sign_in/lab.mjs';

const run = JSON.parse(readFileSync(process.env.ONEK4_RUN, 'utf8'));
const skip = run.ollama_is_real ? 'no model is asked here; this was done beside the fake Ollama' : false;
const test = (name, body) => anyTest(`sign-in: ${name}`, { skip }, body);

const client = { id: 'the-lab', secret: 'a-client-secret-of-many-letters-and-digits-0123456789' };
const SESSION = '__Host-1k4s';
const AWAY = '__Host-1k4a';

let lab;
let good;
let evil;
let hub;
let trust;
let manyAddresses;
let last = 0;
/** How many tries there were to get in, and how many people must have an account. */
const counts = { tries: 0, people: 0 };

before(async () => {
  if (skip) return;
  const folder = dirname(run.ca_file);
  const tls = { cert: readFileSync(join(folder, 'leaf.pem')), key: readFileSync(join(folder, 'leaf.key')) };
  const [port, ...ports] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const callback = (name) => `https://localhost:${port}/api/sign-in/callback/${name}`;
  good = await certified({ port: ports[0], tls, client, redirect: callback('certified') });
  evil = await liar({ port: ports[1], tls, clientId: client.id });
  hub = await github({ port: ports[2], tls });
  lab = await OwnLab.start(run.lab_program, port, (dir) => {
    const quoted = JSON.stringify;
    const provider = (name, kind, where) =>
      `[[sign_in.providers]]\nname = "${name}"\nkind = "${kind}"\n${where}\nclient_id = "${client.id}"\nclient_secret = { file = ${quoted(join(dir, 'secret'))} }\n`;
    const issuers = ['evil', 'other', 'liar', 'mover', 'plain'].map((name) => provider(name, 'oidc', `issuer = "${evil.root}/${name}"`));
    return [
      `[sign_in]\nregistration = "open"\nca_file = ${quoted(run.ca_file)}\n`,
      provider('certified', 'oidc', `issuer = "${good.issuer}"`),
      provider('hub', 'github', `base_url = "https://localhost:${ports[2]}"`),
      ...issuers,
    ].join('');
  });
  trust = [lab.ca, readFileSync(run.ca_file, 'utf8')];
  // Linux takes all of 127.0.0.0/8 for this machine's: the Lab rations tries by address.
  manyAddresses = await new Promise((can) => {
    const trial = createServer().once('error', () => can(false));
    trial.listen(0, '127.9.9.9', () => trial.close(() => can(true)));
  });
});

after(async () => {
  await Promise.all([good?.end(), evil?.end(), hub?.end()]);
  if (lab) assert.equal(await lab.end(), 0, lab.said);
});

function browser() {
  last += 1;
  return new Browser(trust, manyAddresses ? `127.8.${last >> 8}.${(last & 255) || 1}` : undefined);
}

const isIn = async (person) => (await person.get(`${lab.url}/api/sessions`)).status === 200;

/** Sends a browser off; gives the address it is sent to and the parameters there. */
async function begin(person, provider, purpose = 'sign_in', more = {}) {
  const answer = await person.post(`${lab.url}/api/sign-in/start`, { provider, purpose, ...more });
  assert.equal(answer.status, 200, answer.text);
  const { location } = JSON.parse(answer.text);
  return { location, params: new URL(location).searchParams };
}

/** Comes back with these parameters. */
function back(person, provider, params) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== undefined));
  return person.get(`${lab.url}/api/sign-in/callback/${provider}?${query}`);
}

const iss = (name = 'evil') => `${evil.root}/${name}`;

/** A journey to the liar and back with what `more` says; gives the answer. */
async function journey(person, more = {}, purpose = 'sign_in') {
  const { params } = await begin(person, 'evil', purpose);
  return back(person, 'evil', { code: evil.grant(params, more), state: params.get('state'), iss: iss() });
}

async function hubJourney(person, more = {}, purpose = 'sign_in') {
  const { params } = await begin(person, 'hub', purpose);
  return back(person, 'hub', { code: hub.grant(params, more), state: params.get('state') });
}

function mustBeIn(answer, to = '/') {
  assert.deepEqual([answer.status, answer.headers.location], [303, lab.url + to], answer.text);
}

/** Nobody is signed in by that answer, and the browser is sent to no place but the app with a code of ours. */
async function mustBeOut(person, answer, codes) {
  counts.tries += 1;
  assert.ok(!(answer.headers['set-cookie'] ?? []).some((line) => new RegExp(`^${SESSION}=[^;]`).test(line)), 'a session was given');
  assert.ok(!(await isIn(person)), 'somebody is signed in');
  if (answer.status === 303) {
    const [place, code] = answer.headers.location.split('?error=');
    assert.equal(place, `${lab.url}/sign-in`);
    if (codes) assert.ok(codes.includes(code), code);
  } else {
    assert.ok(answer.status >= 400 && answer.status <= 502 && answer.status !== 500, `${answer.status}`);
  }
}

test('the certified provider signs people in, back to where they wanted to go, and to the account that they have', async () => {
  const ada = browser();
  good.who = 'ada';
  const { location, params } = await begin(ada, 'certified', 'sign_in', { return_to: '/projects?x=1' });
  assert.deepEqual([params.get('code_challenge_method'), params.get('prompt'), params.get('response_type')], ['S256', null, 'code']);
  mustBeIn(await ada.get(await ada.follow(location, lab.url)), '/projects?x=1');
  assert.ok(await isIn(ada));
  assert.ok(!ada.jar(lab.url).has(AWAY), 'what the journey needed is gone');
  counts.people += 1;
  // In another browser.
  const again = browser();
  mustBeIn(await again.get(await again.follow((await begin(again, 'certified')).location, lab.url)));
  const seen = JSON.parse((await again.get(`${lab.url}/api/identities`)).text).data;
  assert.deepEqual([seen.length, seen[0].provider, seen[0].email], [1, 'certified', 'ada@example.com']);
  assert.equal(lab.admin('users', 'list').length, counts.people);
});

test('the certified provider asks again where somebody is to prove who they are', async () => {
  const ada = browser();
  good.who = 'ada';
  mustBeIn(await ada.get(await ada.follow((await begin(ada, 'certified')).location, lab.url)));
  const before = [good.asked, ada.jar(lab.url).get(SESSION)];
  // It knows her now, and lets her pass where nothing is to be proved.
  mustBeIn(await ada.get(await ada.follow((await begin(ada, 'certified')).location, lab.url)));
  assert.equal(good.asked, before[0]);
  const { location, params } = await begin(ada, 'certified', 'step_up');
  assert.deepEqual([params.get('prompt'), params.get('max_age')], ['login', '0']);
  mustBeIn(await ada.get(await ada.follow(location, lab.url)));
  assert.equal(good.asked, before[0] + 1);
  assert.notEqual(ada.jar(lab.url).get(SESSION), before[1]);
  // Whoever sits at the browser takes the wish for a proof out of the address.
  const token = ada.jar(lab.url).get(SESSION);
  const bare = new URL((await begin(ada, 'certified', 'step_up')).location);
  ['prompt', 'max_age'].forEach((name) => bare.searchParams.delete(name));
  const answer = await ada.get(await ada.follow(bare.href, lab.url));
  assert.match(answer.headers.location, /\/sign-in\?error=(cannot_step_up|step_up_required)$/);
  assert.equal(ada.jar(lab.url).get(SESSION), token);
});

test('GitHub signs people in, by their number', async () => {
  const octo = browser();
  mustBeIn(await hubJourney(octo));
  assert.ok(await isIn(octo));
  counts.people += 1;
  const renamed = browser();
  mustBeIn(await hubJourney(renamed, { user: { id: 583231, login: 'cat' }, emails: [{ email: 'new@example.com', primary: true, verified: true }] }));
  const same = JSON.parse((await renamed.get(`${lab.url}/api/identities`)).text).data;
  assert.deepEqual([same.length, same[0].email], [1, 'octo@example.com']);
  // One who took the name that was given up is another person, and so is one with the same address elsewhere.
  mustBeIn(await hubJourney(browser(), { user: { id: 99, login: 'octo' } }));
  mustBeIn(await journey(browser(), { claims: { sub: 'same-address', email: 'ada@example.com' } }));
  counts.people += 2;
  assert.equal(lab.admin('users', 'list').length, counts.people);
});

test('whoever is signed in proves it anew, and adds ways, only with what was proved since', async () => {
  const person = browser();
  mustBeIn(await journey(person, { claims: { sub: 'prover' } }));
  counts.people += 1;
  const token = () => person.jar(lab.url).get(SESSION);
  const fails = async (answer, code) => {
    counts.tries += 1;
    assert.equal(answer.headers.location, `${lab.url}/sign-in?error=${code}`);
  };
  const first = token();
  const mine = { sub: 'prover' };
  await fails(await journey(person, { claims: mine }, 'step_up'), 'cannot_step_up');
  await fails(await journey(person, { claims: { ...mine, auth_time: now() - 120 } }, 'step_up'), 'step_up_required');
  await fails(await journey(person, { claims: { ...mine, auth_time: 0 } }, 'step_up'), 'step_up_required');
  await fails(await journey(person, { claims: { ...mine, auth_time: 'now' } }, 'step_up'), 'provider_failed');
  await fails(await journey(person, { claims: { sub: 'stranger', auth_time: now() } }, 'step_up'), 'another_account');
  await fails(await journey(person, { claims: { sub: 'second' } }, 'link'), 'cannot_step_up');
  await fails(await journey(person, { claims: { sub: 'second', auth_time: now() - 120 } }, 'link'), 'step_up_required');
  const hubs = await person.post(`${lab.url}/api/sign-in/start`, { provider: 'hub', purpose: 'step_up' });
  assert.deepEqual([hubs.status, JSON.parse(hubs.text).error.code], [422, 'cannot_step_up']);
  assert.equal(token(), first);
  mustBeIn(await journey(person, { claims: { ...mine, auth_time: now() } }, 'step_up'));
  assert.notEqual(token(), first);
  mustBeIn(await journey(person, { claims: { sub: 'second', auth_time: now() } }, 'link'));
  // It began in one session and ends in another.
  const { params } = await begin(person, 'evil', 'step_up');
  const other = browser();
  mustBeIn(await journey(other, { claims: { sub: 'second' } }));
  other.jar(lab.url).set(AWAY, person.jar(lab.url).get(AWAY));
  const code = evil.grant(params, { claims: { ...mine, auth_time: now() } });
  await fails(await back(other, 'evil', { code, state: params.get('state'), iss: iss() }), 'signed_out');
  const stranger = await browser().post(`${lab.url}/api/sign-in/start`, { provider: 'evil', purpose: 'link' });
  assert.equal(stranger.status, 401);
  assert.equal(lab.admin('users', 'list').length, counts.people);
});

const failed = ['provider_failed'];
const over = ['sign_in_over'];

// A token that the liar makes, and everything that can be wrong with one.
const tokens = {
  'no nonce': { claims: { nonce: undefined } },
  'an empty nonce': { claims: { nonce: '' } },
  'a wrong nonce': { claims: { nonce: 'x'.repeat(43) } },
  'a nonce that is no text': { claims: { nonce: 1 } },
  'another issuer': () => ({ claims: { iss: iss('other') } }),
  'the certified issuer': () => ({ claims: { iss: good.issuer } }),
  'a longer issuer': () => ({ claims: { iss: `${iss()}/` } }),
  'no issuer': { claims: { iss: undefined } },
  'another audience': { claims: { aud: 'another-lab' } },
  'no audience': { claims: { aud: undefined } },
  'an empty audience': { claims: { aud: [] } },
  'a second audience': { claims: { aud: [client.id, 'another-lab'] } },
  'an audience of another case': { claims: { aud: client.id.toUpperCase() } },
  'a time that is over': () => ({ claims: { exp: now() - 1, iat: now() - 300 } }),
  'a time that is long over': () => ({ claims: { exp: 1, iat: 0 } }),
  'no end': { claims: { exp: undefined } },
  'an end that is a text': () => ({ claims: { exp: `${now() + 300}` } }),
  'no beginning': { claims: { iat: undefined } },
  'no subject': { claims: { sub: undefined } },
  'an empty subject': { claims: { sub: '' } },
  'a subject that is a number': { claims: { sub: 7 } },
  'alg none': { how: { header: { alg: 'none' }, key: null } },
  'alg none in other letters': { how: { header: { alg: 'nOnE' }, key: null } },
  'alg none with a signature': { how: { header: { alg: 'none' } } },
  'no alg': { how: { header: { alg: undefined } } },
  'no signature': { how: { key: null } },
  "the client's secret as key": { how: { header: { alg: 'HS256' }, secret: client.secret } },
  'the public key as secret': { how: { header: { alg: 'HS256', kid: 'own' }, secret: publicPem } },
  'an empty secret': { how: { header: { alg: 'HS256', kid: undefined }, secret: Buffer.alloc(1) } },
  'another key by the same name': { how: { key: 'other' } },
  'another key by its own name': { how: { key: 'other', header: { kid: 'other' } } },
  'another key without a name': { how: { key: 'other', header: { kid: undefined } } },
  'a key that it brings along': () => ({ how: { key: 'other', header: { jwk: otherJwk(), kid: undefined } } }),
  'a key elsewhere': { how: { key: 'other', header: { jku: 'https://localhost:1/jwks', kid: 'other' } } },
  'a wrong alg': { how: { header: { alg: 'PS256' } } },
  'a curve for an RSA key': { how: { header: { alg: 'ES256' } } },
  'half a signature': { how: { cut: 128 } },
  'a signature of something else': { token: (claims) => [...jwt(claims).split('.').slice(0, 2), jwt({ ...claims, sub: 'x' }).split('.')[2]].join('.') },
  'claims changed afterwards': {
    token: (claims) => {
      const [head, , end] = jwt(claims).split('.');
      return [head, Buffer.from(JSON.stringify({ ...claims, sub: 'root' })).toString('base64url'), end].join('.');
    },
  },
  'no token': { token: () => undefined },
  'an empty token': { token: () => '' },
  'a token that is none': { token: () => 'a.b.c' },
  'a token of five parts': { token: (claims) => `${jwt(claims)}.a.b` },
  'an answer that is a redirect': { raw: (response, issuer) => response.writeHead(302, { location: `${issuer}/jwks` }).end() },
  'an answer that is a permanent redirect': { raw: (response) => response.writeHead(308, { location: 'https://localhost:1/' }).end() },
  'an answer that is no JSON': { raw: (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('<html>') },
  'an answer without end': { raw: (response) => response.writeHead(200, { 'content-type': 'application/json' }).end(' '.repeat(2_000_000)) },
  'an answer that breaks off': { raw: (response) => response.writeHead(200, { 'content-length': 100 }).write('{', () => response.destroy()) },
  'an answer that is an error': { raw: (response) => response.writeHead(500).end('{}') },
};

for (const [name, more] of Object.entries(tokens)) {
  test(`nobody by a token with ${name}`, async () => {
    const person = browser();
    await mustBeOut(person, await journey(person, typeof more === 'function' ? more() : more), failed);
  });
}

const addresses = {
  'one that is not verified': { claims: { email_verified: false } },
  'one of which nothing is said': { claims: { email_verified: undefined } },
  'none at all': { claims: { email: undefined, email_verified: undefined } },
  'none, though verified': { claims: { email: undefined } },
  'one of userinfo that is not verified': { claims: { email: undefined }, userinfo: { body: { sub: 'mallory', email: 'm@example.com', email_verified: false } } },
  "one of another's userinfo": { claims: { email: undefined }, userinfo: { body: { sub: 'ada', email: 'ada@example.com', email_verified: true } } },
  'a userinfo that fails': { claims: { email: undefined }, userinfo: { status: 500, body: { sub: 'mallory', email: 'm@example.com', email_verified: true } } },
};

for (const [name, more] of Object.entries(addresses)) {
  test(`nobody by an address: ${name}`, async () => {
    const person = browser();
    await mustBeOut(person, await journey(person, more), ['email_unverified', ...failed]);
  });
}

// What comes back that was not sent, or not from there, or not to here.
const returns = {
  'no state': ({ code }) => ({ code }),
  'an empty state': ({ code }) => ({ code, state: '' }),
  'a state of nobody': ({ code }) => ({ code, state: 'A'.repeat(43) }),
  'a state with one letter more': ({ code, state }) => ({ code, state: `${state}A` }),
  'a state in other letters': ({ code, state }) => ({ code, state: state.toLowerCase() === state ? state.toUpperCase() : state.toLowerCase() }),
  'no code': ({ state }) => ({ state }),
  'an empty code': ({ state }) => ({ state, code: '' }),
  'a code of nobody': ({ state }) => ({ state, code: 'nothing' }),
  'an error': ({ state }) => ({ state, error: 'access_denied' }),
  'an error and a code': ({ state, code }) => ({ state, code, error: 'server_error' }),
  'the issuer of another': ({ state, code }) => ({ state, code, iss: iss('other') }),
  'the certified issuer': ({ state, code }) => ({ state, code, iss: good.issuer }),
  'no issuer, where one is promised': ({ state, code }) => ({ state, code, iss: undefined }),
  'an empty issuer': ({ state, code }) => ({ state, code, iss: '' }),
};

for (const [name, change] of Object.entries(returns)) {
  test(`nobody by coming back with ${name}`, async () => {
    const person = browser();
    const { params } = await begin(person, 'evil');
    const sent = { code: evil.grant(params), state: params.get('state') };
    await mustBeOut(person, await back(person, 'evil', { iss: iss(), ...change(sent) }), [...over, ...failed, 'denied']);
    // It was used up with that where the state was right, and else belongs to whoever has it.
    const wasRight = change(sent).state === sent.state;
    if (wasRight) await mustBeOut(person, await back(person, 'evil', { ...sent, iss: iss() }), over);
  });
}

test('nobody by two states, two codes or two issuers', async () => {
  for (const twice of ['state', 'code', 'iss']) {
    const person = browser();
    const { params } = await begin(person, 'evil');
    const query = new URLSearchParams({ code: evil.grant(params), state: params.get('state'), iss: iss() });
    query.append(twice, 'x');
    await mustBeOut(person, await person.get(`${lab.url}/api/sign-in/callback/evil?${query}`), [...over, ...failed]);
  }
});

test('nobody by what was used: the state, the code, the whole address', async () => {
  const person = browser();
  const { params } = await begin(person, 'evil');
  const kept = person.jar(lab.url).get(AWAY);
  const sent = { code: evil.grant(params, { claims: { sub: 'replayed' } }), state: params.get('state'), iss: iss() };
  mustBeIn(await back(person, 'evil', sent));
  counts.people += 1;
  for (const cookie of [kept, undefined]) {
    const thief = browser();
    if (cookie) thief.jar(lab.url).set(AWAY, cookie);
    await mustBeOut(thief, await back(thief, 'evil', sent), over);
    await mustBeOut(thief, await back(thief, 'evil', { ...sent, code: evil.grant(params) }), over);
  }
  const fresh = browser();
  const own = (await begin(fresh, 'evil')).params;
  await mustBeOut(fresh, await back(fresh, 'evil', { ...sent, state: own.get('state') }), failed);
});

test("nobody by another browser's journey, or another journey's code", async () => {
  const [victim, thief] = [browser(), browser()];
  const [ours, theirs] = [(await begin(victim, 'evil')).params, (await begin(thief, 'evil')).params];
  // The thief's own address, opened by the victim: she would work in the thief's account.
  const sent = { code: evil.grant(theirs), state: theirs.get('state'), iss: iss() };
  await mustBeOut(victim, await back(victim, 'evil', sent), over);
  // The victim's code, caught on its way, in the thief's journey: the nonce and the challenge are the victim's.
  const again = (await begin(thief, 'evil')).params;
  const caught = evil.grant(ours);
  await mustBeOut(thief, await back(thief, 'evil', { code: caught, state: again.get('state'), iss: iss() }), failed);
  for (const cookie of [undefined, '', 'A'.repeat(43)]) {
    const stranger = browser();
    const params = (await begin(stranger, 'evil')).params;
    stranger.jar(lab.url).delete(AWAY);
    if (cookie !== undefined) stranger.jar(lab.url).set(AWAY, cookie);
    await mustBeOut(stranger, await back(stranger, 'evil', { code: evil.grant(params), state: params.get('state'), iss: iss() }), over);
  }
});

test("nobody by one provider's journey at another's door", async () => {
  for (const [begun, ended, from] of [
    ['other', 'evil', 'other'],
    ['other', 'evil', 'evil'],
    ['evil', 'other', 'evil'],
    ['certified', 'evil', 'evil'],
    ['hub', 'evil', 'evil'],
    ['evil', 'hub', undefined],
    ['evil', 'nobody', 'evil'],
  ]) {
    const person = browser();
    const { params } = await begin(person, begun);
    const sent = { code: evil.grant(params), state: params.get('state'), iss: from && iss(from) };
    await mustBeOut(person, await back(person, ended, sent), [...over, ...failed, 'not_found']);
  }
});

test('nobody is sent to a provider that is another, has moved, or would be asked without TLS', async () => {
  for (const provider of ['liar', 'mover']) {
    const person = browser();
    const answer = await person.post(`${lab.url}/api/sign-in/start`, { provider });
    assert.deepEqual([answer.status, JSON.parse(answer.text).error.code], [502, 'provider_failed']);
    await mustBeOut(person, answer);
  }
  const person = browser();
  const { params } = await begin(person, 'plain');
  await mustBeOut(person, await back(person, 'plain', { code: evil.grant(params), state: params.get('state'), iss: iss('plain') }), failed);
});

test('nobody is led out of the Lab, and no other page begins', async () => {
  for (const return_to of ['https://evil.example', '//evil.example', '/\\evil.example', '/\t/evil.example', 'javascript:alert(1)', '', '/a\r\nset-cookie: x=y']) {
    const person = browser();
    const answer = await person.post(`${lab.url}/api/sign-in/start`, { provider: 'evil', return_to });
    assert.deepEqual([answer.status, JSON.parse(answer.text).error.code], [400, 'invalid_field'], return_to);
    await mustBeOut(person, answer);
  }
  for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }, { 'content-type': 'text/plain' }]) {
    const person = browser();
    const answer = await person.post(`${lab.url}/api/sign-in/start`, { provider: 'evil' }, headers);
    assert.ok([403, 415].includes(answer.status), answer.text);
    await mustBeOut(person, answer);
  }
});

const hubs = {
  'an address that is not verified': { emails: [{ email: 'o@example.com', primary: true, verified: false }] },
  'a verified address that is not the first': { emails: [{ email: 'o@example.com', primary: false, verified: true }] },
  'no address': { emails: [] },
  'addresses that are none': { emails: { message: 'no' } },
  'no number': { user: { login: 'octo' } },
  'a number that is a text': { user: { id: '583231' } },
  'an API that fails': { status: 500 },
  'an API that forbids': { status: 403 },
};

for (const [name, more] of Object.entries(hubs)) {
  test(`nobody at GitHub by ${name}`, async () => {
    const person = browser();
    await mustBeOut(person, await hubJourney(person, more), ['email_unverified', ...failed]);
  });
}

test('nobody at GitHub by a state, a code or an issuer that is not theirs', async () => {
  const changes = [
    ({ state }) => ({ state, code: 'nothing' }),
    ({ code }) => ({ code }),
    ({ code }) => ({ code, state: 'A'.repeat(43) }),
    ({ state, code }) => ({ state, code, iss: iss() }),
    ({ state, code }) => ({ state, code, error: 'access_denied' }),
  ];
  for (const change of changes) {
    const person = browser();
    const { params } = await begin(person, 'hub');
    await mustBeOut(person, await back(person, 'hub', change({ code: hub.grant(params), state: params.get('state') })));
  }
  const [person, thief] = [browser(), browser()];
  const [ours, theirs] = [(await begin(person, 'hub')).params, (await begin(thief, 'hub')).params];
  await mustBeOut(thief, await back(thief, 'hub', { code: hub.grant(ours), state: theirs.get('state') }), failed);
});

test('of all that was tried nobody got in', () => {
  console.log(`${counts.tries} tries that must not succeed, ${counts.people} people who were let in rightly`);
  assert.equal(lab.admin('users', 'list').length, counts.people);
});
