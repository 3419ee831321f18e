// When an answer was generated, waited for tools and was judged: a bar from its leaving the queue on.

const SPAN_KINDS = { g: ['generate', 'generation'], t: ['tool', 'tools'], j: ['judge', 'judge'] };
const seconds = (ms) => (ms >= 1000 ? `${format(ms / 1000)} s` : `${format(ms)} ms`);

function spanWords(spans) {
  const totals = { g: 0, t: 0, j: 0 };
  for (const { kind, start, stop } of spans) totals[kind] += stop - start;
  return Object.entries(SPAN_KINDS).filter(([kind]) => totals[kind]).map(([kind, [, label]]) => `${label} ${seconds(totals[kind])}`).join(', ');
}

// A bar whose whole width is `whole` milliseconds; null without spans.
function timeline(spans, whole) {
  if (!spans.length || !whole) return null;
  return el('div', { class: 'timeline', role: 'img', 'aria-label': `Time line: ${spanWords(spans)}`, title: spanWords(spans) },
    spans.map(({ kind, start, stop }) => el('i', {
      class: SPAN_KINDS[kind][0],
      '--from': `${((100 * start) / whole).toFixed(2)}%`,
      '--width': `${Math.max(0.4, (100 * (stop - start)) / whole).toFixed(2)}%`,
    })));
}

const timelineLegend = () => el('div', { class: 'origins' }, Object.values(SPAN_KINDS).map(([name, label]) => el('span', null,
  el('i', { class: `key ${name}` }), label)));

// A bar of one latency beside the longest one.
const latencyBar = (ms, longest) => (longest > 0 ? el('span', { class: 'latency', 'aria-hidden': 'true' },
  el('i', { '--width': `${((100 * ms) / longest).toFixed(1)}%` })) : null);
