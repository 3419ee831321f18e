// The viewer: search, filters, sorting, list, and one answer, its group, or two policies side by side.

const KEYS = [
  ['j / k', 'next, previous answer'], ['n / N', 'next, previous call'], ['m', 'next match of the search'], ['g', 'all answers of this policy to the question, side by side'],
  ['b', 'beside it the answer of another policy, step or condition'], ['t', 'text, tokens, log-prob, advantage'], ['/', 'search'], ['?', 'these keys'], ['Esc', 'back'],
];
const MAX_COLUMNS = 64;
const WAIT_MS = 200; // after the last letter of a search

class Viewer {
  constructor(index) {
    this.chunks = new Chunks(index);
    this.rows = rowsOf(index);
    this.limits = { many: manyCalls(this.rows) };
    Object.assign(this, { shown: this.rows, at: 0, mode: 'text', view: 'one', source: '', chosen: {}, flags: [], sort: 'order', isDescending: false });
    Object.assign(this, { query: '', scope: 'all', hits: null, turn: 0, searching: 0 });
    this.list = new AnswerList((place) => this.select(place));
    this.list.told = ['variant', 'condition', 'step', 'level'].filter((name) => new Set(this.rows.map((row) => row[name])).size > 1);
    this.detail = el('div', { class: 'card detail', 'aria-live': 'off' });
    this.help = el('dialog', { class: 'card keys' }, el('h3', null, 'Keys'), termList(KEYS));
    this.node = el('div', null, this.controls(), el('div', { class: 'viewer' }, this.list.node, this.detail), this.help);
    document.addEventListener('keydown', (event) => this.key(event));
    window.addEventListener('hashchange', () => this.follow());
    window.addEventListener('beforeprint', () => this.detail.querySelectorAll('details').forEach((node) => { node.open = true; }));
    this.apply();
    this.follow();
  }

  // --- What is shown -------------------------------------------------------------------------------------------------

  controls() {
    this.count = el('span', { class: 'muted count', 'aria-live': 'polite' });
    this.search = el('input', {
      type: 'text', role: 'searchbox', class: 'search', placeholder: 'Search text and code  /', 'aria-label': 'Search text and code', oninput: () => this.find(),
    });
    const scope = el('select', { 'aria-label': 'Where to search', onchange: (event) => { this.scope = event.target.value; this.find(); } },
      Object.entries(SCOPES).map(([key, [label]]) => el('option', { value: key }, label)));
    const sort = el('select', { 'data-sort': '', onchange: (event) => { this.sort = event.target.value; this.apply(); } },
      SORTS.filter(([key]) => key === 'order' || new Set(this.rows.map((row) => row[key])).size > 1).map(([key, label]) => el('option', { value: key }, label)));
    const turn = el('button', {
      class: 'button icon', type: 'button', title: 'smallest or largest first', 'aria-label': 'Largest first', 'aria-pressed': 'false',
      onclick: (event) => {
        this.isDescending = !this.isDescending;
        event.currentTarget.setAttribute('aria-pressed', String(this.isDescending));
        event.currentTarget.textContent = this.isDescending ? '↓' : '↑';
        this.apply();
      },
    }, '↑');
    const flags = FLAGS.map((flag) => [flag, this.rows.filter((row) => flag.of(row, this.limits)).length]).filter(([, many]) => many)
      .map(([flag, many]) => el('button', {
        class: 'flag', type: 'button', title: flag.means, 'data-flag': flag.key, 'aria-pressed': 'false',
        onclick: (event) => this.toggle(flag.key, event.currentTarget),
      }, flag.label, ' ', el('b', null, count(many))));
    return el('div', { class: 'controls' },
      el('div', { class: 'filters' }, el('label', { class: 'wide' }, 'Search', el('span', { class: 'joined' }, this.search, scope)),
        el('label', null, 'Sort by', el('span', { class: 'joined' }, sort, turn)), this.selects()),
      el('div', { class: 'flags', role: 'group', 'aria-label': 'Filters' }, flags, this.count));
  }

  selects() {
    return SELECTS.map((select) => {
      const values = [...new Set(this.rows.map(select.of))].sort(compare);
      if (values.length < 2) return null;
      return el('label', null, select.label, el('select', {
        'data-filter': select.key, onchange: (event) => { this.chosen[select.key] = event.target.value; this.apply(); },
      }, el('option', { value: '' }, 'all'), values.map((value) => el('option', { value: String(value) }, String(value)))));
    });
  }

  toggle(key, button) {
    this.flags = this.flags.includes(key) ? this.flags.filter((other) => other !== key) : [...this.flags, key];
    button.setAttribute('aria-pressed', String(this.flags.includes(key)));
    this.apply();
  }

