import { expect, test } from 'vitest';
import type { Schemas } from '../../lib/api';
import { firstChoice, modelOptions } from './models';

const local = (name: string, availability: Schemas['Availability'], capabilities = ['tools']): Schemas['ModelView'] => ({
  name, host: 'device', device: 'dev', device_name: 'den', availability, loaded: false, queued: 0, running: 0, size: 1, capabilities, unsure: [],
});

test('offers what can use tools, and says where it is and how', () => {
  const options = modelOptions([local('local@den/a:latest', 'online'), local('local@den/b:7b', 'paused'), local('local@den/embed', 'online', ['embedding'])]);
  expect(options.map(({ label, group }) => [label, group])).toEqual([
    ['a', 'den'],
    ['b:7b (paused)', 'den'],
  ]);
});

test('begins with what the project wants, else with what is ready', () => {
  const options = modelOptions([local('local@den/a', 'offline'), local('local@den/b', 'busy')]);
  expect([firstChoice(options, 'local@den/a'), firstChoice(options, 'gone'), firstChoice([], 'gone')]).toEqual(['local@den/a', 'local@den/b', '']);
});
