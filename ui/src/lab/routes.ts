import Bot from '@lucide/svelte/icons/bot';
import ChartColumn from '@lucide/svelte/icons/chart-column';
import CircleUser from '@lucide/svelte/icons/circle-user';
import Hand from '@lucide/svelte/icons/hand';
import FolderKanban from '@lucide/svelte/icons/folder-kanban';
import House from '@lucide/svelte/icons/house';
import KeyRound from '@lucide/svelte/icons/key-round';
import MessagesSquare from '@lucide/svelte/icons/messages-square';
import Monitor from '@lucide/svelte/icons/monitor';
import type { Component } from 'svelte';
import { pending } from '../features/agents/approvals/pending.svelte';
import type { Drawing } from '../kit/drawing';
import { m } from '../lib/i18n.svelte';

export type Route = {
  path: string;
  title: () => string;
  // A page names those blanks that its path has as its props, or none; `never` is the one type that all of them take.
  load: () => Promise<{ default: Component<never> }>;
  /** Where it stands in the navigation; left out for pages that are reached from others. */
  nav?: {
    icon: Drawing;
    group: 'work' | 'machine' | 'account';
    /** How many things there wait for somebody. */
    waiting?: () => number;
  };
  /** Whether it is for people who are not signed in too; `alone` for a page without the frame around it. */
  open?: 'framed' | 'alone';
};

// One page for both: a new conversation gets its address with its first words and stays the page that it is.
const chat = (): ReturnType<Route['load']> => import('../features/chat/ChatPage.svelte');
const project: Route['load'] = () => import('./ProjectPage.svelte');
const usage: Route['load'] = () => import('../features/usage/Usage.svelte');
const account: Route['load'] = () => import('../features/account/Account.svelte');

export const routes: Route[] = [
  { path: '/', title: () => m.home_title(), load: () => import('./Start.svelte'), nav: { icon: House, group: 'work' }, open: 'framed' },
  { path: '/stored', title: () => m.landing_stored(), load: () => import('../features/landing/Stored.svelte'), open: 'framed' },
  { path: '/security', title: () => m.landing_security(), load: () => import('../features/landing/Security.svelte'), open: 'framed' },
  { path: '/chat', title: () => m.chat_nav(), load: chat, nav: { icon: MessagesSquare, group: 'work' } },
  { path: '/chat/{id}', title: () => m.chat_nav(), load: chat },
  { path: '/projects', title: () => m.projects_title(), load: () => import('../features/projects/Projects.svelte'), nav: { icon: FolderKanban, group: 'work' } },
  { path: '/projects/{id}', title: () => m.projects_project(), load: project },
  { path: '/projects/{id}/{tab}', title: () => m.projects_project(), load: project },
  { path: '/projects/{id}/files/{file}', title: () => m.files_file(), load: () => import('../features/files/FilePage.svelte') },
  { path: '/keys', title: () => m.keys_title(), load: () => import('../features/keys/Keys.svelte'), nav: { icon: KeyRound, group: 'account' } },
  { path: '/usage', title: () => m.usage_title(), load: usage, nav: { icon: ChartColumn, group: 'account' } },
  { path: '/usage/{tab}', title: () => m.usage_title(), load: usage },
  { path: '/account', title: () => m.account_title(), load: account, nav: { icon: CircleUser, group: 'account' } },
  { path: '/account/{tab}', title: () => m.account_title(), load: account },
  { path: '/sign-in', title: () => m.sign_in_title(), load: () => import('../features/sign-in/SignIn.svelte'), open: 'alone' },
  { path: '/sign-in/done', title: () => m.sign_in_done(), load: () => import('../features/sign-in/Done.svelte'), open: 'alone' },
  { path: '/sign-in/add', title: () => m.sign_in_add(), load: () => import('../features/sign-in/AddWay.svelte') },
  { path: '/agents', title: () => m.agents_title(), load: () => import('../features/agents/Agents.svelte'), nav: { icon: Bot, group: 'work' } },
  { path: '/agents/new', title: () => m.agents_start(), load: () => import('../features/agents/NewAgent.svelte') },
  { path: '/runs/{id}', title: () => m.agents_run(), load: () => import('../features/agents/RunPage.svelte') },
  { path: '/approvals', title: () => m.agents_approvals(), load: () => import('../features/agents/approvals/Approvals.svelte'), nav: { icon: Hand, group: 'work', waiting: () => pending.count } },
  { path: '/devices', title: () => m.devices_title(), load: () => import('../features/devices/Devices.svelte'), nav: { icon: Monitor, group: 'machine' } },
  { path: '/devices/pair', title: () => m.devices_pair(), load: () => import('../features/devices/Pair.svelte') },
  { path: '/devices/{id}', title: () => m.devices_device(), load: () => import('../features/devices/Device.svelte') },
];
