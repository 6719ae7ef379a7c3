// From image to image.
import { act } from "./acts.js";
import { $, say } from "./dom.js";
import { findBeside, findNext, openImage } from "./gallery.js";
import { on, state } from "./state.js";

export async function step(by) {
  const id = await findBeside(by);
  if (id) openImage(id);
  else say(by > 0 ? "This is the last image." : "This is the first image.");
}

// The image is reviewed, as it is shown; the riskiest that is open comes next.
export async function reviewAndGo() {
  if (!state.answer) return;
  const next = findNext();
  if (state.answer.state !== "reviewed") {
    const seen = { act: "reviewed" };
    if (state.threshold !== null) seen.score_floor = Math.max(0, Math.min(1, state.threshold));
    act([seen], "Reviewed.");
  }
  const id = await next;
  if (id) openImage(id);
  else say("All images are reviewed.");
}

const reopen = () => act([{ act: "unreviewed" }], "Open again.");

on("answer image", () => {
  const { answer } = state;
  const reviewed = answer?.state === "reviewed";
  $("reviewed").disabled = !answer;
  $("reviewed-text").textContent = reviewed ? "Next by risk" : "Reviewed, next";
  $("reopen").hidden = !reviewed;
});
$("reviewed").addEventListener("click", reviewAndGo);
$("reopen").addEventListener("click", reopen);
$("back").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
