import { defineConfig } from '@playwright/test';

// What a person sees, in Debian's own Chromium. Nothing is tried twice: a test that fails now and then has found something.
export default defineConfig({
  outputDir: 'results/files',
  fullyParallel: false,
  // The machine is shared with a compiler; a world is a Lab, bridges and fakes.
  workers: 1,
  retries: 0,
  forbidOnly: true,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  reporter: process.env['ONEK4_TALLY'] === undefined ? 'list' : [['list'], ['json', { outputFile: process.env['ONEK4_TALLY'] }]],
  use: {
    actionTimeout: 15_000,
    navigationTimeout: 30_000,
    screenshot: 'only-on-failure',
    trace: 'retain-on-failure',
    launchOptions: { executablePath: process.env['ONEK4_CHROMIUM'] ?? '/usr/bin/chromium', args: ['--no-sandbox'] },
  },
  projects: [
    { name: 'journeys', testMatch: 'journeys/*.spec.ts' },
    // Everything on every route, hundreds of drops: minutes.
    { name: 'full', testMatch: 'full/*.spec.ts', timeout: 900_000 },
    // Figures of speed, on a build for release: `cargo xtask bench web`.
    { name: 'figures', testMatch: 'figures/*.spec.ts', timeout: 900_000 },
    // `cargo xtask screens`
    { name: 'screens', testMatch: 'screens/*.spec.ts', timeout: 600_000 },
  ],
});
