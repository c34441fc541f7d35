"use strict";
const byId = (id) => document.getElementById(id);
const content = JSON.parse(byId("content").textContent);
const SECONDS = 4.5; // of one play
const TRAILS = 36; // points with a trail
const VIEW = 3; // half the width of the panels
const MOST_W = Math.max(...content.directions[0].sdes.flatMap((one) => // the top of the plot: the largest w(1/2)
  one.w.filter(([t]) => t === 0.5).map(([, w]) => w)));

// The data: numbers of 16 bits, little-endian, in base64.
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = new Float32Array(bytes.length / 2);
  for (let k = 0; k < values.length; k++) {
    values[k] = (view.getUint16(2 * k, true) / content.levels * 2 - 1) * content.limit;
  }
  return values;
}

const decoded = new Map(); // by text; flows are decoded when they are first shown
function values(text) {
  if (!decoded.has(text)) decoded.set(text, decode(text));
  return decoded.get(text);
}

const state = { direction: 0, w: 1, t: 1, playing: false, trails: true };
const direction = () => content.directions[state.direction];
const sde = () => direction().sdes[state.w];
const ends = () => (direction().backward ? [1, 0] : [0, 1]); // the time at the start, and at the end

// Drawing.
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function canvasOf(id) {
  const canvas = byId(id);
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { canvas, context, width, height };
}

// The frame before a time, and the fraction of the way to the next frame.
function place(times, t) {
  let k = 0;
  while (k < times.length - 2 && times[k + 1] <= t) k++;
  return [k, Math.min(Math.max((t - times[k]) / (times[k + 1] - times[k]), 0), 1)];
}

function drawFlow(id, flow) {
  const { canvas, context, width, height } = canvasOf(id);
  const x = (value) => width / 2 * (1 + value / VIEW);
  const y = (value) => height / 2 - width / 2 * value / VIEW;
  const dots = (points, radius, colour) => {
    for (let n = 0; n < points.length / 2; n++) {
      context.fillStyle = colour(n);
      context.beginPath();
      context.arc(x(points[2 * n]), y(points[2 * n + 1]), radius, 0, 2 * Math.PI);
      context.fill();
    }
  };
  const radius = Math.max(1.5, width / 190);
  const fresh = style("--fresh");
  context.globalAlpha = 0.3;
  dots(values(direction().fresh), radius * 0.8, () => fresh);

  const states = values(flow.states);
  const count = states.length / flow.times.length / 2;
  const coordinate = (k, n) => 2 * (k * count + n);
  const [k, fraction] = place(flow.times, state.t);
  const now = new Float32Array(2 * count);
  for (let n = 0; n < 2 * count; n++) {
    now[n] = (1 - fraction) * states[coordinate(k, 0) + n] + fraction * states[coordinate(k + 1, 0) + n];
  }
  const first = direction().backward ? flow.times.length - 1 : 0;
  const [saturation, lightness] = [style("--saturation"), style("--lightness")];
  const hues = Array.from({ length: count }, (_, n) => {
    const start = coordinate(first, n);
    const hue = Math.atan2(states[start + 1], states[start]) * 180 / Math.PI;
    return `hsl(${(hue + 360) % 360} ${saturation} ${lightness})`;
  });
  if (state.trails) {
    context.lineWidth = 1.1;
    context.lineJoin = "round";
    context.globalAlpha = 0.55;
    for (let n = 0; n < Math.min(TRAILS, count); n++) {
      context.strokeStyle = hues[n];
      context.beginPath();
      const inner = direction().backward ? range(first, k + 1) : range(first, k);
      for (const j of inner) context.lineTo(x(states[coordinate(j, n)]), y(states[coordinate(j, n) + 1]));
      context.lineTo(x(now[2 * n]), y(now[2 * n + 1]));
      context.stroke();
    }
  }
  context.globalAlpha = 0.85;
  dots(now, radius, (n) => hues[n]);
  canvas.setAttribute("aria-label", `${flow.name}: ${count} points at t = ${state.t.toFixed(2)} on their way from ` +
    `${direction().start} to ${direction().end}`);
}

// The whole numbers from one to another, both included, in either order.
function range(from, to) {
  const step = from <= to ? 1 : -1;
  return Array.from({ length: Math.abs(to - from) + 1 }, (_, k) => from + step * k);
}

