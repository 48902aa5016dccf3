import { svelte } from '@sveltejs/vite-plugin-svelte';
import tailwindcss from '@tailwindcss/vite';
import { loadEnv, type ProxyOptions } from 'vite';
import { defineConfig } from 'vitest/config';

// The Lab that `npm run dev` talks to. Its certificate may be its own, and its check of where a request comes from compares `Origin` with
// its own address, so that is rewritten.
function lab(url: string): ProxyOptions {
  return {
    target: url,
    changeOrigin: true,
    secure: false,
    configure: (proxy) => {
      proxy.on('proxyReq', (request) => {
        if (request.getHeader('origin')) request.setHeader('origin', new URL(url).origin);
      });
    },
  };
}

export default defineConfig(({ mode }) => {
  const url = loadEnv(mode, '.', 'LAB_').LAB_URL ?? 'https://localhost:8443';
  return {
    appType: 'spa',
    plugins: [tailwindcss(), svelte()],
    build: {
      target: ['chrome123', 'firefox128', 'safari17.5'],
      rolldownOptions: { input: { lab: 'lab.html' } },
      modulePreload: { polyfill: false },
      assetsInlineLimit: 0,
      reportCompressedSize: false,
      chunkSizeWarningLimit: 4000,
    },
    server: { open: false, proxy: { '/api': lab(url), '/v1': lab(url) } },
    test: { include: ['src/**/*.test.ts'], environment: 'node' },
  };
});
