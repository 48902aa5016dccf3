/** The assistant that answers questions about the account. It remembers nothing: what was said stays in this page, until that is left. */
import { asFailure, send, type ApiFailure, type Schemas } from '../../lib/api';

type Message = Schemas['AssistantMessage'];
const MOST = 20;

export class Talk {
  messages = $state<Message[]>([]);
  busy = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  /** Code of an answer that came to nothing. */
  broken = $state<string | null>(null);
  /** Whether this Lab's operator has named no model for it; nothing else tells than asking. */
  missing = $state(false);

  async ask(text: string): Promise<void> {
    this.busy = true;
    this.failure = null;
    this.broken = null;
    const asked: Message[] = [...this.messages, { role: 'user', text }];
    this.messages = asked;
    try {
      const body = JSON.stringify({ messages: asked.slice(-MOST) });
      const response = await send('/api/assistant', { method: 'POST', headers: { 'content-type': 'application/json' }, body });
      if (response.body) await this.#read(response.body);
    } catch (error) {
      const failure = asFailure(error);
      if (failure.code === 'not_set_up') this.missing = true;
      else this.failure = failure;
      this.messages = asked.slice(0, -1);
    } finally {
      this.busy = false;
    }
  }

  async #read(body: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    let answer = '';
    for await (const event of eventsOf(body)) {
      if (event.error) this.broken = event.error;
      if (event.text === undefined) continue;
      const before = answer === '' ? this.messages : this.messages.slice(0, -1);
      answer += event.text;
      this.messages = [...before, { role: 'assistant', text: answer }];
    }
  }
}

type Told = { text?: string; end?: true; error?: string };

/** What a stream of events tells, however it is cut into pieces. */
export async function* eventsOf(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<Told> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) if (event.startsWith('data: ')) yield JSON.parse(event.slice(6)) as Told;
  }
}
