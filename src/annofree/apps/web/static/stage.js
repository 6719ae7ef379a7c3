// The canvas: the image, what was found over it, zoom and pan.
import { imagePath } from "./api.js";
import { $, say } from "./dom.js";
import { cut, holds, trace } from "./rle.js";
import { colorOf, find, formatScore, isMachine, on, shown, state, tell } from "./state.js";

const PICTURE = 1600; // px of the long side, as the server sends it
const MARGIN = 20;
const canvas = $("canvas");
const stage = $("stage");
const context = canvas.getContext("2d");

export const view = { scale: 1, x: 0, y: 0, fitted: true };
let picture = null; // {id, bitmap, width, height}
let map = null; // {key, bitmap}
let overlays = []; // what tools draw: functions of (context, px)
let asked = false;

const cellScale = () => Math.min(1, PICTURE / Math.max(state.answer.width, state.answer.height));

// The shape of a mask and its outline, kept as long as the mask is.
const shapes = new WeakMap();
export function shapeOf(mask) {
  let shape = shapes.get(mask);
  if (!shape) {
    shape = cut(mask, cellScale());
    shape.path = trace(shape);
    shapes.set(mask, shape);
  }
  return shape;
}

export function addOverlay(draw) {
  overlays.push(draw);
}

export function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

export const toImage = (x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
export const toScreen = (x, y) => [x * view.scale + view.x, y * view.scale + view.y];
export const inside = ([x, y]) => [
  Math.max(0, Math.min(picture?.width ?? 1, x)),
  Math.max(0, Math.min(picture?.height ?? 1, y)),
];

export function fit() {
  if (!picture) return;
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  view.scale = Math.max(0.001, Math.min((w - 2 * MARGIN) / picture.width, (h - 2 * MARGIN) / picture.height));
  view.x = (w - view.scale * picture.width) / 2;
  view.y = (h - view.scale * picture.height) / 2;
  view.fitted = true;
  moved();
}

export function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const scale = Math.max(0.02, Math.min(40, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  view.fitted = false;
  moved();
}

export function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  view.fitted = false;
  moved();
}

// Bring a point into sight.
export function follow([x, y]) {
  const [sx, sy] = toScreen(x, y);
  const edge = 24;
  const dx = Math.max(0, edge - sx) - Math.max(0, sx - stage.clientWidth + edge);
  const dy = Math.max(0, edge - sy) - Math.max(0, sy - stage.clientHeight + edge);
  if (dx || dy) pan(dx, dy);
}

export function zoomTo([x0, y0, x1, y1]) {
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  view.scale = Math.min(40, 0.6 * Math.min(w / Math.max(1, x1 - x0), h / Math.max(1, y1 - y0)));
  view.x = w / 2 - (view.scale * (x0 + x1)) / 2;
  view.y = h / 2 - (view.scale * (y0 + y1)) / 2;
  view.fitted = false;
  moved();
}

function moved() {
  $("zoom-text").textContent = `${Math.round(view.scale * 100)}%`;
  redraw();
}

// Show the picture of an image, which has width x height pixels as a whole.
export function setPicture(id, bitmap, width, height) {
  picture = bitmap && { id, bitmap, width, height };
  map = null;
  fit();
  redraw();
}

// The instance under a point: the smallest that is drawn there.
export function hit([x, y]) {
  let best = null;
  for (const one of shown()) {
    const shape = shapeOf(one.mask);
    if (holds(shape, x, y) && (!best || shape.area < shapeOf(best.mask).area)) best = one;
  }
  return best;
}

async function loadMap() {
  const key = `${state.id} ${state.show.map} ${state.answer?.version} ${state.answer?.revision}`;
  if (!state.show.map || !state.answer || map?.key === key) return;
  map = { key, bitmap: map?.bitmap ?? null };
  try {
    const reply = await fetch(`${imagePath(state.id, "labels.png")}?task=${state.show.map}&at=${state.answer.version}.${state.answer.revision}`);
    if (!reply.ok) throw new Error((await reply.json()).error);
    const bitmap = await createImageBitmap(await reply.blob());
    if (map?.key === key) map.bitmap = bitmap;
  } catch (error) {
    if (map?.key !== key) return;
    map = null;
    say(`There is no such map: ${error.message}`);
    setShow({ map: "" });
  }
  redraw();
}

function drawInstance(one, px) {
  const lit = one.id === state.selected || one.id === state.hovered;
  const shape = shapeOf(one.mask);
  const color = colorOf(one.class);
  if (state.show.masks || lit) {
    context.globalAlpha = Math.min(1, state.show.strength * (lit ? 1.35 : 1));
    context.fillStyle = color;
    context.fill(shape.path, "evenodd");
    context.globalAlpha = 1;
    context.setLineDash(isMachine(one) && !one.kept ? [5 * px, 4 * px] : []);
    if (lit) stroke(shape.path, "#fff", (one.id === state.selected ? 5 : 4) * px);
    else stroke(shape.path, "#0006", 3 * px);
    stroke(shape.path, color, (lit ? 2.25 : 1.5) * px);
    context.setLineDash([]);
  }
  if (state.show.boxes) {
    const [x0, y0, x1, y1] = one.box;
    const box = new Path2D();
    box.rect(x0, y0, x1 - x0, y1 - y0);
    stroke(box, "#0006", 3 * px);
    stroke(box, color, 1.5 * px);
  }
}

function stroke(path, color, width) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke(path);
}

