import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import tailwindcss from '@tailwindcss/vite';
import { loadEnv, type Plugin, type ProxyOptions } from 'vite';
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

// Every address of the app is the one page, as the Lab serves it.
function onePage(): Plugin {
  return {
    name: 'one-page',
    configureServer: (server) => {
      server.middlewares.use((request, _, next) => {
        const path = request.url ?? '/';
        if (request.headers.accept?.includes('text/html') && !/^\/(api|v1)\/|\.\w+(\?|$)/.test(path)) request.url = '/lab.html';
        next();
      });
    },
  };
}

// The Lab sends files as they are: what a browser takes compressed lies beside them.
function compressed(): Plugin {
  let folder = 'dist';
  return {
    name: 'compressed',
    apply: 'build',
    configResolved: (config) => {
      folder = config.build.outDir;
    },
    closeBundle: () => {
      for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
        const path = join(folder, name);
        if (!statSync(path).isFile() || !/\.(js|css|html|svg|webmanifest)$/.test(name)) continue;
        const content = readFileSync(path);
        writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }));
        writeFileSync(`${path}.br`, brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: content.length } }));
      }
    },
  };
}

// The mark under the addresses where browsers and home screens look for it.
function favicon(): Plugin {
  return {
    name: 'favicon',
    apply: 'build',
    generateBundle() {
      this.emitFile({ type: 'asset', fileName: 'favicon.svg', source: readFileSync('src/kit/mark.svg') });
    },
  };
}

export default defineConfig(({ mode }) => {
  const url = loadEnv(mode, '.', 'LAB_').LAB_URL ?? 'https://localhost:8443';
  return {
    appType: 'spa',
    plugins: [onePage(), tailwindcss(), svelte(), favicon(), compressed()],
    build: {
      target: ['chrome123', 'firefox128', 'safari17.5'],
      rolldownOptions: { input: { lab: 'lab.html' } },
      modulePreload: { polyfill: false },
      assetsInlineLimit: 0,
      manifest: true,
      reportCompressedSize: false,
      chunkSizeWarningLimit: 4000,
    },
    server: { proxy: { '/api': lab(url), '/v1': lab(url) } },
    test: { include: ['src/**/*.test.ts'], environment: 'node' },
  };
});
