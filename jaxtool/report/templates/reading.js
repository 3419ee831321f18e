// One answer as text: question, answer given beside the reference, figures, time line, and the parts with calls folded.

const PART_NAMES = { p: 'prompt', a: 'policy', c: 'code', t: 'tool' };
const PART_LABELS = { p: 'prompt', a: 'policy', c: 'policy: call', t: 'tool' };
const LONG = 4000; // characters of a part that are shown at once
const HEAD = 1600;
const TAIL = 800;

const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;
const count = (number) => number.toLocaleString('en-US');
const chip = (term, value, kind, means) => el('span', { class: `chip ${kind || ''}`, title: means }, term, ' ', el('b', null, value));
const firstLine = (text) => (text.trim().split('\n')[0] || '').slice(0, 200);

function verdict(row) {
  const [kind, sign, label] = row.lost ? ['lost', '○', 'lost to the infrastructure'] : row.right ? ['right', '✓', 'right'] : ['wrong', '✗', 'wrong'];
  return el('span', { class: `verdict ${kind}`, title: label }, sign);
}

// Text with matches marked and control tokens as ⟨marks⟩; the same characters as text are plain.
function textNodes(text, query, marks = []) {
  const nodes = [];
  const plain = (piece) => pieces(piece, query).forEach(([found, isMatch]) => nodes.push(isMatch ? el('mark', null, found) : found));
  let at = 0;
  for (const [start, length] of marks) {
    plain(text.slice(at, start));
    nodes.push(el('span', { class: 'control' }, text.slice(start, start + length).replace(/^<(.*)>$/, '⟨$1⟩')));
    at = start + length;
  }
  plain(text.slice(at));
  return nodes;
}

// A part's text; of a long one its beginning and end, until it is unfolded or a match stands in between.
function partText(part, query) {
  const node = el('div', { class: `part ${PART_NAMES[part.k]}` });
  if (!part.x) { // control tokens that a record does not spell
    node.append(el('span', { class: 'muted' }, isNumber(part.n) ? `(${plural(part.n, 'token')} without text)` : '(no text)'));
    return node;
  }
  const whole = () => node.replaceChildren(...textNodes(part.x, query, part.m));
  const holdsMatch = query && part.x.toLowerCase().includes(query.toLowerCase());
  if (part.x.length <= LONG || holdsMatch) { whole(); return node; }
  const within = (low, high) => (part.m || []).filter(([start, length]) => start >= low && start + length <= high).map(([start, length]) => [start - low, length]);
  const last = part.x.length - TAIL;
  node.replaceChildren(
    ...textNodes(part.x.slice(0, HEAD), query, within(0, HEAD)),
    el('button', { class: 'unfold', type: 'button', onclick: whole }, `… ${count(last - HEAD)} more characters: show them`),
    ...textNodes(part.x.slice(last), query, within(last, part.x.length)));
  return node;
}

function callNode({ call: number, parts }, call, longest, query) {
  const code = parts.filter(({ k }) => k === 'c').map(({ x }) => x).join('');
  const output = parts.filter(({ k }) => k === 't').map(({ x }) => x).join('');
  const isMatch = query && parts.some(({ x }) => x.toLowerCase().includes(query.toLowerCase()));
  const label = call.status === 'ok' ? 'ok' : call.error || call.status;
  const notes = [
    call.queue_ms ? `waited ${seconds(call.queue_ms)} for a place` : '', call.cpu_ms ? `${seconds(call.cpu_ms)} of CPU` : '',
    call.is_truncated ? 'output cut' : '', call.note || '',
  ].filter(Boolean).join(' · ');
  return el('details', { class: `call ${call.status === 'ok' ? '' : 'failed'}`, open: Boolean(isMatch), 'data-call': number },
    el('summary', null,
      el('span', { class: 'call-name' }, `call ${number + 1}`, call.tool ? ` · ${call.tool}` : ''),
      el('span', { class: `status ${call.status === 'ok' ? 'right' : 'wrong'}` }, label),
      el('span', { class: 'call-time' }, latencyBar(call.ms, longest), seconds(call.ms)),
      el('span', { class: 'call-line' }, el('code', null, firstLine(code)), output ? el('span', { class: 'muted' }, ` → ${firstLine(output.replace(/<[^>\n]*>/g, ' '))}`) : null)),
    notes ? el('p', { class: 'note' }, notes) : null,
    parts.map((part) => partText(part, query)));
}

