// The list of answers. Only what is on the screen has elements, so that 10,000 answers scroll as 100 do.

const ITEM_HEIGHT = 92;
const SPARE = 6; // items above and below what is seen

class AnswerList {
  constructor(onSelect) {
    this.onSelect = onSelect;
    this.rows = [];
    this.told = []; // what answers differ in: what is the same for all is not said
    this.at = 0;
    this.whole = 0; // milliseconds of the longest time line
    this.space = el('div', { class: 'list-space' });
    this.node = el('div', { class: 'card list', role: 'listbox', 'aria-label': 'Answers', tabindex: 0, onscroll: () => this.draw() }, this.space);
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  show(rows, at) {
    this.rows = rows;
    this.whole = rows.reduce((most, { ms }) => Math.max(most, ms || 0), 0);
    this.space.style.height = `${rows.length * ITEM_HEIGHT}px`;
    this.select(at);
  }

  select(at) {
    this.at = at;
    const top = at * ITEM_HEIGHT;
    const { scrollTop, clientHeight } = this.node;
    if (top < scrollTop || top + ITEM_HEIGHT > scrollTop + clientHeight) this.node.scrollTop = Math.max(0, top - clientHeight / 2);
    this.draw();
  }

  draw() {
    const first = clamp(Math.floor(this.node.scrollTop / ITEM_HEIGHT) - SPARE, 0, this.rows.length);
    const last = Math.min(this.rows.length, Math.ceil((this.node.scrollTop + this.node.clientHeight) / ITEM_HEIGHT) + SPARE);
    this.space.replaceChildren(...this.rows.slice(first, last).map((row, i) => this.item(row, first + i)));
  }

  item(row, place) {
    const given = row.lost ? 'lost' : isKnown(row.given) ? row.given : '(none)';
    const source = this.told.filter((name) => isKnown(row[name])).map((name) => (name === 'step' ? `step ${row.step}` : row[name]));
    const facts = [plural(row.calls, 'call'), plural(row.tokens, 'token'), ...source].join(' · ');
    return el('button', {
      class: 'item',
      type: 'button',
      role: 'option',
      tabindex: -1,
      'aria-selected': String(place === this.at),
      '--top': `${place * ITEM_HEIGHT}px`,
      '--item': `${ITEM_HEIGHT}px`,
      onclick: () => this.onSelect(place),
    },
    verdict(row),
    el('span', { class: 'name', title: row.text }, row.text.trim() || row.problem),
    el('span', { class: 'reward' }, isNumber(row.reward) ? format(row.reward) : ''),
    el('span', { class: 'sub' }, el('code', null, given), ' · reference ', el('code', null, row.references[0])),
    el('span', { class: 'sub' }, facts),
    el('span', { class: 'sub' }, timeline(spansOf(row.spans), this.whole)));
  }
}
