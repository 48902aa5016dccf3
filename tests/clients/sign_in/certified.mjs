// The certified `oidc-provider` of npm on a port of this machine. Whoever comes is signed in as `who` and consents: the pages that a
// person would click through answer by themselves.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

export async function certified({ port, tls, client, redirect }) {
  const issuer = `https://localhost:${port}`;
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  const provider = new Provider(issuer, {
    clients: [{ client_id: client.id, client_secret: client.secret, redirect_uris: [redirect], grant_types: ['authorization_code'], response_types: ['code'], id_token_signed_response_alg: 'ES256' }],
    jwks: { keys: [{ ...key, kid: 'one', use: 'sig', alg: 'ES256' }] },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    features: { devInteractions: { enabled: false } },
    pkce: { methods: ['S256'], required: () => true },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }) }),
  });
  // How often it asked somebody who they are.
  const it = { issuer, who: 'ada', asked: 0 };
  const interact = async (request, response) => {
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    if (prompt.name === 'login') {
      it.asked += 1;
      return provider.interactionFinished(request, response, { login: { accountId: it.who } }, { mergeWithLastSubmission: false });
    }
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope('openid email');
    return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
  };
  const rest = provider.callback();
  const server = createServer(tls, (request, response) => {
    if (!request.url.startsWith('/interaction/')) return rest(request, response);
    return interact(request, response).catch((error) => response.writeHead(500).end(error.name));
  });
  await new Promise((listening) => server.listen(port, '127.0.0.1', listening));
  it.end = () => new Promise((closed) => server.close(closed).closeAllConnections());
  return it;
}
