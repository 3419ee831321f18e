// Answers as rows: what they can be filtered and sorted by, who belongs together, what a search finds. No elements here.

const NO_LEVEL = '(no level)';
const isKnown = (value) => value !== null && value !== undefined && value !== '';
const sum = (values) => values.reduce((total, value) => total + value, 0);

// Objects from the columns of the page's index.
function rowsOf(index) {
  const names = Object.keys(index.columns);
  const rows = [];
  for (let i = 0; i < index.count; i += 1) {
    const row = { i };
    for (const name of names) row[name] = index.columns[name][i];
    const { id, text, references } = index.questions[row.question];
    row.problem = id;
    row.text = text;
    row.references = references;
    row.tokens = row.policy_tokens + row.tool_tokens;
    rows.push(row);
  }
  return rows;
}

// As many calls as the tenth of the answers with most of them, and one at least.
function manyCalls(rows) {
  const calls = rows.map((row) => row.calls).sort((a, b) => b - a);
  return Math.max(1, calls[Math.floor(0.1 * Math.max(0, calls.length - 1))] || 0);
}

const CUT_OFF = ['length', 'tool_limit'];
const FLAGS = [
  { key: 'right', label: 'right', means: 'The judge calls the answer right.', of: (row) => row.right },
  { key: 'wrong', label: 'wrong', means: 'The judge does not call the answer right. Lost answers are not among them.', of: (row) => !row.right && !row.lost },
  { key: 'empty', label: 'no answer', means: 'The judge found no answer to look at.', of: (row) => !row.lost && !isKnown(row.given) },
  { key: 'many', label: 'most calls', means: 'Among the tenth of the answers with most calls.', of: (row, limits) => row.calls >= limits.many },
  { key: 'failed', label: 'tool failed', means: 'A call ended in an error or at a limit.', of: (row) => row.failed > 0 },
  { key: 'cut', label: 'cut off', means: 'It ended at the token budget or at the limit of calls.', of: (row) => CUT_OFF.includes(row.finish) || row.unexecuted > 0 },
  { key: 'masked', label: 'masked', means: 'The infrastructure failed: never scored, in no figure, nothing is learned from it.', of: (row) => row.lost },
  { key: 'invalid', label: 'invalid call', means: 'A call could not be made: no JSON, no such tool, a missing argument.', of: (row) => row.invalid > 0 || row.finish === 'invalid_call' },
];

const SELECTS = [
  { key: 'variant', label: 'Policy', of: (row) => row.variant },
  { key: 'condition', label: 'Condition', of: (row) => row.condition },
  { key: 'level', label: 'Level', of: (row) => row.level || NO_LEVEL },
  { key: 'step', label: 'Step', of: (row) => (isKnown(row.step) ? row.step : 'finished policy') },
  { key: 'tools', label: 'Tools called', of: (row) => row.tools || 'none' },
  { key: 'finish', label: 'Ended by', of: (row) => row.finish || '(unknown)' },
];

const SORTS = [
  ['order', 'order of the file'], ['text', 'question'], ['variant', 'policy'], ['step', 'step'], ['level', 'level'],
  ['right', 'right'], ['reward', 'reward'], ['advantage', 'advantage'], ['coefficient', 'r_tool'], ['calls', 'calls'],
  ['failed', 'failed calls'], ['invalid', 'invalid calls'], ['unexecuted', 'calls not run'], ['tokens', 'tokens'],
  ['policy_tokens', 'tokens of the policy'], ['tool_tokens', 'tokens of tools'], ['prompt_tokens', 'tokens of the prompt'],
  ['ms', 'time'], ['tool_ms', 'time in tools'], ['given', 'answer given'], ['finish', 'ended by'], ['sample', 'sample'],
];

const alphabet = new Intl.Collator('en', { numeric: true }); // made once: it sorts 10,000 questions in a blink

function compare(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return alphabet.compare(String(a), String(b));
}

// Sorted copies; what a row has no value of comes last either way, and equal ones keep their order.
function sortedRows(rows, key, isDescending) {
  if (key === 'order') return isDescending ? [...rows].reverse() : [...rows];
  const value = (row) => (typeof row[key] === 'boolean' ? Number(row[key]) : row[key]);
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (!isKnown(x) || !isKnown(y)) return Number(isKnown(y)) - Number(isKnown(x));
    return isDescending ? compare(y, x) : compare(x, y);
  });
}

