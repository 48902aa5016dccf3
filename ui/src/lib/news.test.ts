import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { listen } from './news';
import { onNews } from './poll';

class Page extends EventTarget {
  hidden = false;
  show(visible: boolean): void {
    this.hidden = !visible;
    this.dispatchEvent(new Event('visibilitychange'));
  }
}

const streams = new Set<ServerResponse>();
let opened = 0;
const lab = createServer((_, answer) => {
  opened += 1;
  answer.writeHead(200, { 'content-type': 'text/event-stream' }).write('retry: 500\n\n');
  streams.add(answer);
  answer.on('close', () => streams.delete(answer));
});
const say = (...about: string[]): void => streams.forEach((to) => to.write(`event: changed\ndata: ${JSON.stringify({ about })}\n\n`));
const patience = { timeout: 6_000, interval: 5 };
const ends: (() => void)[] = [];
let page: Page;

beforeEach(async () => {
  opened = 0;
  page = new Page();
  vi.stubGlobal('document', page);
  await new Promise<void>((listening) => lab.listen(0, '127.0.0.1', listening));
  const { fetch } = globalThis;
  const origin = `http://127.0.0.1:${(lab.address() as AddressInfo).port}`;
  vi.stubGlobal('fetch', (path: string, request?: RequestInit) => fetch(origin + path, request));
});
afterEach(async () => {
  for (const end of ends.splice(0)) end();
  vi.unstubAllGlobals();
  lab.closeAllConnections();
  await new Promise((closed) => lab.close(closed));
});

test('everybody shares one stream, looks once when it opens, and hears what it asked about', async () => {
  const [devices, runs] = [vi.fn(), vi.fn()];
  ends.push(listen(['devices'], devices), listen(['runs', 'approvals'], runs));
  await vi.waitFor(() => expect([devices.mock.calls.length, runs.mock.calls.length]).toEqual([1, 1]), patience);
  say('approvals');
  await vi.waitFor(() => expect(runs).toHaveBeenCalledTimes(2), patience);
  say('devices', 'runs');
  await vi.waitFor(() => expect(runs).toHaveBeenCalledTimes(3), patience);
  expect([devices.mock.calls.length, opened]).toEqual([2, 1]);
});

test('the stream is closed with the last listener and while nobody looks', async () => {
  const told = vi.fn();
  const [one, other] = [listen(['runs'], told), listen(['runs'], () => undefined)];
  ends.push(one, other);
  await vi.waitFor(() => expect([streams.size, told.mock.calls.length]).toEqual([1, 1]), patience);
  one();
  page.show(false);
  await vi.waitFor(() => expect(streams.size).toBe(0), patience);
  page.show(true);
  await vi.waitFor(() => expect([streams.size, opened]).toEqual([1, 2]), patience);
  other();
  await vi.waitFor(() => expect(streams.size).toBe(0), patience);
});

test('a stream that breaks or falls silent is opened again, and everybody looks', async () => {
  const told = vi.fn();
  ends.push(listen(['devices'], told));
  await vi.waitFor(() => expect(told).toHaveBeenCalledTimes(1), patience);
  for (const stream of streams) stream.destroy();
  await vi.waitFor(() => expect(told).toHaveBeenCalledTimes(2), patience);
  // Nothing is said from here on.
  await vi.waitFor(() => expect([told.mock.calls.length, opened]).toEqual([3, 3]), patience);
}, 15_000);

test('news that come while somebody asks are asked for once more', async () => {
  let answer = (): void => undefined;
  const ask = vi.fn(() => new Promise<void>((done) => (answer = done)));
  ends.push(onNews(['runs'], ask));
  await vi.waitFor(() => expect(streams.size).toBe(1), patience);
  say('runs');
  say('runs');
  expect(ask).toHaveBeenCalledTimes(1);
  // The opening and both pieces of news come to one more look.
  await new Promise((arrived) => ends.push(listen(['approvals'], () => arrived(undefined))) && say('approvals'));
  answer();
  await vi.waitFor(() => expect(ask).toHaveBeenCalledTimes(2), patience);
});
