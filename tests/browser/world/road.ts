// A road between one traveller and the Lab, which a test can break: an HTTP proxy that knows CONNECT and nothing else.
//
// Each road comes out at an address of its own of 127.0.0.0/8, where the system lets it: the Lab rations tries by address, and many
// people stand at many addresses.

import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer as createHttpServer } from 'node:http';

let roads = 0;
let manyAddresses: Promise<boolean> | undefined;

export class Road {
  private readonly tunnels = new Set<readonly [Duplex, Socket]>();
  private isBlocked = false;

  private constructor(
    private readonly server: Server,
    /** The proxy's address. */
    readonly url: string,
  ) {}

  static async open(): Promise<Road> {
    manyAddresses ??= canBind('127.77.1.1');
    roads += 1;
    const from = (await manyAddresses) ? `127.77.${(roads >> 8) + 1}.${(roads & 255) || 1}` : '127.0.0.1';
    const server = createHttpServer((_, answer) => answer.writeHead(405).end());
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port for a road');
    const road = new Road(server, `http://127.0.0.1:${address.port}`);
    server.on('connect', (request, near: Duplex) => road.tunnel(request.url ?? '', near, from));
    return road;
  }

  /** How many connections go over it. */
  get traffic(): number {
    return this.tunnels.size;
  }

  /** Every connection breaks at once; new ones are taken. */
  cut(): void {
    for (const ends of this.tunnels) ends.forEach((end) => end.destroy());
  }

  /** The cable is pulled: nothing passes and nobody is told. */
  block(): void {
    this.isBlocked = true;
    for (const ends of this.tunnels) ends.forEach((end) => end.pause());
  }

  /** And is back in its socket. Connections that nobody gave up go on. */
  unblock(): void {
    this.isBlocked = false;
    for (const ends of this.tunnels) ends.forEach((end) => end.resume());
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((closed) => this.server.close(closed));
  }

  private tunnel(target: string, near: Duplex, from: string): void {
    const [, host, port] = /^\[?([^\]]+?)\]?:(\d+)$/.exec(target) ?? [];
    if (host !== 'localhost') {
      near.end('HTTP/1.1 403 Only this machine\r\n\r\n');
      return;
    }
    const far = connect({ host: '127.0.0.1', port: Number(port), localAddress: from, noDelay: true });
    const ends = [near, far] as const;
    this.tunnels.add(ends);
    const close = () => {
      this.tunnels.delete(ends);
      ends.forEach((end) => end.destroy());
    };
    ends.forEach((end) => end.on('error', close).on('close', close));
    far.once('connect', () => near.write('HTTP/1.1 200 OK\r\n\r\n'));
    near.on('data', (bytes: Buffer) => this.pass(near, far, bytes));
    far.on('data', (bytes: Buffer) => this.pass(far, near, bytes));
    near.on('end', () => far.end());
    far.on('end', () => near.end());
    if (this.isBlocked) ends.forEach((end) => end.pause());
  }

  private pass(one: Duplex, other: Duplex, bytes: Buffer): void {
    if (other.write(bytes)) return;
    one.pause();
    other.once('drain', () => {
      if (!this.isBlocked) one.resume();
    });
  }
}

/** Whether the system takes an address for this machine's; Linux takes all of 127.0.0.0/8. */
function canBind(address: string): Promise<boolean> {
  return new Promise((can) => {
    const trial = createServer().once('error', () => can(false));
    trial.listen(0, address, () => trial.close(() => can(true)));
  });
}
