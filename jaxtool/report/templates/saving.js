// Buttons that save a chart as it is shown, or a table as the files that the page holds of it.

const PAINTED = ['fill', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linejoin', 'opacity', 'font-size', 'font-family', 'font-weight', 'text-anchor'];

const fileName = (text) => text.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '_').replace(/^_+|_+$/g, '').slice(0, 60) || 'untitled';

function saveFile(name, type, text) {
  const link = el('a', { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A copy of what is drawn that needs no style sheet: colours are those of the screen, on the card's background.
function standalone(chart, names, colors) {
  const box = chart.viewBox.baseVal;
  const copy = chart.cloneNode(true);
  const painted = [...chart.querySelectorAll('*')];
  [...copy.querySelectorAll('*')].forEach((node, i) => {
    const style = getComputedStyle(painted[i]);
    for (const name of PAINTED) {
      const value = style.getPropertyValue(name);
      if (value) node.setAttribute(name, value);
    }
  });
  const shown = names.map((name, i) => ({ name, color: colors[i] })).filter(({ name }) => name);
  const height = box.height + 18 * shown.length;
  const page = getComputedStyle(document.documentElement);
  const paint = (value) => (value.startsWith('var(') ? page.getPropertyValue(value.slice(4, -1)).trim() : value);
  copy.prepend(svg('rect', { width: box.width, height, fill: paint('var(--surface)') }));
  shown.forEach(({ name, color }, i) => {
    const y = box.height + 18 * i;
    copy.append(
      svg('rect', { x: 8, y, width: 10, height: 10, fill: paint(color) }),
      svg('text', { x: 24, y: y + 9, fill: paint('var(--ink)'), 'font-size': 11, 'font-family': 'sans-serif' }, name));
  });
  copy.setAttribute('xmlns', SVG);
  copy.setAttribute('viewBox', `0 0 ${box.width} ${height}`);
  copy.setAttribute('width', box.width);
  copy.setAttribute('height', height);
  return `<?xml version="1.0" encoding="utf-8"?>\n${new XMLSerializer().serializeToString(copy)}\n`;
}

const saveButton = (kind, save) => el('button', { class: 'button save', type: 'button', title: `save as ${kind}`, onclick: save }, kind);

function tableButtons({ files }) {
  if (!files) return null;
  return el('div', { class: 'saves' },
    saveButton('CSV', () => saveFile(`${files.name}.csv`, 'text/csv;charset=utf-8', files.csv)),
    saveButton('LaTeX', () => saveFile(`${files.name}.tex`, 'application/x-tex;charset=utf-8', files.tex)));
}

function chartButtons(chart) {
  return el('div', { class: 'saves' }, saveButton('SVG', () => {
    const visible = chart.visible();
    saveFile(`${fileName(chart.curve.title)}.svg`, 'image/svg+xml;charset=utf-8',
      standalone(chart.svg, visible.map(({ name }) => name), visible.map(({ color }) => color)));
  }));
}
