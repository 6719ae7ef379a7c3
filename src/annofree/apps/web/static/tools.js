// Select, and make or mend an instance: clicks and boxes (asked of the server), brush, polygon.
import { act } from "./acts.js";
import { ask, imagePath } from "./api.js";
import { $, say, whisper } from "./dom.js";
import { decode, encode, fill, paint } from "./rle.js";
import { follow, inside, redraw, toImage, toScreen, view } from "./stage.js";
import { find, on, state, tell } from "./state.js";

const CLOSE = 10; // px to the first corner that close a polygon
const stage = $("stage");

// What is being made. `of`: the instance that is mended, or null for a new one.
const fresh = () => ({ image: state.id, size: [state.answer?.height, state.answer?.width], of: null, name: null, points: [], box: null, corner: null, proposal: null, vertices: [], bits: null, stroke: null, painted: false });
export const work = {
  draft: fresh(),
  cross: null, // the keyboard's cross, [x, y] in the image
  pointer: null, // [x, y] in the image
  minus: false, // clicks leave out, the brush erases
  radius: 12, // of the brush, px of the image
};
let crossMoved = false;
let asking = null;
let proposing = Promise.resolve();
let saving = null; // the brush's stroke that is on its way

export const isDrafting = () => Boolean(work.draft.points.length || work.draft.box || work.draft.corner || work.draft.vertices.length || work.draft.proposal);

export function setTool(tool, { fix = state.selected } = {}) {
  asking?.abort();
  work.draft = fresh();
  work.cross = null;
  setMinus(false);
  if (tool !== "select" && !state.answer) return say("There is no image to work on.");
  if (tool !== "select" && !state.activeClass && !find(fix)) {
    $("name-input").focus();
    return say("Type a name first: a new instance needs one.");
  }
  work.draft.of = tool === "select" ? null : (find(fix)?.id ?? null);
  work.draft.name = find(work.draft.of)?.class ?? state.activeClass;
  if (tool === "point" && work.draft.of) work.draft.box = find(work.draft.of).box;
  state.tool = tool;
  if (!work.draft.of && tool !== "select") state.selected = null;
  if (tool !== "select") stage.focus({ preventScroll: true });
  tell("tool selection");
}

export function setMinus(on) {
  work.minus = on;
  $("minus").setAttribute("aria-pressed", on);
}

export function setRadius(size) {
  work.radius = Math.max(1, Math.min(120, size / 2));
  $("size").value = work.radius * 2;
  redraw();
}
export const growBrush = (factor) => setRadius(Math.max(2, Math.round(work.radius * 2 * factor + Math.sign(factor - 1))));

// Ask the server for the mask of the points and the box; only the last question counts.
async function propose() {
  asking?.abort();
  if (!work.draft.points.length && !work.draft.box) {
    work.draft.proposal = null;
    return tell("tool");
  }
  asking = new AbortController();
  const mine = work.draft;
  try {
    const json = { points: work.draft.points, box: work.draft.box };
    const answer = await ask(imagePath(state.id, "segment"), { method: "POST", json, signal: asking.signal });
    if (work.draft === mine) work.draft.proposal = answer;
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.message);
  }
  tell("tool");
}

export function addPoint([x, y], out) {
  work.draft.points.push([x, y, out ? 0 : 1]);
  if (work.draft.of && work.draft.box && !out) {
    const [x0, y0, x1, y1] = work.draft.box;
    work.draft.box = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
  }
  crossMoved = false;
  tell("tool");
  proposing = propose();
}

export function setBox([ax, ay], [bx, by]) {
  const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  work.draft.corner = null;
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return tell("tool");
  work.draft.box = box;
  crossMoved = false;
  tell("tool");
  proposing = propose();
}

export function addVertex(at) {
  const [first] = work.draft.vertices;
  if (first && work.draft.vertices.length > 2 && distance(first, at) < CLOSE) return take();
  work.draft.vertices.push(at);
  crossMoved = false;
  tell("tool");
}

function distance(a, b) {
  const [ax, ay] = toScreen(...a);
  const [bx, by] = toScreen(...b);
  return Math.hypot(ax - bx, ay - by);
}

// Take what is proposed, or the polygon, as the instance.
export async function take() {
  await proposing;
  let mask = work.draft.proposal?.mask;
  if (state.tool === "polygon") {
    if (work.draft.vertices.length < 3) return say("A polygon needs three corners.");
    mask = encode(fill(work.draft.vertices, ...work.draft.size), ...work.draft.size);
  }
  if (!mask || mask.counts.length < 2) return say("There is nothing to take yet.");
  const taken = work.draft;
  const { of } = taken;
  const tool = state.tool;
  work.draft = fresh();
  work.cross = null;
  await save(taken, mask);
  if (of) setTool("select");
  else setTool(tool, { fix: null });
}