function drawCoefficient() {
  const { canvas, context, width, height } = canvasOf("coefficient");
  const [left, right, top, bottom] = [44, 6, 6, 16];
  const x = (t) => left + t * (width - left - right);
  const y = (w) => height - bottom - w / MOST_W * (height - top - bottom);
  const line = (from, to, colour) => {
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  };
  context.fillStyle = style("--muted");
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  for (const t of [0, 0.5, 1]) context.fillText(t === 0.5 ? "t" : t, x(t), height - 3);
  context.textAlign = "right";
  for (const w of [0, MOST_W / 2, MOST_W]) {
    line([x(0), y(w)], [x(1), y(w)], style("--line"));
    context.fillText(w === MOST_W ? `w = ${w}` : w, left - 6, y(w) + 4);
  }
  context.save();
  context.beginPath();
  context.rect(x(0), y(MOST_W) - 1, x(1) - x(0), y(0) - y(MOST_W) + 3);
  context.clip();
  context.strokeStyle = style("--accent");
  context.lineWidth = 2;
  context.beginPath();
  sde().w.forEach(([t, w]) => context.lineTo(x(t), y(Math.min(w, 4 * MOST_W))));
  context.stroke();
  context.restore();
  context.lineWidth = 1;
  line([x(state.t), y(0)], [x(state.t), y(MOST_W)], style("--text"));
  canvas.setAttribute("aria-label", `The diffusion coefficient of ${sde().name}: ${sde().formula}`);
}

function draw() {
  drawFlow("ode", direction().ode);
  drawFlow("sde", sde());
  drawCoefficient();
  byId("time").value = state.t;
  byId("time").setAttribute("aria-valuetext", `t = ${state.t.toFixed(2)}`);
  byId("now").textContent = `t = ${state.t.toFixed(2)}`;
  byId("play").textContent = state.playing ? "Pause" : "Play";
}

// Text that depends on the choices.
function describe() {
  const caption = (flow) => `Energy distance to fresh ${direction().end} at t = ${ends()[1]}: ${flow.distance}`;
  byId("ode-caption").textContent = caption(direction().ode);
  byId("sde-caption").textContent = caption(sde());
  byId("sde-name").textContent = sde().name;
  const parts = sde().formula.split(/\b([wt])\b/); // the letters at odd places
  byId("formula").replaceChildren(...parts.map((part, n) => {
    const node = document.createElement(n % 2 ? "i" : "span");
    node.textContent = part;
    return node;
  }));
  byId("sign").textContent = direction().backward ? "−" : "+";
  byId("floor").textContent = direction().floor.join(" to ");
  document.querySelectorAll("[data-w]").forEach((one) => {
    one.textContent = direction().sdes[one.dataset.w].distance;
  });
  draw();
}

// Playing.
let last = 0;
function play(playing) {
  const [start, end] = ends();
  if (playing && state.t === end) state.t = start;
  state.playing = playing;
  last = 0;
  draw();
  if (playing) requestAnimationFrame(advance);
}

function advance(now) {
  if (!state.playing) return;
  const [start, end] = ends();
  const moved = last ? (now - last) / 1000 / SECONDS : 0;
  last = now;
  state.t = Math.min(Math.max(state.t + (end - start) * moved, 0), 1);
  if (state.t === end) state.playing = false;
  draw();
  if (state.playing) requestAnimationFrame(advance);
}

function moveTo(t) {
  state.playing = false;
  state.t = Math.min(Math.max(t, 0), 1);
  draw();
}

byId("play").addEventListener("click", () => play(!state.playing));
byId("time").addEventListener("input", (event) => moveTo(Number(event.target.value)));
byId("trails").addEventListener("change", (event) => {
  state.trails = event.target.checked;
  draw();
});
document.querySelectorAll("input[name=w]").forEach((one) => one.addEventListener("change", () => {
  state.w = Number(one.value);
  describe();
}));
document.querySelectorAll("input[name=direction]").forEach((one) => one.addEventListener("change", () => {
  state.direction = Number(one.value);
  state.t = ends()[0];
  describe();
  play(true);
}));
document.addEventListener("keydown", (event) => {
  const used = event.key === " " ? "input, button" : "input"; // elements that use the key
  if (event.target.closest?.(used) || event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { ArrowLeft: state.t - 0.025, ArrowRight: state.t + 0.025, Home: 0, End: 1 };
  if (event.key === " ") play(!state.playing);
  else if (event.key in moves) moveTo(moves[event.key]);
  else return;
  event.preventDefault();
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(draw).observe(document.body);

// Browsers restore choices when a page is loaded again.
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`);
state.w = Number(chosen("w").value);
state.direction = Number(chosen("direction")?.value ?? 0);
state.trails = byId("trails").checked;
state.t = ends()[1];
describe();
if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) play(true);
