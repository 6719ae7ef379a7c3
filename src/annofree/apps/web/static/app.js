// The page: loads what is shown, follows what other tabs do.
import { redo, resumeActs, setAnswer, undo } from "./acts.js";
import { ask, imagePath } from "./api.js";
import { $, option, say, whisper } from "./dom.js";
import "./draft.js";
import "./found.js";
import { loadImages, openImage } from "./gallery.js";
import "./keys.js";
import "./names.js";
import "./pointers.js";
import { fit, setPicture, setShow, zoom } from "./stage.js";
import { on, shown, state, tell } from "./state.js";
import { isDrafting, leave, setMinus, setRadius, setTool, stepBack, take } from "./tools.js";
import "./walk.js";

const POLL = 2; // seconds
let seen = null; // revision of the workspace
let asking = null;

async function loadPicture(id) {
  const image = new Image();
  image.src = imagePath(id, "picture");
  await image.decode();
  return image;
}

// The answer about the image that is shown, and its picture where it is another one.
async function load({ picture = false } = {}) {
  const id = state.id;
  asking?.abort();
  if (!id) return;
  asking = new AbortController();
  const { signal } = asking;
  state.looking = true;
  tell("looking");
  const shownPicture = picture ? loadPicture(id).catch(() => null) : null;
  if (picture) {
    shownPicture.then((image) => image && state.id === id && setPicture(id, image, image.naturalWidth, image.naturalHeight));
  }
  try {
    const answer = await ask(`${imagePath(id, "answer")}?task=instance`, { signal });
    if (picture) setPicture(id, await shownPicture, answer.width, answer.height);
    if (state.id !== id || signal.aborted) return;
    state.looking = false;
    setAnswer(answer);
    const found = shown().length;
    whisper(`${id.split("/").at(-1)}: ${found} found.`);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  } finally {
    if (asking?.signal === signal) {
      state.looking = false;
      tell("looking");
    }
  }
}

async function refresh() {
  state.workspace = await ask("api/workspace");
  tell("workspace");
}

// What other tabs, or other people, did since.
async function poll() {
  if (document.hidden || seen === null) return;
  let news;
  try {
    news = await ask(`api/revisions?since=${seen}`, { patient: false });
  } catch {
    return;
  }
  const renamed = news.version !== undefined && news.version !== state.workspace.version;
  if (news.revision === seen && !renamed) return;
  seen = news.revision;
  await Promise.all([refresh(), loadImages()]);
  if (!state.id) return openFirst();
  if (renamed) return load();
  if (!news.images.includes(state.id)) return;
  const answer = await ask(`${imagePath(state.id, "answer")}?task=instance`);
  if (answer.image !== state.id || answer.revision <= (state.answer?.revision ?? -1)) return;
  setAnswer(answer);
  say("Changed in another tab; this is the present state.");
}

async function followNews() {
  for (;;) {
    await new Promise((done) => setTimeout(done, POLL * 1000));
    await poll().catch(() => {});
  }
}

function openFirst() {
  openImage(state.images.images[0]?.id ?? null);
}

on("image", () => {
  $("welcome").hidden = Boolean(state.id);
  $("caption").textContent = state.id?.split("/").at(-1) ?? "";
  $("caption").title = state.id ?? "";
  history.replaceState(null, "", state.id ? `#image=${encodeURIComponent(state.id)}` : "#");
  setPicture(null, null, 1, 1);
  load({ picture: true });
});
on("looking", () => {
  $("busy").hidden = !state.looking;
});
on("asked", () => {
  load();
  loadImages();
});
on("answer view", () => {
  const { answer } = state;
  $("undo").disabled = !answer?.undo;
  $("redo").disabled = !answer?.redo;
  const words = answer ? `${answer.image.split("/").at(-1)}, ${answer.width} by ${answer.height}, ${shown().length} instances shown` : "Image, loading";
  $("stage").setAttribute("aria-label", state.id ? words : "No image");
  Object.assign($("stage").dataset, { image: answer?.image ?? "", version: answer?.version ?? "", revision: answer?.revision ?? "" });
});
on("workspace counts", () => {
  const { title, images, counts, classes } = state.workspace;
  $("title").textContent = title === "annofree" ? "" : title;
  document.title = title === "annofree" ? title : `${title} – annofree`;
  $("progress").hidden = !images;
  $("progress").max = Math.max(1, images);
  $("progress").value = counts.reviewed;
  $("progress-text").textContent = images ? `${counts.reviewed.toLocaleString()} of ${images.toLocaleString()} reviewed` : "";
  $("as-class").replaceChildren(...classes.map((one) => option(one.name)));
});
on("workspace tool", () => {
  if (state.activeClass) $("as-class").value = state.activeClass;
});
on("view", () => {
  for (const name of ["masks", "boxes", "tags"]) $(`show-${name}`).checked = state.show[name];
  for (const radio of document.getElementsByName("map")) radio.checked = radio.value === state.show.map;
});

for (const name of ["masks", "boxes", "tags"]) $(`show-${name}`).addEventListener("change", (event) => setShow({ [name]: event.target.checked }));
for (const radio of document.getElementsByName("map")) radio.addEventListener("change", () => setShow({ map: radio.value }));
$("strength").addEventListener("input", () => setShow({ strength: Number($("strength").value) }));
$("as-class").addEventListener("change", () => {
  state.activeClass = $("as-class").value;
  tell("tool");
});
for (const button of $("tools").children) {
  button.addEventListener("click", () => setTool(button.dataset.tool, button.dataset.tool === "point" ? { fix: null } : {}));
}
const CLICKS = {
  undo: () => (isDrafting() && stepBack()) || undo(),
  redo,
  take,
  cancel: leave,
  fix: () => setTool("point"),
  minus: () => setMinus($("minus").getAttribute("aria-pressed") !== "true"),
  "zoom-in": () => zoom(1.25),
  "zoom-out": () => zoom(0.8),
  "zoom-fit": fit,
};
for (const [id, run] of Object.entries(CLICKS)) $(id).addEventListener("click", run);
$("size").addEventListener("input", () => setRadius(Number($("size").value)));

// After a click the keys are the image's again.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button");
  if (event.detail && button && !button.closest("dialog, form, #names, #filter, .tabs, .top, #pager")) $("stage").focus({ preventScroll: true });
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

function openPanel(name) {
  document.body.dataset.panel = name;
  for (const tab of document.querySelectorAll(".tabs button")) tab.setAttribute("aria-pressed", tab.dataset.panel === name);
}
for (const tab of document.querySelectorAll(".tabs button")) tab.addEventListener("click", () => openPanel(tab.dataset.panel));

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
$("theme").setAttribute("aria-pressed", isDark());
$("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("annofree-theme", theme);
  $("theme").setAttribute("aria-pressed", theme === "dark");
});

async function start() {
  await refresh();
  seen = state.workspace.revision ?? (await ask("api/revisions?since=0")).revision;
  if (!state.workspace.classes.length) openPanel("names");
  await resumeActs();
  await loadImages(0);
  const wanted = new URLSearchParams(location.hash.slice(1)).get("image");
  if (wanted) openImage(wanted);
  else openFirst();
  if (!state.id) tell("image answer");
  followNews();
}
start().catch((error) => say(error.message));
