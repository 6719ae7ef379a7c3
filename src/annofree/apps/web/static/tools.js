// Select, and make or mend an instance: clicks and boxes (asked of the server), brush, polygon; by pointer, touch or keys.
import { act } from "./acts.js";
import { ask, imagePath } from "./api.js";
import { $, say } from "./dom.js";
import { decode, encode, fill, paint } from "./rle.js";
import { addOverlay, follow, hit, inside, pan, redraw, shapeOf, toImage, toScreen, view, zoom, zoomTo } from "./stage.js";
import { colorOf, find, on, state, tell } from "./state.js";

const HINTS = {
  select: "Click an instance, or go through them with ↑ and ↓. Drag moves, the wheel zooms. ? shows all keys.",
  point: "Click what belongs to it; Shift or right click what does not. Enter takes it, Esc leaves. By keys: arrows move the cross, Enter places a point.",
  box: "Drag a box around it; clicks inside then mend it. Enter takes it. By keys: arrows move the cross, Enter sets each corner.",
  brush: "Paint; Shift or right button erases, [ and ] change the size. Each stroke is saved. By keys: Enter puts the brush down, arrows paint.",
  polygon: "Click corner after corner; Enter, or a click on the first, closes it. Backspace takes the last back.",
};
const CLOSE = 10; // px to the first corner that close a polygon
const stage = $("stage");

// What is being made. `of`: the instance that is mended, or null for a new one.
const fresh = () => ({ of: null, points: [], box: null, corner: null, proposal: null, vertices: [], bits: null, stroke: null });
let draft = fresh();
let cross = null; // the keyboard's cross, [x, y]
let crossMoved = false;
let pointer = null; // [x, y] in the image
let asking = null;
let minus = false;
let radius = 12; // px of the image
let saving = null; // the brush's stroke that is on its way
const pressed = new Map(); // pointers that are down
let drag = null;

export const isDrafting = () => Boolean(draft.points.length || draft.box || draft.corner || draft.vertices.length || draft.proposal);

export function setTool(tool, { fix = state.selected } = {}) {
  asking?.abort();
  draft = fresh();
  cross = null;
  setMinus(false);
  if (tool !== "select" && !state.answer) return say("There is no image to work on.");
  if (tool !== "select" && !state.activeClass && !find(fix)) {
    $("name-input").focus();
    return say("Type a name first: a new instance needs one.");
  }
  draft.of = tool === "select" ? null : (find(fix)?.id ?? null);
  if (tool === "point" && draft.of) draft.box = find(draft.of).box;
  state.tool = tool;
  if (!draft.of && tool !== "select") state.selected = null;
  if (tool !== "select") stage.focus({ preventScroll: true });
  tell("tool selection");
}

export function setMinus(on) {
  minus = on;
  $("minus").setAttribute("aria-pressed", on);
}

export function setRadius(size) {
  radius = Math.max(1, Math.min(120, size / 2));
  $("size").value = radius * 2;
  redraw();
}
export const growBrush = (factor) => setRadius(Math.max(2, Math.round(radius * 2 * factor + Math.sign(factor - 1))));

// Ask the server for the mask of the points and the box; only the last question counts.
async function propose() {
  asking?.abort();
  if (!draft.points.length && !draft.box) {
    draft.proposal = null;
    return tell("tool");
  }
  asking = new AbortController();
  const mine = draft;
  try {
    const json = { points: draft.points, box: draft.box };
    const answer = await ask(imagePath(state.id, "segment"), { method: "POST", json, signal: asking.signal });
    if (draft === mine) draft.proposal = answer;
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.message);
  }
  tell("tool");
}

function addPoint([x, y], out) {
  draft.points.push([x, y, out ? 0 : 1]);
  if (draft.of && draft.box && !out) {
    const [x0, y0, x1, y1] = draft.box;
    draft.box = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
  }
  crossMoved = false;
  tell("tool");
  propose();
}

function setBox([ax, ay], [bx, by]) {
  const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  draft.corner = null;
  if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return tell("tool");
  draft.box = box;
  crossMoved = false;
  tell("tool");
  propose();
}

