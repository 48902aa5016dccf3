/** Ready examples for a key, with this Lab's own address in them. Program text is the same in every language. */
export type Snippet = { id: 'curl' | 'python' | 'javascript' | 'ollama' | 'editors'; file: string; text: string };

export function snippets(origin: string, key: string, model: string): Snippet[] {
  // A workstation's model; Ollama's own clients may leave the prefix out.
  const local = model.startsWith('local') ? model : 'local/llama3.2';
  return [
    {
      id: 'curl',
      file: 'sh',
      text: `curl ${origin}/v1/chat/completions \\
  -H "Authorization: Bearer ${key}" \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${model}", "messages": [{"role": "user", "content": "Hello"}]}'
`,
    },
    {
      id: 'python',
      file: 'py',
      text: `from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key="${key}")
answer = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)
`,
    },
    {
      id: 'javascript',
      file: 'js',
      text: `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${origin}/v1", apiKey: "${key}" });
const answer = await client.chat.completions.create({
  model: "${model}",
  messages: [{ role: "user", content: "Hello" }],
});
console.log(answer.choices[0].message.content);
`,
    },
    {
      id: 'ollama',
      file: 'py',
      text: `import ollama

client = ollama.Client(host="${origin}", headers={"Authorization": "Bearer ${key}"})
answer = client.chat(model="${local}", messages=[{"role": "user", "content": "Hello"}])
print(answer.message.content)
`,
    },
    {
      id: 'editors',
      file: 'yaml',
      text: `# Continue: config.yaml. Other editors ask for the same three: address, key, model.
models:
  - name: ${model}
    provider: openai
    model: ${model}
    apiBase: ${origin}/v1
    apiKey: ${key}
`,
    },
  ];
}
