import type AnyDrawing from '@lucide/svelte/icons/circle';

/** A drawing of the icon set, imported one by one: `import Send from '@lucide/svelte/icons/send'`. */
export type Drawing = typeof AnyDrawing;