function partNodes(body, query) {
  const longest = Math.max(0, ...body.calls.map(({ ms }) => ms));
  return sections(body.parts).map((section) => {
    if (section.call >= 0) return callNode(section, body.calls[section.call], longest, query);
    const [part] = section.parts;
    if (part.k !== 'p') return partText(part, query);
    return el('details', { class: 'fold' }, el('summary', null, `prompt · ${plural(part.n, 'token')}`), partText(part, query));
  });
}

// What was given beside what was wanted.
function answers(row, body) {
  const given = body && body.given !== undefined ? body.given : row.given;
  const known = isKnown(given) || Boolean(body && body.how);
  return el('div', { class: 'answers' },
    el('div', null, el('span', { class: 'term' }, 'Answer given'), el('code', { class: row.right ? 'good' : row.lost ? '' : 'bad' }, isKnown(given) ? given : known ? '(none)' : '(not recorded)'),
      body && body.how ? el('span', { class: 'muted how' }, `judged: ${body.how}`) : null),
    el('div', null, el('span', { class: 'term' }, row.references.length > 1 ? `Reference, one of ${row.references.length}` : 'Reference'),
      el('code', null, row.references.join('  |  '))));
}

// True labels: what a row has no value of is not shown, so answers of a test claim no reward, step or advantage.
function chips(row, isBrief) {
  return el('div', { class: 'chips' },
    row.lost ? el('span', { class: 'chip lost', title: 'The infrastructure failed. It was never scored and nothing is learned from it.' }, '○ masked: lost to the infrastructure')
      : el('span', { class: `chip ${row.right ? 'right' : 'wrong'}` }, row.right ? '✓ right' : '✗ wrong'),
    isNumber(row.reward) ? chip('reward', format(row.reward), '', 'What the learner got.') : null,
    isNumber(row.advantage) ? chip('advantage', format(row.advantage), '', 'How much better than expected: mean over the policy’s tokens.') : null,
    isNumber(row.coefficient) && isNumber(row.reward) ? chip('r_tool', format(row.coefficient), '', 'OTC’s coefficient: 1 means that no call was superfluous.') : null,
    chip('calls', String(row.calls), '', 'Calls that got an output.'),
    row.failed ? chip('failed', String(row.failed), 'failed', 'Calls that ended in an error or at a limit.') : null,
    row.invalid ? chip('invalid', String(row.invalid), 'failed', 'Calls that could not be made.') : null,
    row.unexecuted ? chip('not run', String(row.unexecuted), 'failed', 'Calls behind the limit of calls.') : null,
    chip('tokens', `${count(row.tokens)} = ${count(row.policy_tokens)} policy + ${count(row.tool_tokens)} tool`, '', 'Tokens of the response.'),
    isNumber(row.ms) ? chip('time', seconds(row.ms), '', 'From leaving the queue to the judge’s verdict.') : null,
    row.finish ? chip('ended by', row.finish, CUT_OFF.includes(row.finish) ? 'failed' : '') : null,
    isBrief ? null : [
      row.variant ? chip('policy', row.variant) : null,
      row.condition ? chip('condition', row.condition) : null,
      row.level ? chip('level', row.level) : null,
      isNumber(row.step) ? chip('step', String(row.step)) : null,
    ]);
}

const bodySpans = (row, body) => (body && body.spans ? body.spans.map(([kind, start, stop]) => ({ kind, start, stop })) : spansOf(row.spans));

// A column of the group view or of two policies side by side.
function columnNode(row, body, whole, query, onOpen) {
  return el('article', { class: 'card column' },
    el('header', null, el('button', { class: 'link', type: 'button', onclick: onOpen }, `${sourceOf(row)} · sample ${row.sample}`)),
    answers(row, body), chips(row, true), timeline(bodySpans(row, body), whole),
    el('div', { class: 'text' }, body ? partNodes(body, query).filter((node) => !node.classList.contains('fold')) : el('p', { class: 'muted' }, 'loading …')));
}
