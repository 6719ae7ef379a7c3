// What a human does to an image: sent at once, one after the other, and kept until the server has saved it.
import { ask, countWaiting, imagePath } from "./api.js";
import { say } from "./dom.js";
import { find, state, tell } from "./state.js";

const KEPT = "annofree-acts"; // of this tab; a reload sends what still waits
let line = Promise.resolve();
const revisions = new Map(); // of the images that were shown
let waiting = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
countWaiting(() => waiting.length);

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(waiting));
  } catch {
    sessionStorage.removeItem(KEPT); // too large for it: they are kept as long as the page is open, which asks before it is closed
  }
}

// Take an answer as the present one, if its image is still the one that is shown.
export function setAnswer(answer) {
  if (!answer) return;
  noteState(answer);
  revisions.set(answer.image, answer.revision);
  if (answer.image !== state.id) return;
  for (const one of answer.instances) {
    const before = find(one.id);
    if (before && sameMask(before.mask, one.mask)) one.mask = before.mask; // its outline is kept
  }
  state.answer = answer;
  if (!find(state.selected)) state.selected = null;
  tell("answer selection");
}

// The gallery and the counts follow at once; what the server counts comes with the next news.
function noteState({ image, state: now }) {
  const row = state.images.images.find((one) => one.id === image);
  if (!row || row.state === now) return;
  row.state = now;
  state.workspace.counts.reviewed += now === "reviewed" ? 1 : -1;
  tell("images counts");
}

function sameMask(a, b) {
  return a.counts.length === b.counts.length && a.counts.every((count, k) => count === b.counts[k]);
}

// Whether acts are in an answer already: they had been saved, and only the reply was lost.
function isDone({ acts, revision }, answer) {
  if (answer.revision !== revision + 1) return false;
  return (acts ?? []).every((one) => {
    const there = answer.instances.find((instance) => instance.id === one.instance);
    if (one.act === "reviewed" || one.act === "unreviewed") return (answer.state === "reviewed") === (one.act === "reviewed");
    if (one.act === "add") return answer.instances.length > 0 && sameMask(answer.instances.at(-1).mask, one.mask);
    if (one.act === "delete") return !there;
    if (one.act === "replace") return there && sameMask(there.mask, one.mask);
    if (one.act === "rename") return there?.class === one.class;
    return there?.state === `${one.act}ed`;
  });
}

async function send(item) {
  const revision = (item.revision = revisions.get(item.id) ?? item.revision);
  try {
    const json = item.acts ? { acts: item.acts, revision } : { revision };
    const answer = await ask(imagePath(item.id, item.path), { method: "POST", json });
    const added = item.select === "added" ? answer.instances.at(-1) : null;
    if (added && answer.image === state.id) state.selected = added.id;
    setAnswer(answer);
    say(item.words);
    return added?.id ?? null;
  } catch (error) {
    const now = error.status === 409 ? error.body?.answer : null;
    if (now && isDone(item, now)) {
      setAnswer(now);
      say(item.words);
    } else if (now) {
      setAnswer(now);
      say("This image had been changed elsewhere, in another tab or before the connection broke. What is saved is shown now; please look whether your last act is in it.");
    } else say(`Not saved: ${error.message}`);
    return null;
  }
}

// Send acts about an image; `words` are told when they are saved.  Resolves when they are, with the id of what was added.
export function act(acts, words, { id = state.id, path = "acts", select = null } = {}) {
  return queue({ id, acts, words, path, select, revision: revisions.get(id) ?? 0 });
}

function queue(item) {
  waiting.push(item);
  keep();
  line = line.then(async () => {
    const added = await send(item);
    waiting = waiting.filter((one) => one !== item);
    keep();
    return added;
  });
  return line;
}

export const undo = () => act(null, "Undone.", { path: "undo" });
export const redo = () => act(null, "Done again.", { path: "redo" });

// After a reload: send what the server had not confirmed.
export function resumeActs() {
  const left = waiting;
  waiting = [];
  for (const item of left) queue(item);
  return line;
}

addEventListener("beforeunload", (event) => {
  if (waiting.length) event.preventDefault();
});
