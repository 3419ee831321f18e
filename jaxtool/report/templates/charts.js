// Line charts, and points with intervals on both axes, in SVG, drawn at the size they are shown.

const charts = [];
let smoothing = 0;
const MARGIN = { top: 10, right: 12, bottom: 34 };
const HEIGHT = 216;
const DIGIT_WIDTH = 6.8;
const FEW_POINTS = 16; // shown as dots, and not smoothed

// Round values inside low..high, as near to `count` of them as round steps allow.
function ticks(low, high, count) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const distance = (step) => Math.abs(Math.log(span / step / count));
  const steps = [1, 2, 2.5, 5, 10].map((factor) => factor * power);
  const step = steps.reduce((best, next) => (distance(next) < distance(best) ? next : best));
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const values = [];
  for (let k = first; k <= last; k += 1) values.push(Number((k * step).toPrecision(12)));
  return values;
}

// Exponential mean, corrected for its start; gaps stay gaps.
function smoothed(ys) {
  if (!smoothing || ys.length <= FEW_POINTS) return ys;
  let total = 0;
  let weight = 0;
  return ys.map((y) => {
    if (!isNumber(y)) return null;
    total = smoothing * total + (1 - smoothing) * y;
    weight = smoothing * weight + (1 - smoothing);
    return total / weight;
  });
}

// Runs of neighbouring points that are all there.
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point) found[found.length - 1].push(point);
    else if (found[found.length - 1].length) found.push([]);
  }
  return found.filter((run) => run.length);
}

