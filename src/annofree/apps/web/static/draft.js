// What is being made: over the image, and in words under it.
import { $ } from "./dom.js";
import { addOverlay, shapeOf } from "./stage.js";
import { colorOf, find, on, state } from "./state.js";
import { getProposal, work } from "./tools.js";

const TOUCH = matchMedia("(pointer: coarse)").matches;
const HINTS = TOUCH ? {
  select: "Tap an instance. One finger moves the image, two zoom.",
  point: "Tap what belongs to it; Leave out is for what does not. Take ends it.",
  box: "Drag a box around it, then tap to mend. Take ends it.",
  brush: "Paint; each stroke is saved. Erase takes away.",
  polygon: "Tap its corners; the first corner, or Take, closes it.",
} : {
  select: "Click an instance, or walk with ↑ and ↓. Drag moves the image, the wheel zooms. ? shows all keys.",
  point: "Click what belongs to it, Shift-click what does not; Enter takes it. Or arrows move a cross and Enter places.",
  box: "Drag a box around it, then click to mend; Enter takes it. Or arrows move a cross and Enter sets corners.",
  brush: "Paint; Shift erases, [ and ] change the size. Each stroke is saved. Or Enter puts the brush down and arrows paint.",
  polygon: "Click its corners; Enter, or the first corner, closes it. Or arrows move a cross and Enter sets corners.",
};

// What is being made, over the image.
addOverlay((context, px) => {
  if (state.tool === "select") return;
  const color = colorOf(find(work.draft.of)?.class ?? state.activeClass);
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
  const proposal = getProposal();
  if (proposal?.mask.counts.length > 1) {
    const { path } = shapeOf(proposal.mask);
    context.fillStyle = color;
    context.globalAlpha = 0.55;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
    line(path, state.tool === "brush" ? [] : [6, 4]);
  }
  const free = work.cross ?? work.pointer;
  const corner = work.draft.corner && free && [work.draft.corner, free];
  if (work.draft.box || corner) {
    const [x0, y0, x1, y1] = work.draft.box ?? corner.flat();
    const path = new Path2D();
    path.rect(x0, y0, x1 - x0, y1 - y0);
    line(path, [3, 4]);
  }
  if (work.draft.vertices.length) {
    const path = new Path2D();
    for (const vertex of free ? [...work.draft.vertices, free] : work.draft.vertices) path.lineTo(...vertex);
    line(path);
  }
  const spots = [...work.draft.points, ...work.draft.vertices.map(([x, y]) => [x, y, 2])];
  for (const [x, y, kind] of spots) drawSpot(context, px, x, y, ["#d1242f", "#1a7f37", "#fff"][kind], kind);
  if (state.tool === "brush" && free) {
    const ring = new Path2D();
    ring.arc(...free, work.radius, 0, 7);
    line(ring);
  }
  if (work.cross) {
    const path = new Path2D();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      path.moveTo(work.cross[0] + 4 * px * dx, work.cross[1] + 4 * px * dy);
      path.lineTo(work.cross[0] + 16 * px * dx, work.cross[1] + 16 * px * dy);
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
  $("stage").dataset.tool = state.tool;
  $("working").hidden = !working;
  $("hint").textContent = HINTS[state.tool];
  const one = find(work.draft.of);
  $("as-label").hidden = Boolean(one);
  $("fixing").hidden = !one;
  $("fixing").textContent = one ? `Mending ${one.class}` : "";
  $("size-label").hidden = state.tool !== "brush";
  $("minus").hidden = state.tool === "polygon" || (state.tool === "box" && !work.draft.box);
  $("minus").lastChild.textContent = state.tool === "brush" ? "Erase" : "Leave out";
  $("take").hidden = state.tool === "brush";
  $("take").disabled = state.tool === "polygon" ? work.draft.vertices.length < 3 : !work.draft.proposal;
  $("cancel").textContent = state.tool === "brush" ? "Done" : "Cancel";
});
