/** What somebody writes down before an agent begins, and the calls that begin it. */
import { api, asFailure, type ApiFailure, type Schemas } from '../../lib/api';
import { read, USUAL, written, type Budgets, type Written } from './budgets';
import { firstChoice, modelOptions, type ModelOption } from './models';

export class Beginning {
  projects = $state.raw<Schemas['Project'][]>([]);
  models = $state.raw<ModelOption[]>([]);
  rules = $state.raw<Schemas['Rule'][]>([]);
  servers = $state.raw<Schemas['ToolServer'][]>([]);
  webFetch = $state(false);
  ready = $state(false);
  started = $state(false);
  busy = $state(false);
  failure = $state.raw<ApiFailure | null>(null);
  /** Fields that cannot be as they are. */
  wrong = $state.raw<('goal' | 'model' | keyof Written)[]>([]);

  goal = $state('');
  project = $state('');
  model = $state('');
  /** Whom it hands work to; empty for whomever it chooses. */
  helper = $state('');
  planFirst = $state(false);
  /** Of the Lab's own tools those that it has; `null` for all of them. */
  tools = $state.raw<Schemas['Tool'][] | null>(null);
  budgets = $state<Written>(written(USUAL));

  #chosen = '';
  /** Made already by an attempt that failed behind it. */
  #conversation: { id: string; project: string } | null = null;

  constructor(private readonly wanted: string | null) {}

  async load(): Promise<void> {
    try {
      const [projects, models] = await Promise.all([api.get('/api/projects'), api.get('/api/models')]);
      this.projects = projects.data;
      this.models = modelOptions(models.data);
      this.project = (projects.data.find(({ id }) => id === this.wanted) ?? projects.data[0])?.id ?? '';
      await this.choose(this.project);
      this.ready = true;
    } catch (error) {
      this.failure = asFailure(error);
    }
  }

  /** Begins with what a project says of its agents. */
  async choose(project: string): Promise<void> {
    if (project === '' || project === this.#chosen) return;
    this.#chosen = project;
    try {
      const path = { id: project };
      const [brief, rules, servers] = await Promise.all([
        api.get('/api/projects/{id}/brief', { path }),
        api.get('/api/projects/{id}/rules', { path }),
        api.get('/api/projects/{id}/tool-servers', { path }),
      ]);
      if (project !== this.#chosen) return;
      this.budgets = written({ ...USUAL, ...brief.agents.budgets } as Budgets);
      this.model = firstChoice(this.models, this.model || brief.agents.model?.model);
      this.webFetch = brief.agents.web_fetch ?? false;
      this.rules = rules.data;
      this.servers = servers.data;
    } catch (error) {
      this.#chosen = '';
      this.failure = asFailure(error);
    }
  }

  /** The run that began; `null` where something stands in its way. */
  async start(): Promise<string | null> {
    const budgets = read(this.budgets);
    this.failure = null;
    this.wrong = [...(this.goal.trim() === '' ? (['goal'] as const) : []), ...(this.model === '' ? (['model'] as const) : []), ...('wrong' in budgets ? budgets.wrong : [])];
    if ('wrong' in budgets || this.wrong.length > 0) return null;
    this.busy = true;
    try {
      const conversation = await this.#converse();
      const { run } = await api.post('/api/runs', {
        body: {
          conversation,
          says: [{ type: 'text', text: this.goal }],
          model: { model: this.model },
          agent: { plan_first: this.planFirst, budgets: budgets.budgets, delegate: this.helper || null, tools: this.tools },
        },
      });
      this.started = true;
      return run.id;
    } catch (error) {
      this.failure = asFailure(error);
      return null;
    } finally {
      this.busy = false;
    }
  }

  async #converse(): Promise<string> {
    const { project } = this;
    if (this.#conversation?.project === project) return this.#conversation.id;
    const { id } = await api.post('/api/conversations', { body: { project, settings: { model: { model: this.model }, instructions: null } } });
    this.#conversation = { id, project };
    return id;
  }
}
