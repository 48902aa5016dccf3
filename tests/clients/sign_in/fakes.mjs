// Providers that lie: one that speaks OpenID Connect under several issuers and signs what it is told to, and one shaped like GitHub.

import { createHash, createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { createServer } from 'node:https';

const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const s256 = (text) => createHash('sha256').update(text).digest('base64url');
export const now = () => Math.floor(Date.now() / 1000);

const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
const keys = { own: rsa(), other: rsa() };
const publicPem = keys.own.publicKey.export({ type: 'spki', format: 'pem' });

/** A signed token. */
export function jwt(claims, { header = {}, key = 'own', secret, cut = 0 } = {}) {
  const text = `${b64({ alg: 'RS256', kid: 'own', typ: 'JWT', ...header })}.${b64(claims)}`;
  if (key === null) return `${text}.`;
  const made = secret ? createHmac('sha256', secret).update(text).digest() : sign('sha256', Buffer.from(text), keys[key].privateKey);
  return `${text}.${made.subarray(0, made.length - cut).toString('base64url')}`;
}

export const otherJwk = () => keys.other.publicKey.export({ format: 'jwk' });
export { publicPem };

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

const json = (response, status, value, headers = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value));

/** Codes that are good once, for whoever knows what the challenge was made of. */
class Codes {
  all = new Map();

  grant(params, more) {
    const code = randomBytes(16).toString('hex');
    this.all.set(code, { challenge: params.get('code_challenge'), redirect: params.get('redirect_uri'), ...more });
    return code;
  }

  redeem(form) {
    const granted = this.all.get(form.get('code'));
    this.all.delete(form.get('code'));
    const fits = granted && s256(form.get('code_verifier') ?? '') === granted.challenge && form.get('redirect_uri') === granted.redirect;
    return fits ? granted : undefined;
  }
}

/** Issuers below one address: each path is one. `/liar` names another, `/mover` has moved, `/plain` would be asked without TLS. */
export async function liar({ port, tls, clientId }) {
  const root = `https://localhost:${port}`;
  const codes = new Codes();
  const metadata = (issuer) => ({
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    userinfo_endpoint: `${issuer}/userinfo`,
    jwks_uri: `${issuer}/jwks`,
    response_types_supported: ['code'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256'],
    authorization_response_iss_parameter_supported: true,
  });
  const answer = async (request, response) => {
    const [, name, rest] = /^\/([a-z]+)(\/.*)$/.exec(request.url) ?? [];
    const issuer = `${root}/${name}`;
    switch (rest) {
      case '/.well-known/openid-configuration':
        if (name === 'liar') return json(response, 200, metadata(`${root}/evil`));
        if (name === 'mover') return response.writeHead(302, { location: `${root}/evil${rest}` }).end();
        if (name === 'plain') return json(response, 200, { ...metadata(issuer), token_endpoint: `http://localhost:${port}/plain/token` });
        return json(response, 200, metadata(issuer));
      case '/jwks':
        return json(response, 200, { keys: [{ ...keys.own.publicKey.export({ format: 'jwk' }), kid: 'own', use: 'sig', alg: 'RS256' }] });
      case '/token': {
        const granted = codes.redeem(await body(request));
        if (!granted) return json(response, 400, { error: 'invalid_grant' });
        if (granted.raw) return granted.raw(response, issuer);
        const claims = { iss: issuer, aud: clientId, sub: 'mallory', iat: now(), exp: now() + 300, nonce: granted.nonce, email: 'mallory@example.com', email_verified: true };
        const changed = JSON.parse(JSON.stringify({ ...claims, ...granted.claims }));
        it.userinfo = granted.userinfo;
        const id_token = granted.token ? granted.token(changed) : jwt(changed, granted.how);
        return json(response, 200, { access_token: 'a', token_type: 'Bearer', expires_in: 60, id_token });
      }
      case '/userinfo':
        return it.userinfo ? json(response, it.userinfo.status ?? 200, it.userinfo.body ?? {}) : json(response, 404, {});
      default:
        return json(response, 404, {});
    }
  };
  const server = createServer(tls, (request, response) => void answer(request, response));
  await new Promise((listening) => server.listen(port, '127.0.0.1', listening));
  const it = {
    root,
    /** A code for a journey; `more` is what the answer is to be. */
    grant: (params, more) => codes.grant(params, { nonce: params.get('nonce'), ...more }),
    end: () => new Promise((closed) => server.close(closed).closeAllConnections()),
  };
  return it;
}

/** GitHub's shape: a token that says nothing, and an API that says who it is for. */
export async function github({ port, tls }) {
  const codes = new Codes();
  const people = new Map();
  const answer = async (request, response) => {
    const path = new URL(request.url, 'https://localhost').pathname;
    if (path === '/login/oauth/access_token') {
      const granted = codes.redeem(await body(request));
      // GitHub says so with 200.
      if (!granted) return json(response, 200, { error: 'bad_verification_code' });
      const access_token = randomBytes(16).toString('hex');
      people.set(`Bearer ${access_token}`, granted);
      return json(response, 200, { access_token, token_type: 'bearer', scope: 'user:email' });
    }
    const who = people.get(request.headers.authorization);
    if (!who) return json(response, 401, { message: 'Bad credentials' });
    if (path === '/api/v3/user') return json(response, who.status ?? 200, who.user ?? { id: 583231, login: 'octo' });
    if (path === '/api/v3/user/emails') {
      return json(response, 200, who.emails ?? [{ email: 'octo@example.com', primary: true, verified: true, visibility: null }]);
    }
    return json(response, 404, {});
  };
  const server = createServer(tls, (request, response) => void answer(request, response));
  await new Promise((listening) => server.listen(port, '127.0.0.1', listening));
  return { grant: (params, more) => codes.grant(params, more), end: () => new Promise((closed) => server.close(closed).closeAllConnections()) };
}