// Save a mask as the instance that a draft mends, or as a new one; the id that it then has.
async function save({ of, image, name }, mask) {
  if (image === state.id) name = find(of)?.class ?? state.activeClass;
  if (of) {
    await act([{ act: "replace", instance: of, mask }], `${name} has its new mask.`, { id: image });
    return of;
  }
  return act([{ act: "add", class: name, mask }], `${name} is added.`, { id: image, select: "added" });
}

// A stroke of the brush changes the pixels at once, and is saved when it ends.
export function beginStroke(at, erase) {
  const [height, width] = work.draft.size;
  if (!saving || !work.draft.bits) {
    const one = find(work.draft.of);
    if (!work.draft.bits || work.draft.mask !== one?.mask) work.draft.bits = one ? decode(one.mask) : new Uint8Array(height * width);
  }
  work.draft.stroke = { last: at, value: erase ? 0 : 1 };
  moveStroke(at);
}

export function moveStroke(at) {
  paint(work.draft.bits, ...work.draft.size, work.draft.stroke.last, at, work.radius, work.draft.stroke.value);
  work.draft.stroke.last = at;
  work.draft.painted = true;
  redraw();
}

// What is proposed; of what the brush painted since it was last asked for, too.
export function getProposal(draft = work.draft) {
  if (draft.painted) draft.proposal = { mask: encode(draft.bits, ...draft.size) };
  draft.painted = false;
  return draft.proposal;
}

// Save what was painted; strokes that end meanwhile are saved after it, as one.
export async function endStroke() {
  const mine = work.draft;
  mine.stroke = null;
  if (saving) return (saving.again = true);
  saving = { again: false };
  try {
    do {
      saving.again = false;
      const { mask } = getProposal(mine);
      if (mask.counts.length < 2) {
        say("Nothing of it is left; Delete takes it away.");
        break;
      }
      mine.of = await save(mine, mask);
      mine.mask = find(mine.of)?.mask;
    } while (saving.again);
  } finally {
    saving = null;
    if (!mine.stroke) mine.proposal = null;
    tell("tool");
  }
}

// Enter: place what the keyboard's cross is for, else take.
export function press(out) {
  if (state.tool === "brush") {
    work.cross ??= center();
    if (work.draft.stroke) endStroke();
    else beginStroke(work.cross, out || work.minus);
    return redraw();
  }
  const may = work.cross && (crossMoved || (!work.draft.points.length && !work.draft.vertices.length && !work.draft.box));
  if (!may && isDrafting() && !work.draft.corner) return take();
  work.cross ??= center();
  if (state.tool === "point" || (state.tool === "box" && work.draft.box)) addPoint(work.cross, out || work.minus);
  else if (state.tool === "box") work.draft.corner ? setBox(work.draft.corner, work.cross) : (work.draft.corner = work.cross);
  else if (state.tool === "polygon") addVertex(work.cross);
  crossMoved = false;
  whisper(`${state.tool === "point" ? "Point" : "Corner"} at ${work.cross.map(Math.round).join(", ")}.`);
  tell("tool");
}

const center = () => inside(toImage(stage.clientWidth / 2, stage.clientHeight / 2));

export function moveCross(dx, dy) {
  work.cross = inside(work.cross ? [work.cross[0] + dx / view.scale, work.cross[1] + dy / view.scale] : center());
  crossMoved = true;
  work.pointer = null;
  if (work.draft.stroke) moveStroke(work.cross);
  follow(work.cross);
  redraw();
}

// Take back the last point, corner or vertex; whether there was one.
export function stepBack() {
  if (!isDrafting() || state.tool === "brush") return false;
  if (work.draft.corner) work.draft.corner = null;
  else if (work.draft.vertices.length) work.draft.vertices.pop();
  else if (work.draft.points.length) work.draft.points.pop();
  else work.draft.box = null;
  tell("tool");
  if (state.tool !== "polygon") proposing = propose();
  return true;
}

// Esc: what is being made, then the tool, then the selection.
export function leave() {
  if (state.tool === "select") {
    state.selected = null;
    return tell("selection");
  }
  const kept = isDrafting() && state.tool !== "brush" && !(work.draft.of && !work.draft.points.length);
  if (!kept) return setTool("select");
  asking?.abort();
  setTool(state.tool, { fix: work.draft.of });
  say("Left.");
}

on("answer", () => {
  if (work.draft.of && !find(work.draft.of)) setTool("select");
});
on("image", () => {
  if (state.tool !== "select") setTool("select");
});
