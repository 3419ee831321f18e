// The trajectory viewer: filters, list, and one trajectory with its tokens.

const ORIGINS = { p: 'prompt', a: 'policy', c: 'code', t: 'tool' };
const ORIGIN_LABELS = { prompt: 'prompt', policy: 'policy', code: 'policy: call', tool: 'tool' };
const MAX_LISTED = 200;
const NO_LEVEL = '(no level)';

const FILTERS = [
  { key: 'variant', label: 'Variant', of: (view) => view.variant },
  { key: 'level', label: 'Level', of: (view) => view.level || NO_LEVEL },
  { key: 'step', label: 'Step', of: (view) => stepOf(view) },
  { key: 'outcome', label: 'Outcome', of: (view) => (view.is_correct ? 'correct' : 'wrong') },
  { key: 'calls', label: 'Tool calls', of: (view) => view.tool_calls.length },
  { key: 'tools', label: 'Tools', of: (view) => toolsOf(view).join(' + ') || 'none', needed: (views) => new Set(views.flatMap(toolsOf)).size > 1 },
];

// Names of the tools that a trajectory called, each once; logs of earlier versions name none.
const toolsOf = (view) => [...new Set(view.tool_calls.map((call) => call.tool).filter(Boolean))].sort();
const stepOf = (view) => (isNumber(view.step) ? view.step : 'finished policy');
const compare = (a, b) => (isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), 'en', { numeric: true }));
const verdict = (view) => el('span', { class: `verdict ${view.is_correct ? 'right' : 'wrong'}`, title: view.is_correct ? 'correct' : 'wrong' }, view.is_correct ? '✓' : '✗');
const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;
// Spaces and control characters are shown, so that no token is invisible.
const visibleText = (text) => (text === '' ? '∅' : JSON.stringify(text).slice(1, -1)
  .replaceAll('\\"', '"').replaceAll('\\\\', '\\').replaceAll(' ', '␣'));

class Viewer {
  constructor(views) {
    this.views = views;
    this.shown = views;
    this.at = 0;
    this.mode = 'origin';
    this.chosen = {};
    this.list = el('div', { class: 'card list', role: 'group', 'aria-label': 'Trajectories' });
    this.detail = el('div', { class: 'card detail' });
    this.node = el('div', null, this.filters(), el('div', { class: 'viewer' }, this.list, this.detail));
    document.addEventListener('keydown', (event) => this.key(event));
    this.apply();
  }

  filters() {
    const selects = FILTERS.map((filter) => {
      const values = [...new Set(this.views.map(filter.of))].sort(compare);
      if (values.length < 2 || (filter.needed && !filter.needed(this.views))) return null;
      const options = values.map((value) => el('option', { value: String(value) }, String(value)));
      return el('label', null, filter.label, el('select', {
        'data-filter': filter.key,
        onchange: (event) => { this.chosen[filter.key] = event.target.value; this.apply(); },
      }, el('option', { value: '' }, 'all'), options));
    });
    this.count = el('span', { class: 'muted count', 'aria-live': 'polite' });
    return el('div', { class: 'filters' }, selects, this.count);
  }

  apply() {
    this.shown = this.views.filter((view) => FILTERS.every((filter) => (
      !this.chosen[filter.key] || String(filter.of(view)) === this.chosen[filter.key])));
    this.count.textContent = `${this.shown.length} of ${this.views.length} ${this.views.length === 1 ? 'trajectory' : 'trajectories'}`;
    this.select(0);
  }

  select(index) {
    this.at = clamp(index, 0, Math.max(0, this.shown.length - 1));
    this.drawList();
    this.drawDetail();
  }