  apply() {
    const current = this.shown[this.at];
    this.shown = sortedRows(filteredRows(this.rows, this), this.sort, this.isDescending);
    const noun = this.rows.length === 1 ? 'answer' : 'answers';
    this.count.textContent = `${count(this.shown.length)} of ${count(this.rows.length)} ${noun}${this.progress || ''}`;
    this.at = Math.max(0, this.shown.indexOf(current));
    this.list.show(this.shown, this.at);
    if (this.shown[this.at] !== current || !this.drawn) this.draw();
  }

  // Looks through all texts, chunk by chunk; what is found is shown as it comes.
  find() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.findNow(), WAIT_MS);
  }

  async findNow() {
    this.query = this.search.value.trim();
    this.searching += 1;
    const mine = this.searching;
    this.progress = '';
    this.hits = this.query ? new Set() : null;
    this.drawn = false;
    if (!this.query) { this.apply(); return; }
    const letters = SCOPES[this.scope][1];
    const names = letters ? this.chunks.names.texts : [];
    const look = (rows, bodies) => rows.forEach((row) => { if (holds(row, bodies && bodies[row.body[1]], this.query, this.scope)) this.hits.add(row.i); });
    if (!letters) look(this.rows, null);
    const byChunk = names.map(() => []);
    if (letters) this.rows.forEach((row) => byChunk[row.body[0]].push(row));
    for (let k = 0; k < names.length; k += 1) {
      let bodies;
      try { bodies = await this.chunks.load(names[k]); } catch (error) { this.fail(error); return; }
      if (mine !== this.searching) return;
      look(byChunk[k], bodies);
      this.progress = k + 1 < names.length ? ` · searched ${k + 1} of ${names.length} chunks` : '';
      if (k + 1 === names.length || k % 8 === 0) this.apply();
    }
    if (!names.length) this.apply();
  }

  // --- One answer ----------------------------------------------------------------------------------------------------

  select(place) {
    this.at = clamp(place, 0, Math.max(0, this.shown.length - 1));
    this.list.select(this.at);
    const row = this.shown[this.at];
    if (row) history.replaceState(null, '', linkOf(row));
    this.draw();
  }

  // Goes to the answer that the address names, whatever is filtered.
  follow() {
    const row = location.hash.startsWith('#a=') ? rowOfLink(this.rows, location.hash) : null;
    if (!row) return;
    if (!this.shown.includes(row)) this.clear();
    this.select(this.shown.indexOf(row));
    this.node.scrollIntoView();
  }

  clear() {
    Object.assign(this, { chosen: {}, flags: [], query: '', hits: null });
    this.search.value = '';
    this.node.querySelectorAll('select[data-filter]').forEach((node) => { node.value = ''; });
    this.node.querySelectorAll('.flag').forEach((node) => node.setAttribute('aria-pressed', 'false'));
    this.apply();
  }

  async draw() {
    hideTip();
    this.drawn = true;
    this.turn += 1;
    const mine = this.turn;
    const row = this.shown[this.at];
    if (!row) {
      this.detail.replaceChildren(el('p', { class: 'empty-list' }, 'No answer passes these filters.'));
      return;
    }
    try {
      const body = await this.chunks.body(row);
      const figures = this.mode === 'text' ? null : await this.chunks.figures(row);
      if (mine !== this.turn) return;
      this.show(row, body, figures);
    } catch (error) { this.fail(error); }
  }

  fail(error) { this.detail.replaceChildren(el('p', { class: 'empty-list', role: 'alert' }, error.message)); }

  show(row, body, figures) {
    const others = otherSources(this.rows, row);
    if (this.view === 'two' && !others.length) this.view = 'one';
    if (!others.includes(this.source)) [this.source] = others;
    const head = [this.bar(row, others), el('div', { class: 'facts' }, el('p', { class: 'question' }, row.text))];
    Object.assign(this, { token: null, call: -1, match: -1 });
    if (this.view === 'group' || this.view === 'two') {
      const members = this.view === 'group' ? groupOf(this.rows, row).slice(0, MAX_COLUMNS) : [row, counterpart(this.rows, row, this.source)];
      this.detail.replaceChildren(...head, this.columns(members, this.view === 'group'));
      return;
    }
    const spans = bodySpans(row, body);
    const text = this.mode === 'text' || !figures;
    if (!text) this.token = new TokenView(body, figures, this.mode);
    head[1].append(answers(row, body), chips(row));
    this.detail.replaceChildren(...head,
      spans.length ? el('div', { class: 'times' }, timeline(spans, row.ms), timelineLegend()) : '',
      el('div', { class: 'reading' }, tokenLegend(body, this.mode), row.figures[0] < 0 ? null : this.modes()),
      text ? el('div', { class: 'text' }, partNodes(body, this.query)) : this.token.node);
    if (this.query) this.jump('mark', 1);
  }

  bar(row, others) {
    const view = (name, label, key) => el('button', {
      class: 'button', type: 'button', 'data-view': name, 'aria-pressed': String(this.view === name), onclick: () => this.look(name),
    }, label, el('kbd', null, key));
    return el('div', { class: 'bar' },
      el('span', { class: 'where' }, el('b', null, count(this.at + 1)), ` of ${count(this.shown.length)}  ·  `, el('a', { href: linkOf(row), title: 'a link to this answer' }, `${row.problem} · sample ${row.sample}`)),
      groupOf(this.rows, row).length > 1 ? view('group', 'Group', 'g') : null,
      others.length ? view('two', 'Beside', 'b') : null,
      this.view === 'two' ? el('select', { 'aria-label': 'Beside which', onchange: (event) => { this.source = event.target.value; this.draw(); } },
        others.map((source) => el('option', { value: source, selected: source === this.source }, source))) : null,
      el('button', { class: 'button', type: 'button', disabled: this.at === 0, 'data-move': 'previous', 'aria-label': 'Previous answer', onclick: () => this.select(this.at - 1) }, '←', el('kbd', null, 'k')),
      el('button', { class: 'button', type: 'button', disabled: this.at >= this.shown.length - 1, 'data-move': 'next', 'aria-label': 'Next answer', onclick: () => this.select(this.at + 1) }, '→', el('kbd', null, 'j')));
  }

  modes() {
    return el('div', { class: 'modes', role: 'group', 'aria-label': 'Show' }, MODES.map((mode) => el('button', {
      type: 'button', 'aria-pressed': String(this.mode === mode), 'data-mode': mode, onclick: () => { this.mode = mode; this.draw(); },
    }, mode)));
  }

  // Columns of one question; each is filled when its chunk is there.
  columns(members, isGroup) {
    const whole = members.reduce((most, { ms }) => Math.max(most, ms || 0), 0);
    const open = (row) => { this.view = 'one'; if (!this.shown.includes(row)) this.clear(); this.select(this.shown.indexOf(row)); };
    const nodes = members.map((row) => columnNode(row, null, whole, this.query, () => open(row)));
    const mine = this.turn;
    members.forEach((row, i) => this.chunks.body(row).then((body) => {
      if (mine === this.turn) nodes[i].replaceWith(columnNode(row, body, whole, this.query, () => open(row)));
    }).catch((error) => this.fail(error)));
    return el('div', { class: `columns ${isGroup ? '' : 'two'}` }, nodes);
  }

  look(view) {
    this.view = this.view === view ? 'one' : view;
    this.draw();
  }

  // To the next call or match; a call opens, and the one that was opened so before closes.
  jump(kind, direction) {
    const nodes = kind === 'mark' ? [...this.detail.querySelectorAll('mark')] : this.token ? this.token.callNodes() : [...this.detail.querySelectorAll('.call')];
    if (!nodes.length) return;
    const name = kind === 'mark' ? 'match' : 'call';
    const before = this[name];
    this[name] = (Math.max(before, direction > 0 ? -1 : 0) + direction + nodes.length) % nodes.length;
    const node = nodes[this[name]];
    for (let parent = node; parent && parent !== this.detail; parent = parent.parentElement) if (parent.tagName === 'DETAILS') parent.open = true;
    if (kind === 'call' && !this.token) {
      if (nodes[before] && nodes[before] !== node) nodes[before].open = false;
      node.querySelector('summary').focus({ preventScroll: true });
    }
    this.detail.querySelectorAll('.here').forEach((other) => other.classList.remove('here'));
    node.classList.add('here');
    node.scrollIntoView({ block: 'center' });
  }

  key(event) {
    const isTyping = event.target.closest && event.target.closest('input, select, textarea');
    if (event.key === 'Escape') {
      if (isTyping) event.target.blur();
      else if (this.help.open) this.help.close();
      else if (this.view !== 'one') this.look(this.view);
      return;
    }
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const modes = this.shown[this.at] && this.shown[this.at].figures[0] >= 0 ? MODES : ['text'];
    const actions = {
      j: () => this.select(this.at + 1), k: () => this.select(this.at - 1), ArrowRight: () => this.select(this.at + 1), ArrowLeft: () => this.select(this.at - 1),
      n: () => this.jump('call', 1), N: () => this.jump('call', -1), m: () => this.jump('mark', 1), g: () => this.look('group'), b: () => this.look('two'),
      t: () => { this.mode = modes[(modes.indexOf(this.mode) + 1) % modes.length]; this.draw(); },
      '/': () => { this.search.focus(); this.search.select(); }, '?': () => (this.help.open ? this.help.close() : this.help.showModal()),
    };
    if (!actions[event.key]) return;
    actions[event.key]();
    event.preventDefault();
  }
}