const linePath = (run) => run.map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!isNumber(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

class Chart {
  constructor(curve, colors) {
    this.curve = curve;
    this.colors = colors;
    this.hidden = new Set();
    this.svg = svg('svg', {
      role: 'img',
      'aria-label': `${curve.title}: ${curve.series.map((series) => series.name).join(', ')}`,
      onpointermove: (event) => this.hover(event),
      onpointerdown: (event) => this.hover(event),
      onpointerleave: () => this.leave(),
    });
    const isEmpty = !extent(curve.series.flatMap((series) => series.ys));
    this.node = el('figure', { class: 'card chart' },
      el('h3', null, curve.title, curve.y_label ? el('span', { class: 'y-label' }, curve.y_label) : null),
      isEmpty ? el('div', { class: 'empty' }, 'no values') : this.svg,
      curve.note ? el('p', { class: 'note' }, curve.note) : null,
      this.legend(),
      isEmpty ? null : chartButtons(this));
    if (isEmpty) return;
    charts.push(this);
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  legend() {
    const { series } = this.curve;
    if (series.length < 2 && series.every(({ name }) => !name)) return null;
    return el('div', { class: 'legend' }, series.map(({ name }, i) => el('button', {
      type: 'button',
      'aria-pressed': 'true',
      title: 'show or hide',
      onclick: (event) => {
        if (!this.hidden.delete(i)) this.hidden.add(i);
        event.currentTarget.setAttribute('aria-pressed', String(!this.hidden.has(i)));
        this.draw();
      },
    }, el('span', { class: 'dash', '--dot': this.colors[i] }), name)));
  }

  visible() {
    return this.curve.series.map((series, i) => ({ ...series, color: this.colors[i], index: i }))
      .filter(({ index }) => !this.hidden.has(index));
  }

  draw() {
    const width = this.svg.clientWidth;
    if (!width) return;
    this.svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const visible = this.visible().map((series) => ({ ...series, shown: smoothed(series.ys) }));
    const [xLow, xHigh] = this.xRange();
    const [yLow, yHigh] = this.yRange(visible);
    const yTicks = ticks(yLow, yHigh, 4);
    const left = Math.max(38, 12 + DIGIT_WIDTH * Math.max(...yTicks.map((value) => this.tickText(value).length)));
    const inner = { width: width - left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
    const x = (value) => left + ((value - xLow) / (xHigh - xLow)) * inner.width;
    const y = (value) => MARGIN.top + (1 - (value - yLow) / (yHigh - yLow)) * inner.height;
    this.scale = { x, y, xLow, xHigh, inner, left };
    this.cursor = svg('g');
    this.svg.replaceChildren(
      this.axes(x, y, ticks(xLow, xHigh, clamp(Math.floor(width / 85), 2, 8)), yTicks, left, width),
      svg('g', null, visible.map((series) => this.band(series, x, y))),
      svg('g', null, visible.map((series) => this.line(series, x, y))),
      this.cursor);
    this.drawn = visible;
  }

  xRange() {
    const { series } = this.curve;
    const found = extent(series.flatMap(({ xs, x_intervals: ends }) => xs.concat((ends || []).flat()))) || [0, 1];
    if (series.some(({ x_intervals: ends }) => ends)) return this.withRoom(found);
    return found[0] === found[1] ? [found[0] - 1, found[1] + 1] : found;
  }

  yRange(visible) {
    const values = visible.flatMap(({ ys, shown, stderr, y_intervals: ends }) => (stderr && shown === ys
      ? ys.flatMap((y, i) => (isNumber(y) ? [y - (stderr[i] || 0), y + (stderr[i] || 0)] : []))
      : ys).concat((ends || []).flat()));
    return this.withRoom(extent(values) || [0, 1]);
  }

  withRoom([low, high]) {
    if (low === high) {
      const room = Math.abs(low) * 0.1 || 1;
      return low === 0 ? [-0.05, 1] : [low - room, high + room];
    }
    const room = (high - low) * 0.06;
    return [low >= 0 && low < (high - low) * 0.3 ? 0 : low - room, high + room];
  }

  axes(x, y, xTicks, yTicks, left, width) {
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const rows = yTicks.map((value) => {
      const place = Math.round(y(value)) + 0.5;
      return [
        svg('line', { class: value === 0 ? 'zero' : 'grid', x1: left, x2: right, y1: place, y2: place }),
        svg('text', { x: left - 8, y: place + 3.5, 'text-anchor': 'end' }, this.tickText(value)),
      ];
    });
    const columns = xTicks.map((value) => svg('text', {
      x: x(value), y: bottom + 16, 'text-anchor': 'middle',
    }, this.tickText(value)));
    const label = svg('text', { x: right, y: HEIGHT - 3, 'text-anchor': 'end' }, this.curve.x_label);
    const base = svg('line', { class: 'zero', x1: left, x2: right, y1: bottom + 0.5, y2: bottom + 0.5 });
    return svg('g', null, rows, base, columns, label);
  }

  tickText(value) {
    const size = Math.abs(value);
    const short = size >= 1e6 ? `${value / 1e6}M` : size >= 1e4 ? `${value / 1e3}k` : String(value);
    return (size !== 0 && size < 1e-3 ? value.toExponential() : short).replace('-', '−');
  }

  band({ xs, ys, shown, stderr, color }, x, y) {
    if (!stderr || shown !== ys) return null;
    const points = ys.map((value, i) => (isNumber(value) && isNumber(stderr[i])
      ? [x(xs[i]), y(value - stderr[i]), y(value + stderr[i])] : null));
    const path = runs(points).map((run) => {
      const top = run.map(([px, , high]) => [px, high]);
      const base = run.map(([px, low]) => [px, low]).reverse();
      return `${linePath(top.concat(base))}Z`;
    }).join('');
    return svg('path', { class: 'band', d: path, fill: color });
  }

  // The intervals of each point, a bar with ends on either axis.
  bars({ xs, ys, x_intervals: across, y_intervals: along }, x, y) {
    const place = (value) => value.toFixed(1);
    return ys.map((value, i) => {
      if (!isNumber(value)) return '';
      const [px, py] = [x(xs[i]), y(value)];
      const [wide, high] = [across && across[i], along && along[i]];
      const row = wide ? `M${place(x(wide[0]))} ${place(py - 4)}v8m0 -4H${place(x(wide[1]))}m0 -4v8` : '';
      const column = high ? `M${place(px - 4)} ${place(y(high[0]))}h8m-4 0V${place(y(high[1]))}m-4 0h8` : '';
      return row + column;
    }).join('');
  }

  line(series, x, y) {
    const { xs, ys, shown, color } = series;
    const points = (values) => values.map((value, i) => (isNumber(value) ? [x(xs[i]), y(value)] : null));
    const raw = shown !== ys
      ? svg('path', { class: 'series raw', d: runs(points(ys)).map(linePath).join(''), stroke: color }) : null;
    const found = runs(points(shown));
    const isSparse = found.flat().length <= FEW_POINTS;
    const dots = found.filter((run) => isSparse || run.length === 1).flat();
    return [
      raw,
      svg('path', { class: 'series bars', d: this.bars(series, x, y), stroke: color }),
      svg('path', { class: 'series', d: found.map(linePath).join(''), stroke: color }),
      dots.map(([cx, cy]) => svg('circle', { cx, cy, r: 2.6, fill: color })),
    ];
  }

  hover(event) {
    if (!this.scale || !this.drawn.length) return this.leave();
    if (this.drawn.some(({ x_intervals: ends }) => ends)) return this.hoverPoint(event);
    const { x, y, xLow, xHigh, inner, left } = this.scale;
    const box = this.svg.getBoundingClientRect();
    const wanted = xLow + ((event.clientX - box.left - left) / inner.width) * (xHigh - xLow);
    const distance = (value) => Math.abs(value - wanted);
    let nearest = null;
    for (const { xs, ys } of this.drawn) {
      xs.forEach((value, i) => {
        if (isNumber(ys[i]) && (nearest === null || distance(value) < distance(nearest))) nearest = value;
      });
    }
    if (nearest === null) return this.leave();
    const found = this.drawn.map((series) => ({ series, at: series.xs.indexOf(nearest) }))
      .filter(({ series, at }) => at >= 0 && isNumber(series.ys[at]));
    const place = Math.round(x(nearest)) + 0.5;
    this.cursor.replaceChildren(
      svg('line', { class: 'cursor', x1: place, x2: place, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      ...found.map(({ series, at }) => svg('circle', {
        class: 'mark', cx: x(nearest), cy: y(series.shown[at]), r: 4.2, fill: series.color,
      })));
    const pairs = found.map(({ series, at }) => {
      const spread = series.stderr && isNumber(series.stderr[at]) ? ` ± ${format(series.stderr[at])}` : '';
      return [series.name || this.curve.title, format(series.ys[at]) + spread, series.color];
    });
    showTip(event.clientX, event.clientY,
      el('div', { class: 'tip-head' }, `${this.curve.x_label} ${format(nearest)}`), termList(pairs));
  }

  // Of points with intervals on both axes: the one that is nearest on the screen.
  hoverPoint(event) {
    const { x, y } = this.scale;
    const box = this.svg.getBoundingClientRect();
    let best = null;
    for (const series of this.drawn) {
      series.ys.forEach((value, i) => {
        if (!isNumber(value)) return;
        const distance = Math.hypot(event.clientX - box.left - x(series.xs[i]), event.clientY - box.top - y(value));
        if (best === null || distance < best.distance) best = { series, i, distance };
      });
    }
    if (best === null) return this.leave();
    const { series, i } = best;
    this.cursor.replaceChildren(svg('circle', { class: 'mark', cx: x(series.xs[i]), cy: y(series.ys[i]), r: 5, fill: series.color }));
    const shown = (value, ends) => format(value) + (ends && ends[i] ? ` (${format(ends[i][0])} to ${format(ends[i][1])})` : '');
    showTip(event.clientX, event.clientY,
      el('div', { class: 'tip-head' }, [series.name, series.labels && series.labels[i]].filter(Boolean).join(', ')),
      termList([
        [this.curve.x_label || 'x', shown(series.xs[i], series.x_intervals)],
        [this.curve.y_label || 'y', shown(series.ys[i], series.y_intervals)],
      ]));
  }

  leave() {
    if (this.cursor) this.cursor.replaceChildren();
    hideTip();
  }
}

function setSmoothing(value) {
  smoothing = value;
  charts.forEach((chart) => chart.draw());
}
