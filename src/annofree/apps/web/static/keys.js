// Keys for everything.
import { redo, undo } from "./acts.js";
import { openDialog } from "./dialogs.js";
import { $, make } from "./dom.js";
import { accept, explain, reject, remove, rename, renameTo, walk } from "./found.js";
import { fit, setShow, zoom } from "./stage.js";
import { find, state, tell } from "./state.js";
import { growBrush, isDrafting, leave, moveCross, press, setMinus, setTool, stepBack, take } from "./tools.js";
import { reviewAndGo, step } from "./walk.js";

const toggle = (name) => setShow({ [name]: !state.show[name] });

// Key, how it is written, what it does in words, what it does.
const KEYS = {
  Images: [
    ["ArrowLeft", "←", "Image before", () => step(-1)],
    ["ArrowRight", "→", "Next image", () => step(1)],
    [" ", "Space", "Reviewed, on to the riskiest image that is open", () => reviewAndGo()],
  ],
  Instances: [
    ["ArrowUp", "↑", "Instance before", () => walk(-1)],
    ["ArrowDown", "↓", "Next instance", () => walk(1)],
    ["a", "A", "Accept", accept],
    ["x", "X", "Reject", reject],
    ["r", "R", "Rename", rename],
    ["1…9", "1 … 9", "Rename to that name of the list, or name what is being made", null],
    ["Delete", "Del", "Delete", remove],
    ["e", "E", "Explain, in another tab", explain],
  ],
  "All the time": [
    ["^z", "Ctrl Z", "Undo", () => stepBack() || undo()],
    ["^y", "Ctrl Y", "Do again", redo],
    ["m", "M", "Masks", () => toggle("masks")],
    ["o", "O", "Boxes", () => toggle("boxes")],
    ["t", "T", "Names and scores", () => toggle("tags")],
    ["l", "L", "Label map", () => setShow({ map: state.show.map ? "" : "semantic" })],
    ["s", "S", "As the policy says; the slider is one Tab on", () => focusSlider()],
    ["+", "+", "Zoom in", () => zoom(1.25)],
    ["-", "-", "Zoom out", () => zoom(0.8)],
    ["0", "0", "Whole image", fit],
    ["?", "?", "These keys", () => openDialog("keys-dialog")],
  ],
  Make: [
    ["n", "N", "New by clicks", () => setTool("point", { fix: null })],
    ["f", "F", "Mend the selected one by clicks", () => setTool("point")],
    ["b", "B", "Box, for the selected one or a new one", () => setTool("box")],
    ["p", "P", "Brush, on the selected one or a new one", () => setTool("brush")],
    ["g", "G", "Polygon, for the selected one or a new one", () => setTool("polygon")],
    ["v", "V", "Select", () => setTool("select")],
    ["-m", "Shift", "Held while clicking: leave out, or erase", null],
    ["i", "I", "Leave out, or erase, until pressed again", () => setMinus($("minus").getAttribute("aria-pressed") !== "true")],
    ["[", "[", "Smaller brush", () => growBrush(0.8)],
    ["]", "]", "Larger brush", () => growBrush(1.25)],
    ["Enter", "Enter", "Place a point where the arrows moved the cross, else take what is proposed", null],
    ["Escape", "Esc", "Leave what is being made, then the tool, then the selection", leave],
    ["Backspace", "Backspace", "Take back the last point", stepBack],
  ],
};
const ACTIONS = new Map(Object.values(KEYS).flat().filter(([, , , run]) => run).map(([key, , , run]) => [key, run]));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SINGLE = "annofree-single-keys";

function focusSlider() {
  $("by-policy").click();
  $("score").focus();
}

for (const [head, keys] of Object.entries(KEYS)) {
  const rows = keys.map(([, written, words]) => make("div", {}, make("dt", {}, ...written.split(" ").map((key) => (key === "…" ? "…" : make("kbd", { textContent: key })))), make("dd", { textContent: words })));
  $("keys-list").append(make("section", {}, make("h3", { textContent: head }), make("dl", {}, ...rows)));
}
$("open-keys").addEventListener("click", () => openDialog("keys-dialog"));
$("single-keys").checked = localStorage.getItem(SINGLE) !== "off";
$("single-keys").addEventListener("change", () => localStorage.setItem(SINGLE, $("single-keys").checked ? "on" : "off"));

// Fields keep their keys; buttons and links keep Enter and Space.
function isTaken({ target, key }) {
  if (target.closest("dialog")) return true;
  if (target.matches("textarea, select, input:not([type=checkbox], [type=radio])")) return key !== "Escape";
  if (target.matches("input")) return key === " " || key in ARROWS;
  return target.closest("button, a, summary") && (key === "Enter" || key === " ");
}

document.addEventListener("keydown", (event) => {
  const { key, shiftKey, altKey } = event;
  const command = event.ctrlKey || event.metaKey;
  if (altKey || event.defaultPrevented) return;
  if (isTaken(event)) return;
  if (run(event, key, command, shiftKey)) event.preventDefault();
});

function run(event, key, command, shift) {
  const drawing = state.tool !== "select";
  if (command && key === "Enter") return take() ?? true;
  if (command) return call(key.toLowerCase() === "z" && shift ? "^y" : `^${key.toLowerCase()}`);
  if (drawing && key in ARROWS) return moveCross(...ARROWS[key].map((part) => part * (shift ? 1 : 10))) ?? true;
  if (drawing && key === "Enter") return press(shift) ?? true;
  if (key === "Escape" && event.target.matches("input, select, textarea")) return event.target.blur() ?? true;
  if (key.length === 1 && key !== " " && key !== "?" && !$("single-keys").checked) return false;
  if (/^[1-9]$/.test(key)) return nameBy(Number(key) - 1);
  if (key === "Backspace" && !isDrafting()) return false;
  return call(key === "=" ? "+" : key.length === 1 ? key.toLowerCase() : key);
}

function call(key) {
  const action = ACTIONS.get(key);
  action?.();
  return Boolean(action);
}

function nameBy(k) {
  const name = state.workspace?.classes[k]?.name;
  if (!name) return false;
  if (state.tool === "select" && find(state.selected)) renameTo(name);
  else {
    state.activeClass = name;
    tell("tool");
  }
  return true;
}
