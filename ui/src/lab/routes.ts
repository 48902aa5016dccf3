import type { Drawing } from '../kit/drawing';
import type { Component } from 'svelte';

/** What every route's component is given: the blanks of its path. */
export type Blanks = Record<string, string>;

export type Route = {
  path: string;
  title: () => string;
  load: () => Promise<{ default: Component<Blanks> }>;
  /** Where it stands in the navigation; left out for pages that are reached from others. */
  nav?: { icon: Drawing; group: 'work' | 'machine' | 'account' };
  /** Whether it is for people who are not signed in too; `alone` for a page without the frame around it. */
  open?: 'framed' | 'alone';
};

export const routes: Route[] = [];