function addVertex(at) {
  const [first] = draft.vertices;
  if (first && draft.vertices.length > 2 && distance(first, at) < CLOSE) return take();
  draft.vertices.push(at);
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
  let mask = draft.proposal?.mask;
  if (state.tool === "polygon") {
    if (draft.vertices.length < 3) return say("A polygon needs three corners.");
    const { height, width } = state.answer;
    mask = encode(fill(draft.vertices, height, width), height, width);
  }
  if (!mask || mask.counts.length < 2) return say("There is nothing to take yet.");
  const of = draft.of;
  const tool = state.tool;
  draft = fresh();
  cross = null;
  await save(of, mask);
  if (of) setTool("select");
  else setTool(tool, { fix: null });
}

// Save a mask as the instance `of`, or as a new one; the id that it then has.
async function save(of, mask) {
  const name = find(of)?.class ?? state.activeClass;
  if (of) {
    await act([{ act: "replace", instance: of, mask }], `${name} has its new mask.`);
    return of;
  }
  await act([{ act: "add", class: name, mask }], `${name} is added.`, { select: "added" });
  return state.selected;
}

// A stroke of the brush changes the pixels at once, and is saved when it ends.
function beginStroke(at, erase) {
  const { height, width } = state.answer;
  if (!saving) {
    const one = find(draft.of);
    if (!draft.bits || draft.mask !== one?.mask) draft.bits = one ? decode(one.mask) : new Uint8Array(height * width);
  }
  draft.stroke = { last: at, value: erase ? 0 : 1 };
  moveStroke(at);
}

function moveStroke(at) {
  const { height, width } = state.answer;
  paint(draft.bits, height, width, draft.stroke.last, at, radius, draft.stroke.value);
  draft.stroke.last = at;
  draft.proposal = { mask: encode(draft.bits, height, width) };
  redraw();
}

async function endStroke() {
  draft.stroke = null;
  if (saving) return (saving.again = true);
  const mine = draft;
  saving = { again: false };
  try {
    do {
      saving.again = false;
      const mask = draft.proposal.mask;
      if (mask.counts.length < 2) {
        say("Nothing of it is left; Delete takes it away.");
        break;
      }
      const id = await save(mine.of, mask);
      mine.of = id;
      mine.mask = find(id)?.mask;
    } while (saving.again && draft === mine);
  } finally {
    saving = null;
    if (draft === mine && !draft.stroke) draft.proposal = null;
    tell("tool");
  }
}

// Enter: place what the keyboard's cross is for, else take.
export function press(out) {
  if (state.tool === "brush") {
    cross ??= center();
    if (draft.stroke) endStroke();
    else beginStroke(cross, out || minus);
    return redraw();
  }
  const may = cross && (crossMoved || (!draft.points.length && !draft.vertices.length && !draft.box));
  if (!may && isDrafting() && !draft.corner) return take();
  cross ??= center();
  if (state.tool === "point" || (state.tool === "box" && draft.box)) addPoint(cross, out || minus);
  else if (state.tool === "box") draft.corner ? setBox(draft.corner, cross) : (draft.corner = cross);
  else if (state.tool === "polygon") addVertex(cross);
  crossMoved = false;
  say(`${state.tool === "point" ? "Point" : "Corner"} at ${cross.map(Math.round).join(", ")}.`, { quiet: true });
  tell("tool");
}

const center = () => inside(toImage(stage.clientWidth / 2, stage.clientHeight / 2));

export function moveCross(dx, dy) {
  cross = inside(cross ? [cross[0] + dx / view.scale, cross[1] + dy / view.scale] : center());
  crossMoved = true;
  pointer = null;
  if (draft.stroke) moveStroke(cross);
  follow(cross);
  redraw();
}

// Take back the last point, corner or vertex; whether there was one.
export function stepBack() {
  if (!isDrafting() || state.tool === "brush") return false;
  if (draft.corner) draft.corner = null;
  else if (draft.vertices.length) draft.vertices.pop();
  else if (draft.points.length) draft.points.pop();
  else draft.box = null;
  tell("tool");
  if (state.tool !== "polygon") propose();
  return true;
}

