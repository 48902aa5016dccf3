// One of the world's programs: started, listened to, stopped, continued and ended by its process id.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** How long a program may take until it says what is waited for. Generous: the machine may be compiling something else. */
export const PATIENCE_MS = 60_000;
/** How long it may take to end when it is asked to. */
const GRACE_MS = 10_000;
/** Of what it printed, so many lines are kept for whoever asks what went wrong. */
const LINES_KEPT = 400;


export interface Start {
  env?: Record<string, string>;
  /** Whether it is told things on its standard input. */
  listens?: boolean;
}

export class Program {
  private readonly printed: string[] = [];
  private readonly watchers = new Set<(line: string) => void>();
  private readonly over: Promise<number>;
  private isOver = false;

  private constructor(
    private readonly name: string,
    private readonly child: ChildProcess,
  ) {
    for (const stream of [child.stdout, child.stderr]) {
      if (stream) createInterface({ input: stream }).on('line', (line) => this.hear(line));
    }
    this.over = new Promise((resolve) => {
      child.once('error', (error) => this.hear(String(error)));
      child.once('close', (code) => {
        this.isOver = true;
        resolve(code ?? -1);
      });
    });
  }

  static start(name: string, path: string, words: string[], { env = {}, listens = false }: Start = {}): Program {
    // The kernel ends it with this process, also where this one is killed and can end nobody.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', path, ...words], {
      env: { ...bare(), ...env },
      stdio: [listens ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      // A Ctrl-C in the terminal is for whoever started the world, who then ends the others in order.
      detached: true,
    });
    return new Program(name, child);
  }

  get id(): number {
    if (this.child.pid === undefined) throw new Error(`${this.name} did not start: ${this.said()}`);
    return this.child.pid;
  }

  get runs(): boolean {
    return !this.isOver;
  }

  /** What it has printed lately. */
  said(): string {
    return this.printed.join('\n');
  }

  /** The first thing that `look` makes of a line, of those that were printed already and those to come. */
  async hears<T>(what: string, look: (line: string) => T | undefined): Promise<T> {
    for (const line of this.printed) {
      const found = look(line);
      if (found !== undefined) return found;
    }
    let watch: (line: string) => void = () => undefined;
    let patience: NodeJS.Timeout | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        watch = (line) => {
          const found = look(line);
          if (found !== undefined) resolve(found);
        };
        this.watchers.add(watch);
        patience = setTimeout(() => reject(new Error(`${this.name} did not come to: ${what}\n${this.said()}`)), PATIENCE_MS);
        void this.over.then((code) => reject(new Error(`${this.name} ended (${code}) before: ${what}\n${this.said()}`)));
      });
    } finally {
      this.watchers.delete(watch);
      clearTimeout(patience);
    }
  }

  /** Tells it a line and gives the next one that it prints. Whoever uses this prints nothing else. */
  async ask(line: string): Promise<string> {
    const answer = new Promise<string>((resolve, reject) => {
      const watch = (said: string) => {
        this.watchers.delete(watch);
        resolve(said);
      };
      this.watchers.add(watch);
      void this.over.then(() => reject(new Error(`${this.name} ended:\n${this.said()}`)));
    });
    this.child.stdin?.write(`${line}\n`);
    return answer;
  }

  /** Its exit code, once it has one. */
  ended(): Promise<number> {
    return this.over;
  }

  /** As if the machine slept: nothing of it runs, its connections stay. */
  freeze(): void {
    this.child.kill('SIGSTOP');
  }

  thaw(): void {
    this.child.kill('SIGCONT');
  }

  /** At once, without a word of farewell. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.over;
  }

  /** Ends it as its owner would. */
  async end(): Promise<void> {
    this.child.kill('SIGCONT');
    this.child.kill('SIGTERM');
    const late = setTimeout(() => this.child.kill('SIGKILL'), GRACE_MS);
    await this.over;
    clearTimeout(late);
  }

  private hear(line: string): void {
    this.printed.push(line);
    if (this.printed.length > LINES_KEPT) this.printed.shift();
    for (const watch of [...this.watchers]) watch(line);
  }
}

/** This process's environment without what would lead a program out of the world. */
function bare(): Record<string, string> {
  const leads = /^(ONEK4_|OLLAMA_|.*_proxy$)/i;
  return Object.fromEntries(Object.entries(process.env).filter((pair): pair is [string, string] => !leads.test(pair[0])));
}
