// What was found: the slider, the classes shown, the list, and what can be done with the selected instance.
import { act } from "./acts.js";
import { imagePath } from "./api.js";
import { $, dot, icon, make, reveal, say, whisper } from "./dom.js";
import { openDialog } from "./dialogs.js";
import { follow } from "./stage.js";
import { colorOf, find, formatScore, instances, isMachine, isShown, on, shown, state, tell } from "./state.js";

// Scores of the machine's instances that no one has judged, surest first: the stops of the slider.
const scores = () =>
  instances()
    .filter((one) => isMachine(one) && one.score !== null)
    .map((one) => one.score)
    .sort((a, b) => b - a);

function drawSlider() {
  const stops = scores();
  const slider = $("score");
  slider.max = stops.length;
  slider.disabled = !stops.length;
  const kept = instances().filter((one) => isMachine(one) && one.kept).length;
  const count = state.threshold === null ? kept : stops.filter((score) => score >= state.threshold).length;
  slider.value = count;
  slider.style.setProperty("--part", stops.length ? count / stops.length : 0);
  const floor = count ? formatScore(stops[count - 1]) : "none";
  $("score-text").textContent = state.threshold === null ? "by policy" : floor;
  slider.setAttribute("aria-valuetext", `${count} of ${stops.length}${state.threshold === null ? ", as the policy says" : `, down to ${floor}`}`);
  $("by-policy").hidden = state.threshold === null;
}

$("score").addEventListener("input", () => {
  const stops = scores();
  const count = Number($("score").value);
  state.threshold = count ? stops[count - 1] : Infinity;
  tell("view");
});
$("by-policy").addEventListener("click", () => {
  state.threshold = null;
  tell("view");
  $("score").focus();
});

function drawFilter() {
  const counts = new Map();
  for (const one of instances()) if (isShown(one) || state.hidden.has(one.class)) counts.set(one.class, (counts.get(one.class) ?? 0) + 1);
  $("filter").replaceChildren(
    ...[...counts].map(([name, count]) =>
      make(
        "button",
        { type: "button", className: "chip", aria: { pressed: !state.hidden.has(name) }, onclick: () => toggleClass(name) },
        dot(colorOf(name)),
        make("span", { textContent: name }),
        make("small", { textContent: ` ${state.hidden.has(name) ? "hidden" : count}` }),
      ),
    ),
  );
}

function toggleClass(name) {
  if (!state.hidden.delete(name)) state.hidden.add(name);
  tell("view");
  [...$("filter").children].find((chip) => chip.children[1].textContent === name)?.focus();
}

const STATES = { accepted: ["check", "accepted"], rejected: ["cross", "rejected"] };

function describe(one) {
  const who = one.who ? ` by ${one.who}` : "";
  if (one.source === "human") return `drawn or mended${who}`;
  if (one.state !== "open") return `${one.state}${who}`;
  return one.kept ? "kept by the policy" : one.verdict;
}

function drawRow(one) {
  const name = make("span", { className: "name", textContent: one.class });
  const mark = one.source === "human" ? icon("name") : STATES[one.state] ? icon(STATES[one.state][0]) : null;
  const row = make(
    "button",
    { type: "button", className: `instance ${one.state} ${one.source}`, onclick: () => select(one.id), data: { id: one.id } },
    dot(colorOf(one.class)),
    name,
    make("span", { className: "score", textContent: formatScore(one.score) }),
  );
  if (!(isMachine(one) && one.kept)) row.append(make("small", { textContent: describe(one) }));
  if (mark) row.querySelector(".score").prepend(mark);
  if (one.id === state.selected) row.setAttribute("aria-current", "true");
  row.addEventListener("pointerenter", () => light(one.id));
  row.addEventListener("pointerleave", () => light(null));
  row.addEventListener("focus", () => light(one.id));
  return make("li", {}, row);
}

function light(id) {
  state.hovered = id;
  tell("lit");
}

// Instances as the list has them: those that are drawn, surest first, a human's in front.
const listed = () => shown().sort((a, b) => (b.score ?? 2) - (a.score ?? 2));