  drawList() {
    const start = clamp(this.at - MAX_LISTED / 2, 0, Math.max(0, this.shown.length - MAX_LISTED));
    const stop = Math.min(start + MAX_LISTED, this.shown.length);
    const items = this.shown.slice(start, stop).map((view, i) => el('button', {
      class: 'item',
      type: 'button',
      'aria-current': start + i === this.at ? 'true' : null,
      onclick: () => this.select(start + i),
    },
    verdict(view),
    el('span', { class: 'name' }, view.problem_id),
    el('span', { class: 'reward' }, format(view.reward)),
    el('span', { class: 'sub' }, [view.variant, view.level, isNumber(view.step) ? `step ${view.step}` : '', plural(view.tool_calls.length, 'call')].filter(Boolean).join(' · '))));
    this.list.replaceChildren(...[
      start > 0 ? el('div', { class: 'more' }, `${start} before`) : null,
      ...items,
      stop < this.shown.length ? el('div', { class: 'more' }, `${this.shown.length - stop} after`) : null,
    ].filter(Boolean));
    const current = this.list.querySelector('[aria-current]');
    if (current) {
      const offset = current.offsetTop - this.list.offsetTop;
      const isOutside = offset < this.list.scrollTop || offset + current.offsetHeight > this.list.scrollTop + this.list.clientHeight;
      if (isOutside) this.list.scrollTop = offset - this.list.clientHeight / 2;
    }
  }

  drawDetail() {
    hideTip();
    const view = this.shown[this.at];
    if (!view) {
      this.detail.replaceChildren(el('p', { class: 'empty-list' }, 'No trajectory passes these filters.'));
      return;
    }
    this.tokens = el('div', {
      class: `tokens ${this.mode === 'origin' ? '' : 'mode-figures'}`,
      role: 'group',
      'aria-label': 'Tokens; move with the arrow keys',
      onpointerover: (event) => this.point(event),
      onpointerleave: hideTip,
      onfocusin: (event) => this.point(event),
      onfocusout: hideTip,
    }, this.tokenNodes(view));
    this.detail.replaceChildren(this.bar(view), this.facts(view), this.reading(view), this.tokens);
  }

  bar(view) {
    return el('div', { class: 'bar' },
      el('span', { class: 'where' }, el('b', null, `${this.at + 1}`), ` of ${this.shown.length}  ·  ${view.problem_id}  ·  sample ${view.sample}`),
      el('button', { class: 'button', type: 'button', disabled: this.at === 0, 'data-move': 'previous', onclick: () => this.select(this.at - 1) }, '← Previous', el('kbd', null, 'k')),
      el('button', { class: 'button', type: 'button', disabled: this.at >= this.shown.length - 1, 'data-move': 'next', onclick: () => this.select(this.at + 1) }, 'Next →', el('kbd', null, 'j')));
  }

  facts(view) {
    const chip = (term, value, kind) => el('span', { class: `chip ${kind || ''}` }, term, ' ', el('b', null, value));
    const calls = view.tool_calls.map((call, i) => chip(`call ${i + 1}`,
      [call.tool, call.error_type || call.status, call.wall_ms ? `${format(call.wall_ms)} ms` : ''].filter(Boolean).join(' · '),
      call.status === 'ok' ? '' : 'failed'));
    return el('div', { class: 'facts' },
      el('p', { class: 'question' }, view.question),
      el('p', { class: 'answer' }, 'Reference answer ', el('code', null, view.reference_answer)),
      el('div', { class: 'chips' },
        el('span', { class: `chip ${view.is_correct ? 'right' : 'wrong'}` }, view.is_correct ? '✓ correct' : '✗ wrong'),
        chip('reward', format(view.reward)),
        isNumber(view.advantage) ? chip('advantage', format(view.advantage)) : null,
        chip('r_tool', format(view.tool_coefficient)),
        chip('calls', String(view.tool_calls.length)),
        view.finish_reason ? chip('ended by', view.finish_reason) : null,
        view.variant ? chip('variant', view.variant) : null,
        view.level ? chip('level', view.level) : null,
        isNumber(view.step) ? chip('step', String(view.step)) : null,
        calls));
  }

