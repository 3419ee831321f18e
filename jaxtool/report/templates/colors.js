// A colour goes by the name, so that an arm looks the same on every page.

const COLORS = 12;

// FNV-1a over UTF-16 units; the salt keeps the study's arms apart.
function colorIndex(name) {
  let hash = 0x811c9dc5;
  for (const unit of `apy${name}`) {
    hash ^= unit.codePointAt(0);
    hash = Math.imul(hash, 0x01000193) >>> 0;
  }
  hash = Math.imul(hash ^ (hash >>> 15), 0x5bd1e995) >>> 0;
  return ((hash ^ (hash >>> 13)) >>> 0) % COLORS;
}

// Colour numbers of names that stand together. Where two names have the same colour, the one that comes later in the
// alphabet takes the next free one.
function colorIndices(names) {
  const taken = new Set();
  const found = new Map();
  for (const name of [...new Set(names)].sort()) {
    let index = colorIndex(name);
    for (let tries = 0; taken.has(index) && tries < COLORS; tries += 1) index = (index + 1) % COLORS;
    taken.add(index);
    found.set(name, index);
  }
  return found;
}
