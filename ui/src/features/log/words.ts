import type { Schemas } from '../../lib/api';
import { language, m } from '../../lib/i18n.svelte';
import type { Action, Group, Line } from './log';

export const actionWord: Record<Action, () => string> = {
  project_created: () => m.log_a_project_created(),
  project_changed: () => m.log_a_project_changed(),
  project_deleted: () => m.log_a_project_deleted(),
  instructions_changed: () => m.log_a_instructions_changed(),
  key_created: () => m.log_a_key_created(),
  key_changed: () => m.log_a_key_changed(),
  key_revoked: () => m.log_a_key_revoked(),
  files_listed: () => m.log_a_files_listed(),
  files_searched: () => m.log_a_files_searched(),
  file_read: () => m.log_a_file_read(),
  file_written: () => m.log_a_file_written(),
  file_patched: () => m.log_a_file_patched(),
  file_recovered: () => m.log_a_file_recovered(),
  file_renamed: () => m.log_a_file_renamed(),
  file_deleted: () => m.log_a_file_deleted(),
  tasks_listed: () => m.log_a_tasks_listed(),
  task_created: () => m.log_a_task_created(),
  task_changed: () => m.log_a_task_changed(),
  task_deleted: () => m.log_a_task_deleted(),
  conversation_created: () => m.log_a_conversation_created(),
  conversation_changed: () => m.log_a_conversation_changed(),
  conversation_deleted: () => m.log_a_conversation_deleted(),
  rule_added: () => m.log_a_rule_added(),
  rule_removed: () => m.log_a_rule_removed(),
  tool_server_added: () => m.log_a_tool_server_added(),
  tool_server_changed: () => m.log_a_tool_server_changed(),
  tool_server_removed: () => m.log_a_tool_server_removed(),
  tool_used: () => m.log_a_tool_used(),
  web_fetched: () => m.log_a_web_fetched(),
  delegated: () => m.log_a_delegated(),
  model_asked: () => m.log_a_model_asked(),
  planned: () => m.log_a_planned(),
  run_started: () => m.log_a_run_started(),
  run_stopped: () => m.log_a_run_stopped(),
  run_ended: () => m.log_a_run_ended(),
  approval_answered: () => m.log_a_approval_answered(),
};

export const groupWord: Record<Group, () => string> = {
  agents: () => m.log_group_agents(),
  files: () => m.log_group_files(),
  tasks: () => m.log_group_tasks(),
  conversations: () => m.log_group_conversations(),
  rules: () => m.log_group_rules(),
  keys: () => m.log_group_keys(),
  project: () => m.log_group_project(),
};

type Finding = Schemas['LogVerdict']['findings'][number];

const problems: Record<Finding['problem'], (where: { line: number }) => string> = {
  missing: m.log_problem_missing,
  foreign: m.log_problem_foreign,
  changed: m.log_problem_changed,
  unreadable: m.log_problem_unreadable,
  rewritten: m.log_problem_rewritten,
  cut_off: m.log_problem_cut_off,
  forged_head: m.log_problem_forged_head,
  broken_head: m.log_problem_broken_head,
};

export function problemWord({ problem, line, until }: Finding): string {
  const said = problems[problem]({ line });
  return until && until !== line ? `${said} ${m.log_problem_until({ until })}` : said;
}

export function outcomeWord(result: Line['result']): string {
  if (result.outcome === 'done') return m.log_done();
  return result.outcome === 'refused' ? m.log_refused() : m.log_failed();
}

export const outcomeTone = { done: 'good', refused: 'warn', failed: 'bad' } as const;

export function approvalWord(approval: Line['approval']): string {
  if (approval.by === 'person') return approval.allowed ? m.log_approval_yes() : m.log_approval_no();
  if (approval.by === 'rule') return approval.allowed ? m.log_approval_rule_yes() : m.log_approval_rule_no();
  return m.log_approval_none();
}

/** Who did it; programs by the names of their keys, where those are known. */
export function actorWord(actor: Line['actor'], names: ReadonlyMap<string, string>): string {
  if (actor.type === 'person') return m.log_you();
  return actor.type === 'agent' ? m.log_agent({ model: actor.model }) : m.log_program({ name: names.get(actor.key) ?? actor.key });
}

/** When, to the second: lines of a log are told apart by it. */
export function moment(at: number): string {
  return new Intl.DateTimeFormat(language.current, { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false }).format(at);
}