  reading(view) {
    const counts = {};
    for (const letter of view.tokens.origin) counts[ORIGINS[letter]] = (counts[ORIGINS[letter]] || 0) + 1;
    const legend = Object.keys(ORIGIN_LABELS).filter((origin) => counts[origin]).map((origin) => el('span', null,
      el('i', origin === 'prompt' ? { '--fill': 'transparent', '--edge': 'var(--line-2)' } : { '--fill': `var(--${origin})`, '--edge': `var(--${origin}-edge)` }),
      ORIGIN_LABELS[origin], el('b', null, String(counts[origin]))));
    const scales = {
      'log-prob': ['certain', 'surprising', 'var(--surface)', 'color-mix(in srgb, var(--series-3) 40%, var(--surface))', 'var(--series-3)'],
      advantage: ['negative', 'positive', 'var(--bad)', 'var(--surface)', 'var(--good)'],
    };
    const [low, high, from, middle, to] = scales[this.mode] || [];
    return el('div', { class: 'reading' },
      this.mode === 'origin' ? el('div', { class: 'origins' }, legend)
        : el('span', { class: 'scale' }, low, el('i', { '--from': from, '--middle': middle, '--to': to }), high),
      el('div', { class: 'modes', role: 'group', 'aria-label': 'Colour tokens by' }, ['origin', ...Object.keys(scales)].map((mode) => el('button', {
        type: 'button',
        'aria-pressed': String(this.mode === mode),
        'data-mode': mode,
        onclick: () => {
          this.mode = mode;
          this.drawDetail();
          this.detail.querySelector(`[data-mode="${mode}"]`).focus();
        },
      }, mode))));
  }

  tokenNodes({ tokens }) {
    const control = new Set(tokens.control);
    const strongest = Math.max(1e-9, ...tokens.advantage.map((value) => Math.abs(value || 0)));
    return tokens.text.map((text, i) => {
      const letter = tokens.origin[i];
      const classes = ['t', ORIGINS[letter]];
      if (tokens.origin[i - 1] !== letter) classes.push('first');
      if (tokens.origin[i + 1] !== letter) classes.push('last');
      if (control.has(i)) classes.push('control');
      const node = el('span', { 'data-at': i, tabindex: i === 0 ? 0 : -1 });
      const shade = this.shade(tokens, i, strongest);
      if (shade) {
        classes.push('shaded');
        node.style.setProperty('--shade', shade[0]);
        node.style.setProperty('--strength', `${(100 * shade[1]).toFixed(1)}%`);
      }
      node.className = classes.join(' ');
      // A control token is one mark: ⟨|im_end|⟩. The same characters as text are plain.
      (control.has(i) ? text.replace(/^<(.*)>$/, '⟨$1⟩') : text).split('\n').forEach((line, part) => {
        if (part) node.append(el('span', { class: 'newline', 'aria-hidden': 'true' }, '↵'), '\n');
        node.append(line);
      });
      return node;
    });
  }

  // Colour and strength 0..1 of a token in the modes that show figures.
  shade(tokens, i, strongest) {
    if (this.mode === 'log-prob' && isNumber(tokens.logprob[i])) {
      return ['var(--series-3)', 0.85 * (1 - Math.exp(tokens.logprob[i]))];
    }
    if (this.mode === 'advantage' && isNumber(tokens.advantage[i])) {
      const value = tokens.advantage[i];
      return [value < 0 ? 'var(--bad)' : 'var(--good)', (0.5 * Math.abs(value)) / strongest];
    }
    return null;
  }

  point(event) {
    const node = event.target.closest('.t');
    if (!node) return;
    const i = Number(node.dataset.at);
    const { tokens } = this.shown[this.at];
    const logprob = tokens.logprob[i];
    const box = node.getClientRects()[0] || node.getBoundingClientRect();
    const pairs = [
      ['position', `${i} of ${tokens.text.length}`],
      ['id', String(tokens.id[i])],
      ['origin', ORIGIN_LABELS[ORIGINS[tokens.origin[i]]]],
    ];
    if (tokens.control.includes(i)) pairs.push(['kind', 'control token']);
    if (isNumber(logprob)) pairs.push(['log-prob', format(logprob)], ['probability', format(Math.exp(logprob))]);
    if (isNumber(tokens.advantage[i])) pairs.push(['advantage', format(tokens.advantage[i])]);
    showTip(box.left - 16, box.bottom - 8,
      el('div', { class: 'tip-head' }, el('code', null, visibleText(tokens.text[i]))), termList(pairs));
  }

  key(event) {
    const isTyping = event.target.closest && event.target.closest('input, select, textarea');
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const token = event.target.closest && event.target.closest('.t');
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (token && event.key in moves) {
      const next = this.tokens.children[Number(token.dataset.at) + moves[event.key]];
      if (next) {
        token.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
      event.preventDefault();
    } else if (token && event.key === 'Escape') {
      token.blur();
    } else if (['j', 'k'].includes(event.key) || event.key in moves) {
      this.select(this.at + (moves[event.key] || (event.key === 'j' ? 1 : -1)));
      event.preventDefault();
    }
  }
}
