import { expect, it } from 'vitest';
import { snippets } from './snippets';

const made = snippets('https://lab.example.com', '1k4_live_secret', 'gpt-5.5');

it.each(made.map((one) => [one.id, one.text]))('%s has this Lab, the key and nothing of another', (_, text) => {
  expect(text).toContain('https://lab.example.com');
  expect(text).toContain('1k4_live_secret');
  expect(text).not.toMatch(/https:\/\/(?!lab\.example\.com)/);
});

it("asks a workstation's model where the client speaks Ollama's protocol", () => {
  expect(made.find((one) => one.id === 'ollama')?.text).toContain('model="local/llama3.2"');
  expect(snippets('https://l', 'k', 'local/qwen3:8b').find((one) => one.id === 'ollama')?.text).toContain('local/qwen3:8b');
});
