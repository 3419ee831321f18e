// Builds the page from the data in #report-data.

const report = JSON.parse(document.getElementById('report-data').textContent);
const THEMES = ['auto', 'light', 'dark'];
const THEME_SIGNS = { auto: '◐', light: '☀', dark: '☾' };
const darkness = matchMedia('(prefers-color-scheme: dark)');

function storedTheme() {
  try { return localStorage.getItem('jaxtool-theme') || 'auto'; } catch { return 'auto'; }
}

function applyTheme(theme) {
  const isDark = theme === 'dark' || (theme === 'auto' && darkness.matches);
  document.documentElement.dataset.theme = isDark ? 'dark' : 'light';
  try { localStorage.setItem('jaxtool-theme', theme); } catch { /* a page from file:// may not keep it */ }
}

function themeButton() {
  let theme = storedTheme();
  const show = () => {
    applyTheme(theme);
    button.textContent = THEME_SIGNS[theme];
    button.title = `colours: ${theme}`;
    button.setAttribute('aria-label', `colours: ${theme}; change`);
  };
  const button = el('button', {
    class: 'button icon',
    type: 'button',
    onclick: () => { theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]; show(); },
  });
  darkness.addEventListener('change', show);
  show();
  return button;
}

const variantColors = colorIndices(report.variants);

// Variants have their colours of the page; the lines of a chart go by their own names.
function seriesColors(series) {
  const own = colorIndices(series.map(({ name }) => name));
  return series.map(({ name }) => seriesColor(variantColors.has(name) ? variantColors.get(name) : own.get(name)));
}

const NUMBER = /^[-−+]?[\d.,]+(e[-−]?\d+)?\s*%?(\s*±.*)?$/;

function cell(value, tag) {
  if (value === null) return el(tag, { class: 'number muted' }, '–');
  if (isNumber(value)) return el(tag, { class: 'number' }, format(value));
  if (!NUMBER.test(value)) return el(tag, null, value);
  const [center, spread] = value.split(/\s*±/);
  return el(tag, { class: 'number' }, center.replace('-', '−'),
    spread === undefined ? null : el('span', { class: 'plus-minus' }, ` ±${spread}`));
}

function table({ title, columns, rows, note, files }) {
  const isNumeric = columns.map((_, i) => rows.length > 0 && rows.every((row) => (
    row[i] === null || isNumber(row[i]) || NUMBER.test(row[i]))) && rows.some((row) => row[i] !== null));
  const first = (value) => {
    const node = cell(value, 'td');
    if (variantColors.has(value)) node.prepend(el('span', { class: 'dot', '--dot': seriesColor(variantColors.get(value)) }));
    return node;
  };
  return el('div', { class: 'card table-card' },
    title ? el('h3', null, title) : null,
    el('div', { class: 'table-scroll' }, el('table', null,
      el('thead', null, el('tr', null, columns.map((name, i) => el('th', { scope: 'col', class: isNumeric[i] ? 'number' : '' }, name)))),
      el('tbody', null, rows.map((row) => el('tr', null, row.map((value, i) => (i === 0 ? first(value) : cell(value, 'td')))))))),
    note ? el('p', { class: 'note' }, note) : null,
    tableButtons({ files }));
}

function section(title, lead, isFolded, ...content) {
  const id = `s-${title.toLowerCase().replace(/[^a-z0-9]+/g, '-')}`;
  const inside = [lead ? el('p', { class: 'lead' }, lead) : null, content];
  const node = isFolded
    ? el('details', { class: 'section', id }, el('summary', null, el('h2', null, title)), inside)
    : el('section', { id }, el('h2', null, title), inside);
  return { title, id, node, isFolded };
}

function configuration(text) {
  const lines = text.split('\n').map((line) => el('span', { class: line.startsWith('#') ? 'comment' : '' }, `${line}\n`));
  return el('details', { class: 'card' }, el('summary', null, 'The full configuration, defaults included'), el('pre', null, lines));
}

function sectionNodes() {
  const found = report.sections.map(({ title, note, tables, curves, pairs, is_folded: isFolded }) => section(title, note, isFolded,
    tables.map(table),
    curves.length ? el('div', { class: 'charts' }, curves.map((curve) => new Chart(curve, seriesColors(curve.series)).node)) : null,
    (pairs || []).length ? new Pairs(pairs).node : null));
  if (report.answers.count) {
    const viewer = section('Answers', 'What the policy wrote, call by call and token by token. Press ? for the keys.', false, new Viewer(report.answers).node);
    const folded = found.findIndex(({ isFolded }) => isFolded);
    found.splice(folded < 0 ? found.length : folded, 0, viewer);
  }
  if (report.config) found.push(section('Configuration', '', false, configuration(report.config)));
  return found;
}

function navigation(found) {
  const smooth = el('label', { class: 'smooth' }, el('span', null, 'Smoothing'), el('input', {
    type: 'range', min: 0, max: 0.95, step: 0.05, value: 0, 'aria-label': 'Smoothing of the curves',
    oninput: (event) => setSmoothing(Number(event.target.value)),
  }));
  const hasCurves = report.sections.some(({ curves }) => curves.length);
  return el('nav', { class: 'nav' }, el('div', { class: 'wrap' },
    el('div', { class: 'links' }, found.map(({ title, id, node, isFolded }) => el('a', { href: `#${id}`, onclick: () => { if (isFolded) node.open = true; } }, title))),
    el('div', { class: 'tools' }, hasCurves ? smooth : null, themeButton())));
}

const found = sectionNodes();
document.getElementById('page').replaceChildren(
  el('header', { class: 'head wrap' }, el('h1', null, report.title), report.subtitle ? el('p', null, report.subtitle) : null),
  navigation(found),
  el('main', { class: 'wrap' },
    report.headlines.length ? el('div', { class: 'headlines' }, report.headlines.map(({ label, value, note }) => el('div', { class: 'headline' },
      el('div', { class: 'label' }, label), el('div', { class: 'value' }, value), note ? el('div', { class: 'note' }, note) : null))) : null,
    found.map(({ node }) => node)),
  el('footer', { class: 'wrap' }, `Written ${report.written} by jaxtool. ${report.answers.folder ? `Answers are in the folder ${report.answers.folder}: keep it beside this page.` : 'This file is complete: it loads nothing.'}`),
  tip);
