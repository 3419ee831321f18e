// Two answers to one question side by side: one pair at a time, chosen by a list, arrows and keys of the buttons.

function answerColumn({ name, is_correct: isRight, final_answer: final, facts, parts }) {
  const index = variantColors.get(name);
  return el('div', { class: 'pair-answer' },
    el('h4', null, index === undefined ? null : el('span', { class: 'dot', '--dot': seriesColor(index) }), name),
    el('div', { class: 'chips' },
      el('span', { class: `chip ${isRight ? 'right' : 'wrong'}` }, isRight ? '✓ correct' : '✗ wrong'),
      el('span', { class: 'chip' }, 'answer ', el('b', null, final === null ? 'none' : final)),
      facts.map((fact) => el('span', { class: 'chip' }, fact))),
    el('div', { class: 'pair-text' }, parts.map(([author, text]) => el('span', { class: author, title: author }, text))));
}

class Pairs {
  constructor(pairs) {
    this.pairs = pairs;
    this.at = 0;
    this.body = el('div', { class: 'pair' });
    this.count = el('span', { class: 'muted count', 'aria-live': 'polite' });
    this.choice = el('select', { 'aria-label': 'Question', onchange: (event) => this.show(Number(event.target.value)) },
      pairs.map(({ title }, i) => el('option', { value: i }, title)));
    this.back = el('button', { class: 'button', type: 'button', onclick: () => this.show(this.at - 1) }, '← Previous');
    this.next = el('button', { class: 'button', type: 'button', onclick: () => this.show(this.at + 1) }, 'Next →');
    this.node = el('div', { class: 'card pairs' }, el('div', { class: 'filters' }, this.choice, this.back, this.next, this.count), this.body);
    this.show(0);
  }

  show(index) {
    this.at = clamp(index, 0, this.pairs.length - 1);
    const { question, references, left, right } = this.pairs[this.at];
    this.choice.value = String(this.at);
    this.count.textContent = `${this.at + 1} of ${this.pairs.length}`;
    this.back.disabled = this.at === 0;
    this.next.disabled = this.at === this.pairs.length - 1;
    this.body.replaceChildren(
      el('p', { class: 'question' }, question),
      el('p', { class: 'answer' }, 'Reference answer ', el('code', null, references.join(' or '))),
      el('div', { class: 'pair-columns' }, answerColumn(left), answerColumn(right)));
  }
}