// Esc: what is being made, then the tool, then the selection.
export function leave() {
  if (state.tool === "select") {
    state.selected = null;
    return tell("selection");
  }
  const kept = isDrafting() && state.tool !== "brush" && !(draft.of && !draft.points.length);
  if (!kept) return setTool("select");
  asking?.abort();
  setTool(state.tool, { fix: draft.of });
  say("Left.");
}

// Pointers.
const at = (event) => {
  const area = stage.getBoundingClientRect();
  return [event.clientX - area.left, event.clientY - area.top];
};
const isOut = (event) => minus !== (event.shiftKey || event.button === 2 || (event.buttons & 2) > 0 || event.ctrlKey);

stage.addEventListener("pointerdown", (event) => {
  if (event.target.closest("button") || !state.answer) return;
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  const here = at(event);
  pressed.set(event.pointerId, here);
  if (pressed.size === 2) {
    if (draft.stroke) endStroke();
    draft.corner = null;
    drag = { kind: "pinch" };
    return;
  }
  if (pressed.size > 2) return;
  const point = inside(toImage(...here));
  cross = null;
  drag = { kind: "click", from: here, point, out: isOut(event), button: event.button };
  if (event.button === 1) drag.kind = "pan";
  else if (state.tool === "brush") {
    drag.kind = "brush";
    beginStroke(toImage(...here), drag.out);
  } else if (state.tool === "box" && !draft.box) {
    drag.kind = "box";
    draft.corner = point;
  }
});

stage.addEventListener("pointermove", (event) => {
  const here = at(event);
  pointer = toImage(...here);
  if (pressed.has(event.pointerId)) moveDrag(event.pointerId, here);
  else if (state.answer && state.tool === "select") hover(hit(pointer)?.id ?? null);
  if (state.tool !== "select") redraw();
});

function moveDrag(id, here) {
  const [x, y] = pressed.get(id);
  const others = [...pressed].filter(([other]) => other !== id).map(([, place]) => place);
  pressed.set(id, here);
  if (drag?.kind === "pinch" && others.length) {
    const [[ox, oy]] = others;
    const factor = Math.hypot(here[0] - ox, here[1] - oy) / Math.max(1, Math.hypot(x - ox, y - oy));
    zoom(factor, (here[0] + ox) / 2, (here[1] + oy) / 2);
    pan((here[0] - x) / 2, (here[1] - y) / 2);
  } else if (drag?.kind === "brush") moveStroke(pointer);
  else if (drag?.kind === "box") redraw();
  else if (drag?.kind === "pan") pan(here[0] - x, here[1] - y);
  else if (drag?.kind === "click" && Math.hypot(here[0] - drag.from[0], here[1] - drag.from[1]) > 5) {
    drag.kind = "pan";
    pan(here[0] - drag.from[0], here[1] - drag.from[1]);
  }
}

stage.addEventListener("pointerup", (event) => {
  if (!pressed.delete(event.pointerId)) return;
  const done = drag;
  if (pressed.size) return;
  drag = null;
  if (done?.kind === "brush" && draft.stroke) endStroke();
  else if (done?.kind === "box") setBox(done.point, inside(toImage(...at(event))));
  else if (done?.kind === "click") click(done);
});
stage.addEventListener("pointercancel", (event) => {
  pressed.delete(event.pointerId);
  if (draft.stroke) endStroke();
  draft.corner = null;
  drag = null;
});
stage.addEventListener("pointerleave", () => {
  pointer = null;
  hover(null);
});
stage.addEventListener("contextmenu", (event) => state.tool !== "select" && event.preventDefault());
stage.addEventListener("dblclick", () => {
  const one = find(state.selected);
  if (state.tool === "select" && one) zoomTo(one.box);
});
stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : event.deltaMode ? 0.05 : 0.0015)), ...at(event));
  },
  { passive: false },
);

function click({ point, out }) {
  if (state.tool === "select") {
    state.selected = hit(point)?.id ?? null;
    tell("selection");
  } else if (state.tool === "polygon") addVertex(point);
  else addPoint(point, out);
}