// A tag with name and score above an instance, in screen pixels.
function drawTag(one) {
  const text = [one.class, formatScore(one.score)].filter(Boolean).join("  ");
  context.font = "600 12px system-ui, sans-serif";
  const width = context.measureText(text).width + 22;
  const [x, y] = toScreen(one.box[0], one.box[1]);
  const left = Math.max(4, Math.min(stage.clientWidth - width - 4, x));
  const top = Math.max(4, y - 24);
  context.fillStyle = "#15181ddd";
  context.beginPath();
  context.roundRect(left, top, width, 20, 5);
  context.fill();
  context.fillStyle = colorOf(one.class);
  context.beginPath();
  context.arc(left + 10, top + 10, 4, 0, 7);
  context.fill();
  context.fillStyle = "#fff";
  context.fillText(text, left + 18, top + 14);
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  if (!picture) return;
  context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
  context.imageSmoothingEnabled = view.scale < 6;
  context.imageSmoothingQuality = "high";
  context.lineJoin = "round";
  context.drawImage(picture.bitmap, 0, 0, picture.width, picture.height);
  const px = 1 / view.scale;
  if (state.answer && picture.id === state.answer.image) {
    if (state.show.map) {
      if (map?.bitmap) {
        context.globalAlpha = Math.min(1, 0.3 + state.show.strength);
        context.drawImage(map.bitmap, 0, 0, picture.width, picture.height);
        context.globalAlpha = 1;
      }
    } else drawInstances(px, ratio);
    context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
    for (const overlay of overlays) overlay(context, px);
  }
}

function drawInstances(px, ratio) {
  const drawn = shown().sort((a, b) => shapeOf(b.mask).area - shapeOf(a.mask).area);
  const above = [find(state.hovered), find(state.selected)].filter(Boolean);
  for (const one of drawn) if (!above.includes(one)) drawInstance(one, px);
  for (const one of above) drawInstance(one, px);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (state.tool === "select") for (const one of state.show.tags ? new Set([...drawn, ...above]) : above) drawTag(one);
}

on("answer view", loadMap);
on("answer selection view tool lit", redraw);
on("answer", () => {
  if (!find(state.hovered)) state.hovered = null;
});
new ResizeObserver(() => (view.fitted ? fit() : redraw())).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

export function setShow(changes) {
  Object.assign(state.show, changes);
  tell("view");
}
