// What the page knows, and who is told when it changes.

export const state = {
  workspace: null,
  images: { total: 0, offset: 0, images: [] },
  query: { order: "risk", state: "all", class: "", q: "" },
  id: null, // of the image that is shown
  answer: null, // about it
  looking: false, // whether an answer is on its way
  selected: null, // id of an instance
  hovered: null,
  threshold: null, // the score that is shown down to; null: as the policy says
  hidden: new Set(), // classes that are not shown
  show: { masks: true, boxes: false, tags: false, map: "", strength: 0.4 },
  tool: "select",
  activeClass: null, // of a new instance
};

const listeners = new Map();

export function on(topics, run) {
  for (const topic of topics.split(" ")) listeners.set(topic, [...(listeners.get(topic) ?? []), run]);
}

// Tell of changed: workspace, images, image, answer, selection, view, tool.
export function tell(topics) {
  const told = new Set();
  for (const topic of topics.split(" ")) for (const run of listeners.get(topic) ?? []) told.add(run);
  for (const run of told) run();
}

export const instances = () => state.answer?.instances ?? [];
export const find = (id) => instances().find((one) => one.id === id) ?? null;
export const isMachine = (one) => one.source === "machine" && one.state === "open";

// Whether an instance is drawn: a human's word stands, the machine's hangs on the policy or the slider.
export function isShown(one) {
  if (state.hidden.has(one.class) || one.state === "rejected") return false;
  if (!isMachine(one) || one.score === null) return true;
  return state.threshold === null ? one.kept : one.score >= state.threshold;
}

export const shown = () => instances().filter(isShown);

export function colorOf(name) {
  return state.workspace?.classes.find((one) => one.name === name)?.color ?? "#8a8f98";
}

export const formatScore = (score) => (score === null ? "" : score >= 0.0995 || score === 0 ? score.toFixed(2) : score.toPrecision(2));
