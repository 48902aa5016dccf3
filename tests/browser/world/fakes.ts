// The outside world: an Ollama and cloud providers that are programs of ours, told what to do by their owner.

import { Program } from './program.ts';

/** What a model says next: thoughts, words, calls of tools. */
export interface Step {
  think?: string;
  say?: string;
  calls?: { tool: string; arguments: unknown }[];
}

export type Ability = 'completion' | 'tools' | 'insert' | 'vision' | 'embedding' | 'thinking';

/** A generation that was asked for. */
export interface Seen {
  path: string;
  model: string;
  at_ms: number;
  outcome: 'running' | 'finished' | 'client_gone' | 'stopped';
  /** When the client was gone, in milliseconds since 1970. */
  ended_ms: number | null;
  tokens: number | null;
  held: boolean;
}

/** A fake that takes lines of JSON as commands and answers each with one. */
class Told {
  private queue: Promise<unknown> = Promise.resolve();

  protected constructor(protected readonly program: Program) {}

  /** Has a model play a part, in whichever dialect it is asked. The last step is played again and again. */
  plays(model: string, steps: Step[]): Promise<void> {
    return this.tell({ do: 'play', model, steps });
  }

  /** Lets everything held go on. */
  release(): Promise<void> {
    return this.tell({ do: 'release' });
  }

  end(): Promise<void> {
    return this.program.end();
  }

  /** A line as the program takes it. One at a time: the answers come in the order of the commands. */
  command(command: object): Promise<unknown> {
    const answer = this.queue.then(async () => {
      const said: unknown = JSON.parse(await this.program.ask(JSON.stringify(command)));
      if (typeof said === 'object' && said !== null && 'error' in said) throw new Error(String(said.error));
      return said;
    });
    this.queue = answer.catch(() => undefined);
    return answer;
  }

  protected async tell(command: object): Promise<void> {
    await this.command(command);
  }
}

/** The Ollama beside a bridge. Letters in a model's name say how it answers: `llama-n100-d10000` says 100 tokens, 10 ms apart. */
export class FakeOllama extends Told {
  private constructor(
    program: Program,
    readonly url: string,
  ) {
    super(program);
  }

  static async start(programs: string): Promise<FakeOllama> {
    const program = Program.start('fake-ollama', `${programs}/fake-ollama`, ['--addr', '127.0.0.1:0', '--control'], { listens: true });
    const url = await program.hears('its address', (line) => /^listening on (\S+)$/.exec(line)?.[1]);
    return new FakeOllama(program, url);
  }

  add(model: string, capabilities: Ability[]): Promise<void> {
    return this.tell({ do: 'add', model, capabilities });
  }

  remove(model: string): Promise<void> {
    return this.tell({ do: 'remove', model });
  }

  /** Holds every answer of that model before its token of that number, or before its head, until `release`. */
  hold(model: string, token?: number): Promise<void> {
    return this.tell({ do: 'hold', model, token });
  }

  /** So many answers at once, the others waiting; `null` for all. */
  parallel(slots: number | null): Promise<void> {
    return this.tell({ do: 'parallel', slots });
  }

  stop(): Promise<void> {
    return this.tell({ do: 'stop' });
  }

  start(): Promise<void> {
    return this.tell({ do: 'start' });
  }

  /** Every generation that was asked for, the oldest first. */
  async seen(model = ''): Promise<Seen[]> {
    const { seen } = (await this.command({ do: 'seen' })) as { seen: Seen[] };
    return seen.filter((one) => one.model.startsWith(model));
  }
}

/** One of the fake providers: where it is, and the key that opens it. */
export interface FakeProvider {
  name: string;
  url: string;
  key: string;
}

/** All of them, one program. */
export class FakeProviders extends Told {
  private constructor(
    program: Program,
    private readonly all: FakeProvider[],
  ) {
    super(program);
  }

  static async start(programs: string): Promise<FakeProviders> {
    const program = Program.start('fake-provider', `${programs}/fake-provider`, ['--kind', 'all', '--addr', '127.0.0.1:0', '--control'], { listens: true });
    const named = (name: string) =>
      program.hears(`the address of ${name}`, (line) => {
        const [said, url, key] = line.split(' ');
        return said === name && url !== undefined && key !== undefined ? { name, url, key } : undefined;
      });
    return new FakeProviders(program, await Promise.all(['openai.com', 'anthropic.com', 'googleapis.com'].map(named)));
  }

  of(name: string): FakeProvider {
    const found = this.all.find((one) => one.name === name);
    if (!found) throw new Error(`no fake provider ${name}`);
    return found;
  }
}