function hover(id) {
  if (state.hovered === id) return;
  state.hovered = id;
  stage.classList.toggle("over", Boolean(id));
  tell("lit");
}

// What is being made, over the image.
addOverlay((context, px) => {
  if (state.tool === "select") return;
  const color = colorOf(find(draft.of)?.class ?? state.activeClass);
  const line = (path, dashes = []) => {
    context.setLineDash(dashes.map((length) => length * px));
    context.strokeStyle = "#000a";
    context.lineWidth = 4 * px;
    context.stroke(path);
    context.strokeStyle = "#fff";
    context.lineWidth = 2 * px;
    context.stroke(path);
    context.setLineDash([]);
  };
  if (draft.proposal?.mask.counts.length > 1) {
    const { path } = shapeOf(draft.proposal.mask);
    context.fillStyle = color;
    context.globalAlpha = 0.55;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
    line(path, state.tool === "brush" ? [] : [6, 4]);
  }
  const free = cross ?? pointer;
  const corner = draft.corner && free && [draft.corner, free];
  if (draft.box || corner) {
    const [x0, y0, x1, y1] = draft.box ?? corner.flat();
    const path = new Path2D();
    path.rect(x0, y0, x1 - x0, y1 - y0);
    line(path, [3, 4]);
  }
  if (draft.vertices.length) {
    const path = new Path2D();
    for (const vertex of free ? [...draft.vertices, free] : draft.vertices) path.lineTo(...vertex);
    line(path);
  }
  const spots = [...draft.points, ...draft.vertices.map(([x, y]) => [x, y, 2])];
  for (const [x, y, kind] of spots) drawSpot(context, px, x, y, ["#d1242f", "#1a7f37", "#fff"][kind], kind);
  if (state.tool === "brush" && free) {
    const ring = new Path2D();
    ring.arc(...free, radius, 0, 7);
    line(ring);
  }
  if (cross) {
    const path = new Path2D();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(cross[0] + 4 * px * dx, cross[1] + 4 * px * dy);
      path.lineTo(cross[0] + 16 * px * dx, cross[1] + 16 * px * dy);
    }
    line(path);
  }
});

function drawSpot(context, px, x, y, color, kind) {
  context.beginPath();
  context.arc(x, y, (kind === 2 ? 4.5 : 7) * px, 0, 7);
  context.fillStyle = color;
  context.fill();
  context.strokeStyle = kind === 2 ? "#000a" : "#fff";
  context.lineWidth = 1.5 * px;
  context.stroke();
  if (kind === 2) return;
  context.beginPath();
  context.moveTo(x - 3.5 * px, y);
  context.lineTo(x + 3.5 * px, y);
  if (kind === 1) {
    context.moveTo(x, y - 3.5 * px);
    context.lineTo(x, y + 3.5 * px);
  }
  context.stroke();
}

// The dock says what the tool does.
on("tool selection answer workspace", () => {
  const working = state.tool !== "select";
  for (const button of $("tools").children) button.setAttribute("aria-pressed", button.dataset.tool === state.tool);
  stage.dataset.tool = state.tool;
  $("working").hidden = !working;
  $("hint").textContent = HINTS[state.tool];
  const one = find(draft.of);
  $("as-label").hidden = Boolean(one);
  $("fixing").hidden = !one;
  $("fixing").textContent = one ? `Mending ${one.class}` : "";
  $("size-label").hidden = state.tool !== "brush";
  $("minus").hidden = state.tool === "polygon" || (state.tool === "box" && !draft.box);
  $("minus").lastChild.textContent = state.tool === "brush" ? "Erase" : "Leave out";
  $("take").hidden = state.tool === "brush";
  $("take").disabled = state.tool === "polygon" ? draft.vertices.length < 3 : !draft.proposal;
  $("cancel").textContent = state.tool === "brush" ? "Done" : "Cancel";
});
on("answer", () => {
  if (draft.of && !find(draft.of)) setTool("select");
});
on("image", () => {
  pressed.clear();
  drag = null;
  if (state.tool !== "select") setTool("select");
});
