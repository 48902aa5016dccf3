import type { Component } from 'svelte';
import type { Schemas } from '../lib/api';
import { m } from '../lib/i18n.svelte';

/** What each part of a project's page is given. */
export type ProjectProps = { project: Schemas['Project']; onproject: (project: Schemas['Project']) => void };

export type ProjectPart = {
  /** Its place below `/projects/{id}`; the first part stands there itself. */
  id: string;
  label: () => string;
  load: () => Promise<{ default: Component<ProjectProps> | Component<Pick<ProjectProps, 'project'>> }>;
};

/** The parts of a project's page, each of a feature of its own. */
export const parts: ProjectPart[] = [
  { id: '', label: () => m.projects_tab_conversations(), load: () => import('../features/projects/Conversations.svelte') },
  { id: 'files', label: () => m.projects_tab_files(), load: () => import('../features/files/Files.svelte') },
  { id: 'board', label: () => m.projects_tab_board(), load: () => import('../features/tasks/Board.svelte') },
  { id: 'agents', label: () => m.agents_title(), load: () => import('../features/agents/ProjectAgents.svelte') },
  { id: 'rules', label: () => m.agents_rules(), load: () => import('../features/agents/rules/Rules.svelte') },
  { id: 'servers', label: () => m.agents_servers(), load: () => import('../features/agents/servers/ToolServers.svelte') },
  { id: 'log', label: () => m.projects_tab_log(), load: () => import('../features/log/Log.svelte') },
  { id: 'settings', label: () => m.projects_tab_settings(), load: () => import('../features/projects/Settings.svelte') },
];