// Rows that have every chosen value and every flag; `hits` are the numbers that a search found, null without one.
function filteredRows(rows, { chosen = {}, flags = [], hits = null, limits = { many: 1 } }) {
  return rows.filter((row) => (hits === null || hits.has(row.i))
    && SELECTS.every(({ key, of }) => !chosen[key] || String(of(row)) === chosen[key])
    && FLAGS.every(({ key, of }) => !flags.includes(key) || of(row, limits)));
}

// What a link names: it stays the same when the page is written again with more answers.
function linkOf(row) {
  const parts = [row.variant, row.condition, isKnown(row.step) ? row.step : '', row.problem, row.sample];
  return `#a=${parts.map((part) => encodeURIComponent(part)).join('/')}`;
}

const rowOfLink = (rows, hash) => rows.find((row) => linkOf(row) === hash) || null;

// Who answered, in words: what two rows on one question differ in.
const sourceOf = (row) => [row.variant, row.condition, isKnown(row.step) ? `step ${row.step}` : ''].filter(Boolean).join(' · ');

// All answers of one source to the row's question, in order.
const groupOf = (rows, row) => rows.filter((other) => other.question === row.question && sourceOf(other) === sourceOf(row))
  .sort((a, b) => a.sample - b.sample);

// Other sources that answered the row's question.
const otherSources = (rows, row) => [...new Set(rows.filter((other) => other.problem === row.problem).map(sourceOf))]
  .filter((source) => source !== sourceOf(row));

// The answer of another source to the same question: the same sample where there is one.
function counterpart(rows, row, source) {
  const found = rows.filter((other) => other.problem === row.problem && sourceOf(other) === source);
  return found.find((other) => other.sample === row.sample) || found[0] || null;
}

// Where a search looks: label, and the letters of the parts that it reads.
const SCOPES = {
  all: ['everywhere', 'act'], policy: ['policy’s text', 'ac'], code: ['calls', 'c'], tool: ['tool output', 't'],
  question: ['question', ''], given: ['answer given', ''],
};

// Whether an answer holds a text, small and capital letters alike. `body` may be null where no part is read.
function holds(row, body, query, scope) {
  const wanted = query.toLowerCase();
  const has = (text) => isKnown(text) && String(text).toLowerCase().includes(wanted);
  if ((scope === 'all' || scope === 'question') && (has(row.text) || row.references.some(has) || has(row.problem))) return true;
  if ((scope === 'all' || scope === 'given') && has(row.given)) return true;
  const letters = SCOPES[scope][1];
  return body !== null && body.parts.some((part) => letters.includes(part.k) && has(part.x));
}

// Parts of an answer with those of a call joined: {call, parts}, call -1 outside calls.
function sections(parts) {
  const found = [];
  for (const part of parts) {
    const call = part.c === undefined ? -1 : part.c;
    const last = found[found.length - 1];
    if (last && call >= 0 && last.call === call) last.parts.push(part);
    else found.push({ call, parts: [part] });
  }
  return found;
}

// `g0-120 t120-180` as spans in milliseconds.
function spansOf(text) {
  return text ? text.split(' ').map((span) => {
    const [start, stop] = span.slice(1).split('-').map(Number);
    return { kind: span[0], start, stop };
  }) : [];
}

// Pieces of a text, each with whether it matches the query.
function pieces(text, query) {
  if (!query) return [[text, false]];
  const found = [];
  const lower = text.toLowerCase();
  // Lower case of a few letters is longer; then positions would not agree.
  if (lower.length !== text.length) return [[text, false]];
  const wanted = query.toLowerCase();
  let at = 0;
  for (let next = lower.indexOf(wanted); next >= 0; next = lower.indexOf(wanted, at)) {
    if (next > at) found.push([text.slice(at, next), false]);
    found.push([text.slice(next, next + wanted.length), true]);
    at = next + wanted.length;
  }
  if (at < text.length) found.push([text.slice(at), false]);
  return found;
}
