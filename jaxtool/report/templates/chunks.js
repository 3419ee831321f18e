// Loads the chunks of a page: from the page itself, or as scripts from the folder beside it. Nothing is fetched.

const KEPT_FIGURES = 8; // chunks of token figures that stay in memory; texts all stay
const arrived = new Map(); // name -> what waits for it

window.jaxtoolChunk = (name, content) => {
  const waiting = arrived.get(name);
  if (waiting) waiting.resolve(content);
};

async function unpacked(content) {
  const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}

class Chunks {
  constructor({ folder, texts, figures }) {
    this.folder = folder;
    this.names = { texts, figures };
    this.loaded = new Map();
    this.used = []; // names of figures, the last used at the end
  }

  body(row) { return this.value('texts', row.body); }

  // What is known of single tokens; null where nothing is.
  figures(row) { return row.figures[0] < 0 ? Promise.resolve(null) : this.value('figures', row.figures); }

  async value(kind, [number, place]) {
    const name = this.names[kind][number];
    if (kind === 'figures') this.touch(name);
    return (await this.load(name))[place];
  }

  touch(name) {
    this.used = [...this.used.filter((other) => other !== name), name];
    if (this.used.length > KEPT_FIGURES) this.loaded.delete(this.used.shift());
  }

  load(name) {
    if (!this.loaded.has(name)) {
      const loading = this.content(name).then(unpacked);
      loading.catch(() => this.loaded.delete(name)); // asked again, it is tried again
      this.loaded.set(name, loading);
    }
    return this.loaded.get(name);
  }

  content(name) {
    if (!this.folder) return Promise.resolve(document.getElementById(`chunk-${name}`).textContent);
    return new Promise((resolve, reject) => {
      arrived.set(name, { resolve });
      const node = el('script', { src: `${this.folder}/${name}` });
      node.addEventListener('load', () => node.remove());
      node.addEventListener('error', () => {
        node.remove();
        reject(new Error(`${this.folder}/${name} cannot be read: keep the folder ${this.folder} beside this page`));
      });
      document.head.append(node);
    });
  }
}
