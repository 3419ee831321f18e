// Elements, numbers and the one tooltip. All text goes through textContent, never through markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name.startsWith('--')) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Three to four digits that matter, with a true minus sign.
function format(value) {
  if (!isNumber(value)) return '–';
  const size = Math.abs(value);
  let text;
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) text = value.toExponential(2).replace('e+', 'e');
  else if (Number.isInteger(value)) text = size >= 1e4 ? value.toLocaleString('en-US') : String(value);
  else if (size >= 1000) text = Math.round(value).toLocaleString('en-US');
  else text = size >= 100 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toFixed(3);
  return text.replace('-', '−');
}

const tip = el('div', { class: 'tip', role: 'tooltip' });

function showTip(x, y, ...content) {
  tip.replaceChildren(...content);
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
  const top = y + 18 + height > innerHeight - 8 ? y - 14 - height : y + 18;
  tip.style.left = `${clamp(left, 8, Math.max(8, innerWidth - width - 8))}px`;
  tip.style.top = `${Math.max(8, top)}px`;
  tip.style.visibility = 'visible';
}

function hideTip() { tip.style.visibility = 'hidden'; }

const termList = (pairs) => el('dl', null, pairs.map(([term, value, color]) => [
  el('dt', null, color ? el('span', { class: 'dot', '--dot': color }) : null, term),
  el('dd', null, value),
]));

const seriesColor = (index) => `var(--series-${index % COLORS})`;
