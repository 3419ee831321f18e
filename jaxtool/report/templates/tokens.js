// One answer token by token, coloured by its author, its log-prob or its advantage. Blocks off the screen are not laid out.

const BLOCK = 240; // tokens of a block at the least; it ends with a line
const MODES = ['text', 'tokens', 'log-prob', 'advantage'];
// Spaces and control characters are shown, so that no token is invisible.
const visibleText = (text) => (text === '' ? '∅' : JSON.stringify(text).slice(1, -1)
  .replaceAll('\\"', '"').replaceAll('\\\\', '\\').replaceAll(' ', '␣'));

// Tokens from the text of the parts and the length of each; a control token is where a mark begins.
function tokensOf(body, figures) {
  const text = body.parts.map(({ x }) => x).join('');
  const tokens = [];
  const marks = new Set();
  let offset = 0;
  for (const part of body.parts) {
    for (const [start] of part.m || []) marks.add(offset + start);
    offset += part.x.length;
  }
  let at = 0;
  let part = 0;
  let left = body.parts.length ? body.parts[0].n : 0;
  figures.n.forEach((length, i) => {
    while (left === 0 && part + 1 < body.parts.length) { part += 1; left = body.parts[part].n; }
    left -= 1;
    const { k } = body.parts[part];
    const isPolicy = k === 'a' || k === 'c';
    const advantage = Array.isArray(figures.advantage) ? figures.advantage[i] : isPolicy ? figures.advantage : null;
    tokens.push({ i, k, text: text.slice(at, at + length), id: figures.id[i], logprob: figures.logprob[i], advantage, isControl: length > 0 && marks.has(at) });
    at += length;
  });
  return tokens;
}

const hasAdvantages = (figures) => (Array.isArray(figures.advantage) ? figures.advantage.some(isNumber) : isNumber(figures.advantage));

class TokenView {
  constructor(body, figures, mode) {
    this.tokens = tokensOf(body, figures);
    this.mode = mode;
    this.strongest = Math.max(1e-9, this.tokens.reduce((most, { advantage }) => Math.max(most, Math.abs(advantage || 0)), 0));
    this.node = el('div', {
      class: `tokens ${mode === 'tokens' ? '' : 'mode-figures'}`,
      role: 'group',
      'aria-label': 'Tokens; move with the arrow keys',
      onpointerover: (event) => this.point(event),
      onpointerleave: hideTip,
      onfocusin: (event) => this.point(event),
      onfocusout: hideTip,
      onkeydown: (event) => this.key(event),
    }, this.blocks());
  }

  blocks() {
    const blocks = [];
    let block = [];
    for (const token of this.tokens) {
      block.push(this.tokenNode(token));
      if (block.length >= BLOCK && (token.text.endsWith('\n') || block.length >= 2 * BLOCK)) {
        blocks.push(block);
        block = [];
      }
    }
    if (block.length) blocks.push(block);
    return blocks.map((nodes) => el('div', { class: 'block' }, nodes));
  }

  tokenNode(token) {
    const { i, k } = token;
    const classes = ['t', PART_NAMES[k]];
    if (!this.tokens[i - 1] || this.tokens[i - 1].k !== k) classes.push('first');
    if (!this.tokens[i + 1] || this.tokens[i + 1].k !== k) classes.push('last');
    if (token.isControl) classes.push('control');
    const node = el('span', { 'data-at': i, tabindex: i === 0 ? 0 : -1 });
    const shade = this.shade(token);
    if (shade) {
      classes.push('shaded');
      node.style.setProperty('--shade', shade[0]);
      node.style.setProperty('--strength', `${(100 * shade[1]).toFixed(1)}%`);
    }
    node.className = classes.join(' ');
    (token.isControl ? token.text.replace(/^<(.*)>$/, '⟨$1⟩') : token.text).split('\n').forEach((line, part) => {
      if (part) node.append(el('span', { class: 'newline', 'aria-hidden': 'true' }, '↵'), '\n');
      node.append(line);
    });
    return node;
  }

  // Colour and strength 0..1 in the modes that show figures.
  shade({ logprob, advantage }) {
    if (this.mode === 'log-prob' && isNumber(logprob)) return ['var(--series-3)', 0.5 * (1 - Math.exp(logprob))];
    if (this.mode === 'advantage' && isNumber(advantage)) return [advantage < 0 ? 'var(--bad)' : 'var(--good)', (0.4 * Math.abs(advantage)) / this.strongest];
    return null;
  }

  point(event) {
    const node = event.target.closest('.t');
    if (!node) return;
    const token = this.tokens[Number(node.dataset.at)];
    const box = node.getClientRects()[0] || node.getBoundingClientRect();
    const pairs = [
      ['position', `${token.i} of ${this.tokens.length}`],
      ['id', String(token.id)],
      ['origin', PART_LABELS[token.k]],
    ];
    if (token.isControl) pairs.push(['kind', 'control token']);
    if (isNumber(token.logprob)) pairs.push(['log-prob', format(token.logprob)], ['probability', format(Math.exp(token.logprob))]);
    if (isNumber(token.advantage)) pairs.push(['advantage', format(token.advantage)]);
    showTip(box.left - 16, box.bottom - 8,
      el('div', { class: 'tip-head' }, el('code', null, visibleText(token.text))), termList(pairs));
  }

  key(event) {
    const token = event.target.closest('.t');
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (token && event.key === 'Escape') token.blur();
    if (!token || !move) return;
    const next = this.node.querySelector(`[data-at="${Number(token.dataset.at) + move}"]`);
    if (next) {
      token.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // The first token of each call, for the key that jumps to the next one.
  callNodes() {
    return this.tokens.filter(({ i, k }) => k === 'c' && (!this.tokens[i - 1] || this.tokens[i - 1].k !== 'c'))
      .map(({ i }) => this.node.querySelector(`[data-at="${i}"]`));
  }
}

const SCALES = {
  'log-prob': ['certain', 'surprising', 'var(--surface)', 'color-mix(in srgb, var(--series-3) 25%, var(--surface))', 'color-mix(in srgb, var(--series-3) 50%, var(--surface))'],
  advantage: ['negative', 'positive', 'color-mix(in srgb, var(--bad) 40%, var(--surface))', 'var(--surface)', 'color-mix(in srgb, var(--good) 40%, var(--surface))'],
};

function tokenLegend(body, mode) {
  if (SCALES[mode]) {
    const [low, high, from, middle, to] = SCALES[mode];
    return el('span', { class: 'scale' }, low, el('i', { '--from': from, '--middle': middle, '--to': to }), high);
  }
  const letters = Object.keys(PART_NAMES).filter((letter) => body.parts.some(({ k }) => k === letter));
  return el('div', { class: 'origins' }, letters.map((letter) => {
    const known = body.parts.filter(({ k }) => k === letter).map(({ n }) => n);
    return el('span', null, el('i', { class: `key ${PART_NAMES[letter]}` }), PART_LABELS[letter],
      known.every(isNumber) ? el('b', null, count(sum(known))) : null);
  }));
}
