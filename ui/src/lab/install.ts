/** Lets the service worker in, which makes the app installable and quick to open. Not while it is being developed. */
export function install(): void {
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return;
  const script = '/worker.js';
  const policy = (window as { trustedTypes?: TrustedTypes }).trustedTypes?.createPolicy('lab', { createScriptURL: () => script });
  void navigator.serviceWorker.register((policy?.createScriptURL(script) ?? script) as string).catch(() => {
    // Private windows refuse it; the app is the same without.
  });
}

type TrustedTypes = { createPolicy: (name: string, rules: { createScriptURL: (url: string) => string }) => { createScriptURL: (url: string) => unknown } };
