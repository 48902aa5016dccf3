// A browser without a window: cookies by host, redirects one at a time, and an address of this machine of its own.

import { request } from 'node:https';

export class Browser {
  /** `ca` is the PEM of whom it trusts; `localAddress` where its requests come from. */
  constructor(ca, localAddress) {
    this.ca = ca;
    this.localAddress = localAddress;
    this.jars = new Map();
  }

  jar(url) {
    const { host } = new URL(url);
    if (!this.jars.has(host)) this.jars.set(host, new Map());
    return this.jars.get(host);
  }

  /** One request; what the answer sets is kept. */
  async send(method, url, { headers = {}, body } = {}) {
    const jar = this.jar(url);
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await new Promise((resolve, reject) => {
      const options = { method, ca: this.ca, localAddress: this.localAddress, agent: false };
      const sent = request(url, { ...options, headers: { ...(cookie && { cookie }), ...headers } }, (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }));
        response.on('error', reject);
      });
      sent.on('error', reject);
      sent.end(body);
    });
    for (const line of answer.headers['set-cookie'] ?? []) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      const isOver = value === '' || /max-age=0/i.test(line) || /expires=Thu, 01 Jan 1970/i.test(line);
      isOver ? jar.delete(name) : jar.set(name, value);
    }
    return answer;
  }

  get(url) {
    return this.send('GET', url);
  }

  /** A POST as a page of that very server sends it. */
  post(url, body, headers = {}) {
    const own = { 'content-type': 'application/json', 'sec-fetch-site': 'same-origin', ...headers };
    return this.send('POST', url, { headers: own, body: JSON.stringify(body) });
  }

  /** Follows redirects until one leads to `target`, and gives that address. */
  async follow(url, target) {
    for (let hops = 0; hops < 12; hops += 1) {
      if (url.startsWith(target)) return url;
      const { status, headers, text } = await this.get(url);
      if (!headers.location) throw new Error(`${status} at ${new URL(url).pathname}: ${text.slice(0, 300)}`);
      url = new URL(headers.location, url).href;
    }
    throw new Error('too many redirects');
  }
}