function drawLists() {
  const focused = document.activeElement?.closest?.(".instance")?.dataset.id;
  const drawn = listed();
  const others = instances().filter((one) => !isShown(one) && !state.hidden.has(one.class));
  $("list").replaceChildren(...drawn.map(drawRow));
  if (!drawn.length) $("list").append(make("li", { className: "none soft", textContent: emptyText() }));
  $("rest").hidden = !others.length;
  $("rest-text").textContent = `${others.length} not shown`;
  $("rest-list").replaceChildren(...others.map(drawRow));
  $("found-count").textContent = state.answer ? `${drawn.length} of ${instances().length}` : "";
  if (focused) rowOf(focused)?.focus({ preventScroll: true });
}

function emptyText() {
  if (!state.id) return "";
  if (!state.workspace?.classes.length) return "Type the names of the things to find.";
  if (state.looking || !state.answer) return "Looking…";
  return instances().length ? "Nothing is kept. Move the slider to see more." : "Nothing was found.";
}

const rowOf = (id) => [...document.querySelectorAll(".instance")].find((row) => row.dataset.id === id);

function select(id) {
  state.selected = id;
  const one = find(id);
  if (one) follow([(one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2]);
  tell("selection");
}

// Select the instance `step` places on.
export function walk(step) {
  const drawn = listed();
  if (!drawn.length) return say("No instance is shown.");
  const at = drawn.findIndex((one) => one.id === state.selected);
  const one = drawn[(at < 0 ? (step > 0 ? 0 : -1) : at + step + drawn.length) % drawn.length] ?? drawn.at(-1);
  select(one.id);
  whisper([one.class, formatScore(one.score), describe(one)].filter(Boolean).join(", "));
}

// Judge the selected instance, and go on to the next that is shown.
async function judge(kind, words) {
  const one = find(state.selected);
  if (!one) return say("Select an instance first: a click, or the arrows up and down.");
  const drawn = listed();
  const at = drawn.indexOf(one);
  const after = drawn[at + 1] ?? drawn[at - 1];
  const saved = act([{ act: kind, instance: one.id }], `${one.class} ${words}.`);
  select(after?.id ?? null);
  await saved;
}

export const accept = () => judge("accept", "accepted");
export const reject = () => judge("reject", "rejected");
export const remove = () => judge("delete", "deleted");

export async function renameTo(name) {
  const one = find(state.selected);
  if (one && one.class !== name) await act([{ act: "rename", instance: one.id, class: name }], `${one.class} is ${name} now.`);
}

export function rename() {
  const one = find(state.selected);
  if (!one) return say("Select an instance first.");
  $("rename-head").textContent = `Rename ${one.class}`;
  $("rename-input").value = "";
  drawNames();
  openDialog("rename-dialog");
  $("rename-input").focus();
}

const namesLike = (text) => state.workspace.classes.filter((one) => one.name.toLowerCase().includes(text.trim().toLowerCase()));

function drawNames() {
  const choose = (name) => () => {
    $("rename-dialog").close();
    renameTo(name);
  };
  $("rename-list").replaceChildren(
    ...namesLike($("rename-input").value).map((one) =>
      make("li", {}, make("button", { type: "button", className: "instance", onclick: choose(one.name) }, dot(one.color), make("span", { textContent: one.name }))),
    ),
  );
}
$("rename-input").addEventListener("input", drawNames);
$("rename-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("rename-list").querySelector("button")?.click();
});

export function explain() {
  if (find(state.selected)) $("explain").click();
  else say("Select an instance first.");
}

on("selection answer view tool workspace", () => {
  const one = find(state.selected);
  $("selected").hidden = !one || state.tool !== "select";
  $("dock").classList.toggle("idle", !one && state.tool === "select");
  if (!one) return;
  $("selected-name").textContent = one.class;
  $("selected-score").textContent = formatScore(one.score);
  $("selected-verdict").textContent = describe(one);
  $("selected").querySelector(".dot").style.setProperty("--color", colorOf(one.class));
  $("explain").href = `${imagePath(state.id, "explain")}?class=${encodeURIComponent(one.class)}`;
});
on("answer view workspace looking", () => {
  drawSlider();
  drawFilter();
  drawLists();
});
on("selection", () => {
  for (const row of document.querySelectorAll(".instance[data-id]")) {
    if (row.dataset.id === state.selected) {
      row.setAttribute("aria-current", "true");
      reveal($("lists"), row);
    } else row.removeAttribute("aria-current");
  }
});
for (const [id, run] of Object.entries({ accept, reject, rename, delete: remove })) $(id).addEventListener("click", run);
