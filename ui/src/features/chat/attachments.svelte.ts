/** Files that go along with the next words. They are put into the project at once, so that sending is quick. */
import { asFailure, send, type Schemas } from '../../lib/api';

const LARGEST = 50 * 1024 * 1024;

export class Attachment {
  state = $state<'sending' | 'here' | 'failed'>('sending');
  problem = $state('');
  version = $state.raw<Schemas['FileVersion'] | null>(null);
  readonly preview: string | null;

  constructor(readonly file: File) {
    this.preview = file.type.startsWith('image/') && file.type !== 'image/svg+xml' ? URL.createObjectURL(file) : null;
  }

  async put(project: string, tooLarge: string): Promise<void> {
    this.state = 'sending';
    if (this.file.size > LARGEST) {
      this.state = 'failed';
      this.problem = tooLarge;
      return;
    }
    try {
      const response = await send(`/api/projects/${encodeURIComponent(project)}/files/content`, {
        method: 'PUT',
        headers: { 'content-type': 'application/octet-stream', 'x-1k4-path': filePath(this.file.name) },
        body: this.file,
      });
      this.version = (await response.json()) as Schemas['FileVersion'];
      this.state = 'here';
    } catch (error) {
      this.state = 'failed';
      this.problem = asFailure(error).message;
    }
  }

  forget(): void {
    if (this.preview) URL.revokeObjectURL(this.preview);
  }
}

/** Where an attachment lies in its project, as the header wants it: percents for whatever is no visible ASCII. */
export function filePath(name: string): string {
  const tame = name.replaceAll(/[/\\]/g, '-').replace(/^\.+/, '').slice(-120) || 'file';
  return `attachments/${tame}`.replaceAll(/[^!-$&-~]/gu, (sign) => encodeURIComponent(sign));
}
