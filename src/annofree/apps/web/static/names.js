// The names that are looked for, and how: chips, or text with one a line.
import { ask } from "./api.js";
import { $, dot, icon, make, option, say } from "./dom.js";
import { on, state, tell } from "./state.js";

// "cat: kitten, tabby" is one class; "cat, dog" are two.
function parseNames(text) {
  const classes = [];
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    const parts = colon < 0 ? line.split(",").map((name) => [name, ""]) : [[line.slice(0, colon), line.slice(colon + 1)]];
    for (const [name, synonyms] of parts) {
      if (!name.trim()) continue;
      const words = synonyms.split(/[,|]/).map((word) => word.trim());
      classes.push({ name: name.trim(), synonyms: words.filter(Boolean) });
    }
  }
  return classes;
}

const writeName = ({ name, synonyms }) => (synonyms.length ? `${name}: ${synonyms.join(", ")}` : name);

const plain = () => state.workspace.classes.map(({ name, synonyms }) => ({ name, synonyms }));

async function change(path, json, words) {
  try {
    state.workspace = await ask(path, { method: "PUT", json });
    say(words);
    tell("workspace asked");
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}

async function setClasses(classes, words) {
  const names = new Map(classes.map((one) => [one.name, one])); // the last of a name counts, at the place of the first
  return change("api/classes", { classes: [...names.values()] }, words);
}

function removeName(name) {
  setClasses(plain().filter((one) => one.name !== name), `${name} is no longer looked for.`);
  $("name-input").focus();
}

function edit(one) {
  $("name-input").value = writeName(one);
  $("name-input").focus();
}

function drawChips() {
  $("chips").replaceChildren(
    ...state.workspace.classes.map((one) => {
      const text = make("span", { textContent: one.name });
      const more = one.synonyms.length ? make("small", { textContent: ` ${one.synonyms.join(", ")}` }) : null;
      const name = make("button", { type: "button", className: "name", title: "Edit", onclick: () => edit(one) }, dot(one.color), text);
      if (more) name.append(more);
      const away = make("button", { type: "button", className: "away", onclick: () => removeName(one.name), aria: { label: `Remove ${one.name}` } }, icon("cross"));
      return make("li", { className: "chip" }, name, away);
    }),
  );
}

function fillSelect(id, values, value, titles = {}) {
  $(id).replaceChildren(...values.map((one) => option(one, titles[one] ?? one)));
  $(id).value = value;
  $(id).closest("label").hidden = values.length < 2;
}

on("workspace", () => {
  const space = state.workspace;
  drawChips();
  if (document.activeElement !== $("names-text")) $("names-text").value = space.classes.map(writeName).join("\n");
  const titles = Object.fromEntries((space.methods ?? []).map((one) => [one.name, one.title]));
  fillSelect("method", Object.keys(titles), space.method, titles);
  fillSelect("preset", space.presets ?? [], space.preset);
  fillSelect("policy", space.policies ?? [], space.policy);
  $("how-text").textContent = [space.method, space.preset, space.policy].filter(Boolean).join(" · ");
  if (!space.classes.some((one) => one.name === state.activeClass)) state.activeClass = space.classes[0]?.name ?? null;
});

$("names-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = $("name-input");
  const added = parseNames(input.value);
  if (!added.length) return;
  input.value = "";
  const words = `Looking for ${added.map((one) => one.name).join(", ")}.`;
  if (!(await setClasses([...plain(), ...added], words))) input.value = added.map(writeName).join("\n");
});

$("name-input").addEventListener("keydown", (event) => {
  const last = state.workspace?.classes.at(-1);
  if (event.key === "Backspace" && !event.target.value && last) {
    event.preventDefault();
    edit(last);
  }
});

$("name-input").addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text");
  if (!text.includes("\n")) return;
  event.preventDefault();
  setClasses([...plain(), ...parseNames(text)], "The names are added.");
});

$("names-as-text").addEventListener("click", () => {
  const form = $("names-text-form");
  form.hidden = !form.hidden;
  $("names-form").hidden = $("chips").hidden = !form.hidden;
  $("names-as-text").setAttribute("aria-expanded", !form.hidden);
  $("names-as-text").textContent = form.hidden ? "As text" : "As chips";
  if (!form.hidden) $("names-text").focus();
});

$("names-text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setClasses(parseNames($("names-text").value), "The names are changed.");
});
$("names-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("names-text-form").requestSubmit();
});

for (const id of ["method", "preset", "policy"]) {
  $(id).addEventListener("change", () => change("api/settings", { [id]: $(id).value }, `The ${id} is ${$(id).value} now.`));
}
