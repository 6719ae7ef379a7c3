// The images: pages of thumbnails, filters, the order by risk, adding more.
import { ask, imagePath } from "./api.js";
import { $, icon, make, option, reveal, say } from "./dom.js";
import { on, state, tell } from "./state.js";

const PAGE = 60;
let asking = null;

const describe = (one) =>
  [
    one.id.split("/").at(-1),
    one.failed ? `failed: ${one.failed}` : one.state,
    one.corrected ? `${one.corrected} corrected` : "",
    one.instances === null ? "" : `${one.instances} found`,
    one.risk === null ? "" : `risk ${one.risk.toFixed(2)}`,
  ].filter(Boolean);

function parametersOf({ order, state: which, class: name, q }, offset, limit) {
  const parameters = new URLSearchParams({ offset, limit, order, state: which });
  if (name) parameters.set("class", name);
  if (q) parameters.set("q", q);
  return parameters;
}

export async function loadImages(offset = state.images.offset) {
  asking?.abort();
  asking = new AbortController();
  try {
    state.images = await ask(`api/images?${parametersOf(state.query, offset, PAGE)}`, { signal: asking.signal });
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
    return;
  }
  if (!state.images.images.length && offset > 0) return loadImages(Math.max(0, Math.floor((state.images.total - 1) / PAGE) * PAGE));
  tell("images");
}

// The riskiest image that is open, but the one that is shown; null where none is left.
export async function findNext() {
  const { images } = await ask(`api/images?${parametersOf({ ...state.query, order: "risk", state: "open" }, 0, 2)}`);
  return images.find((one) => one.id !== state.id)?.id ?? null;
}

// The image `step` places behind the one that is shown, over the edges of pages.
export async function findBeside(step) {
  const { images, offset, total } = state.images;
  const at = images.findIndex((one) => one.id === state.id);
  const wanted = at < 0 ? 0 : at + step;
  if (images[wanted]) return images[wanted].id;
  const place = offset + wanted;
  if (place < 0 || place >= total) return null;
  await loadImages(Math.floor(place / PAGE) * PAGE);
  return state.images.images[place - state.images.offset]?.id ?? null;
}

function drawOne(one) {
  const image = make("img", { src: imagePath(one.id, "thumbnail"), alt: "", loading: "lazy", decoding: "async" });
  const words = describe(one);
  const marks = make("span", { className: "marks", ariaHidden: "true" });
  if (one.failed) marks.append(make("span", { className: "failed", textContent: "!" }));
  if (one.corrected) marks.append(make("span", { className: "corrected" }, icon("name")));
  if (one.state === "reviewed") marks.append(make("span", { className: "reviewed" }, icon("check")));
  const risk = one.risk === null ? null : make("span", { className: "risk", ariaHidden: "true" });
  risk?.style.setProperty("--risk", Math.max(0, Math.min(1, one.risk)));
  const button = make("button", { type: "button", title: words.join(" · "), aria: { label: words.join(", ") }, onclick: () => openImage(one.id) }, image, marks);
  if (risk) button.append(risk);
  if (one.id === state.id) button.setAttribute("aria-current", "true");
  button.dataset.id = one.id;
  return make("li", {}, button);
}

function drawGallery() {
  const { images, total, offset } = state.images;
  const focused = document.activeElement?.closest?.("#gallery button")?.dataset.id;
  $("gallery").replaceChildren(...images.map(drawOne));
  if (!images.length) $("gallery").append(make("li", { className: "none soft", textContent: state.workspace?.images ? "No image is like this." : "No image yet." }));
  if (focused) buttonOf(focused)?.focus({ preventScroll: true });
  $("images-count").textContent = total ? total.toLocaleString() : "";
  const pages = Math.max(1, Math.ceil(total / PAGE));
  const page = Math.floor(offset / PAGE) + 1;
  $("pager").hidden = pages < 2;
  Object.assign($("page"), { value: page, max: pages });
  $("pages").textContent = `of ${pages.toLocaleString()}`;
  $("page-back").disabled = page <= 1;
  $("page-next").disabled = page >= pages;
}

const buttonOf = (id) => [...$("gallery").querySelectorAll("button")].find((button) => button.dataset.id === id);

export function openImage(id) {
  if (!id || id === state.id) return;
  Object.assign(state, { id, answer: null, selected: null, hovered: null });
  tell("image answer selection");
}

async function addFiles(files) {
  const images = [...files];
  if (!images.length) return;
  say(`Adding ${images.length} ${images.length === 1 ? "image" : "images"}…`);
  const added = [];
  const rejected = [];
  for (let k = 0; k < images.length; k += 8) {
    const body = new FormData();
    for (const file of images.slice(k, k + 8)) body.append("files", file, file.name || "pasted.png");
    try {
      const answer = await ask("api/images", { method: "POST", body });
      added.push(...answer.added);
      rejected.push(...answer.rejected);
    } catch (error) {
      rejected.push(...(error.body?.rejected ?? [{ file: images[k].name, error: error.message }]));
    }
  }
  const bad = rejected.map((one) => `${one.file}: ${one.error}`).join(" ");
  say(`${added.length} added.${bad ? ` Not taken: ${bad}` : ""}`);
  state.workspace = await ask("api/workspace");
  tell("workspace");
  await loadImages(0);
  if (added.length) openImage(added[0]);
}

on("images", drawGallery);
on("image", () => {
  for (const button of $("gallery").querySelectorAll("button")) {
    if (button.dataset.id === state.id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  const current = buttonOf(state.id);
  if (current) reveal($("gallery"), current);
});
on("workspace", () => {
  const names = state.workspace.classes.map((one) => one.name);
  $("class").replaceChildren(option("", "All classes"), ...names.map((name) => option(name)));
  if (!names.includes(state.query.class)) state.query.class = "";
  $("class").value = state.query.class;
});

for (const id of ["order", "state", "class"]) {
  $(id).addEventListener("change", () => {
    state.query[id] = $(id).value;
    loadImages(0);
  });
}
let typing = 0;
$("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    state.query.q = $("q").value.trim();
    loadImages(0);
  }, 200);
});
$("images-filter").addEventListener("submit", (event) => event.preventDefault());
$("page-back").addEventListener("click", () => loadImages(state.images.offset - PAGE));
$("page-next").addEventListener("click", () => loadImages(state.images.offset + PAGE));
$("page").addEventListener("change", () => {
  const pages = Math.max(1, Math.ceil(state.images.total / PAGE));
  loadImages((Math.max(1, Math.min(pages, Number($("page").value) || 1)) - 1) * PAGE);
});

$("files").addEventListener("change", () => {
  addFiles($("files").files);
  $("files").value = "";
});
for (const id of ["choose", "add-images"]) $(id).addEventListener("click", () => $("files").click());
document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) addFiles(event.clipboardData.files);
});
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  addFiles(event.dataTransfer.files);
});
