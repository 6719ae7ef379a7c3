// Pointers over the image: select, place, drag, paint; two fingers zoom.
import { $ } from "./dom.js";
import { hit, inside, pan, redraw, toImage, zoom, zoomTo } from "./stage.js";
import { find, on, state, tell } from "./state.js";
import { addPoint, addVertex, beginStroke, endStroke, moveStroke, setBox, work } from "./tools.js";

const stage = $("stage");
const pressed = new Map(); // pointers that are down
let drag = null;

const at = (event) => {
  const area = stage.getBoundingClientRect();
  return [event.clientX - area.left, event.clientY - area.top];
};
const isOut = (event) => work.minus !== (event.shiftKey || event.button === 2 || (event.buttons & 2) > 0 || event.ctrlKey);

stage.addEventListener("pointerdown", (event) => {
  if (event.target.closest("button") || !state.answer) return;
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(event.pointerId);
  const here = at(event);
  pressed.set(event.pointerId, here);
  if (pressed.size === 2) {
    if (work.draft.stroke) endStroke();
    work.draft.corner = null;
    drag = { kind: "pinch" };
    return;
  }
  if (pressed.size > 2) return;
  const point = inside(toImage(...here));
  work.cross = null;
  drag = { kind: "click", from: here, point, out: isOut(event), button: event.button };
  if (event.button === 1) drag.kind = "pan";
  else if (state.tool === "brush") {
    drag.kind = "brush";
    beginStroke(toImage(...here), drag.out);
  } else if (state.tool === "box" && !work.draft.box) {
    drag.kind = "box";
    work.draft.corner = point;
  }
});

stage.addEventListener("pointermove", (event) => {
  const here = at(event);
  work.pointer = toImage(...here);
  if (pressed.has(event.pointerId)) moveDrag(event.pointerId, here);
  else if (state.answer && state.tool === "select") hover(hit(work.pointer)?.id ?? null);
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
  } else if (drag?.kind === "brush") moveStroke(work.pointer);
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
  if (done?.kind === "brush" && work.draft.stroke) endStroke();
  else if (done?.kind === "box") setBox(done.point, inside(toImage(...at(event))));
  else if (done?.kind === "click") click(done);
});
stage.addEventListener("pointercancel", (event) => {
  pressed.delete(event.pointerId);
  if (work.draft.stroke) endStroke();
  work.draft.corner = null;
  drag = null;
});
stage.addEventListener("pointerleave", () => {
  work.pointer = null;
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

on("image", () => {
  pressed.clear();
  drag = null;
});
