"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const MOST_TAGS = 25; // names on an image, of the surest; all are in the list below it
  const thousands = (n) => n.toLocaleString("en-US");
  const counted = (n, noun) => `${thousands(n)} ${noun}${n === 1 ? "" : "s"}`;

  // Every image of the page, with its instances as they are drawn: the surest last.
  const items = all("[data-item]").map((node) => ({
    node,
    open: one(".open", node),
    view: one(".view", node),
    name: one(".name", node),
    count: one(".count", node),
    total: Number(node.dataset.instances ?? 0),
    before: one(".count", node)?.textContent,
    layers: all("img.layer", node),
    chips: all("[data-chip]", node),
    marks: all("path[data-class]", node).map((path) => ({
      path,
      score: Number(path.dataset.score ?? 1),
      class: path.dataset.class,
      title: one("title", path)?.textContent ?? "",
    })),
  }));
  const shown = () => items.filter((item) => !item.node.hidden);

  // The address keeps what is set, so that it can be sent: #score=0.5&hide=2,3&kind=labels&order=least&open=4
  const asked = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const keep = (key, value) => {
    if (value) asked.set(key, value);
    else asked.delete(key);
    try {
      history.replaceState(null, "", `#${asked}`);
    } catch {
      // some browsers keep the address of a file as it is
    }
  };

  // Filters: the least score, and which classes.
  const least = one("#least");
  const choices = all("[data-choice]");
  const tallies = JSON.parse(one("#tallies")?.textContent ?? "{}");
  const reach = (pairs, step) => pairs.reduce((sum, [k, n]) => (k >= step ? sum + n : sum), 0);

  const filterItem = (item, score, hidden, filtered) => {
    const left = {};
    let n = 0;
    for (const mark of item.marks) {
      const on = mark.score >= score && !hidden.has(mark.class);
      mark.path.classList.toggle("off", !on);
      if (on) {
        n += 1;
        left[mark.class] = (left[mark.class] ?? 0) + 1;
      }
    }
    for (const layer of item.layers) {
      layer.classList.toggle("off", layer.dataset.class ? hidden.has(layer.dataset.class) : hidden.size > 0);
    }
    for (const chip of item.chips) {
      chip.textContent = left[chip.dataset.chip] ?? 0;
      chip.parentNode.classList.toggle("off", !left[chip.dataset.chip]);
    }
    if (item.count && item.marks.length) {
      const more = n < item.marks.length || item.total === n ? "" : " or more"; // not all of a crowd are drawn
      item.count.textContent = filtered && n < item.total ? `${thousands(n)}${more} of ${counted(item.total, "instance")}` : item.before;
    }
    item.node.hidden = filtered && !n;
    return n;
  };

  const countClasses = (step, hidden) => {
    let left = 0;
    let total = 0;
    for (const row of all("[data-row]")) {
      const k = row.dataset.row;
      for (const kind of ["instances", "images"]) one(`[data-count=${kind}]`, row).textContent = thousands(reach(tallies[kind][k], step));
      row.classList.toggle("dim", hidden.has(k));
    }
    tallies.instances.forEach((pairs, k) => {
      total += reach(pairs, 0);
      if (!hidden.has(String(k))) left += reach(pairs, step);
    });
    return [left, total];
  };

  const filter = () => {
    if (!least) return;
    const step = least.valueAsNumber;
    const hidden = new Set(choices.filter((choice) => !choice.checked).map((choice) => choice.dataset.choice));
    const filtered = step > 0 || hidden.size > 0;
    const having = items.filter((item) => filterItem(item, step / 100, hidden, filtered) > 0).length;
    const [left, total] = countClasses(step, hidden);
    one("#least-told").textContent = (step / 100).toFixed(2);
    one("#classes-told").textContent = hidden.size ? `${choices.length - hidden.size} of ${choices.length}` : "all";
    one("#told").textContent =
      `${filtered ? `${thousands(left)} of ` : ""}${counted(total, "instance")} of the run` +
      `${filtered ? " are left" : ""}; ${thousands(having)} of the ${counted(items.length, "image")} here ${having === 1 ? "has" : "have"} one` +
      `${filtered && having < items.length ? ", the others are hidden" : ""}.`;
    for (const sheet of all("[data-sheet]")) sheet.hidden = hidden.has(sheet.dataset.sheet) || Number(sheet.dataset.best) < step / 100;
    for (const note of all(".nothing")) note.hidden = all("[data-item]:not([hidden])", note.previousElementSibling).length > 0;
    keep("score", step ? (step / 100).toFixed(2) : "");
    keep("hide", [...hidden].join(","));
  };

  const choose = (on) => {
    for (const choice of choices) if (!choice.closest("li").hidden) choice.checked = on;
    filter();
  };

  const find = (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const choice of choices) choice.closest("li").hidden = !choice.closest("li").textContent.toLowerCase().includes(wanted);
  };

  const sort = () => {
    const order = one("#order").value;
    const keys = { surest: (i) => -i.node.dataset.mean, least: (i) => i.node.dataset.mean, most: (i) => -i.marks.length };
    const key = keys[order] ?? ((i) => i.node.dataset.item);
    const none = (i) => Number(order !== "" && !i.marks.length); // with nothing found there is nothing to compare
    items.sort((a, b) => none(a) - none(b) || key(a) - key(b) || a.node.dataset.item - b.node.dataset.item);
    items[0].node.parentNode.append(...items.map((item) => item.node));
    keep("order", order);
  };

  // The large view: the image itself moves into the dialog, with all that is drawn over it.
  const large = one("#large");
  const stage = one("#large-stage");
  let current = null;

  const fit = () => {
    if (!current) return;
    const image = one("img", current.view);
    const ratio = image.getAttribute("width") / image.getAttribute("height");
    current.view.style.width = `${Math.min(stage.clientWidth, stage.clientHeight * ratio)}px`;
    untangle(all(".tag", current.view));
  };

  const untangle = (tags) => {
    const taken = [];
    const right = stage.firstElementChild.getBoundingClientRect().right;
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    for (const node of tags) {
      node.style.margin = "";
      node.style.marginLeft = `${Math.min(0, right - node.getBoundingClientRect().right)}px`;
      let box = node.getBoundingClientRect();
      for (let down = 1; down <= 8 && taken.some((other) => meet(other, box)); down += 1) {
        node.style.marginTop = `${down * box.height}px`;
        box = node.getBoundingClientRect();
      }
      taken.push(box);
    }
  };

  const putBack = () => {
    if (!current) return;
    all(".tag", current.view).forEach((tag) => tag.remove());
    for (const mark of current.marks) mark.path.classList.remove("lit");
    current.view.style.width = "";
    const image = one("img", current.view);
    if (image.hasAttribute("sizes")) image.sizes = current.sizes;
    current.open.append(current.view);
    current.open.style.minHeight = "";
    current = null;
  };

  const tag = (mark, view, width, height) => {
    const box = mark.path.getBBox();
    const node = document.createElement("span");
    node.className = "tag instances";
    node.dataset.class = mark.class;
    node.textContent = mark.title;
    node.style.left = `${Math.min(92, (100 * box.x) / width)}%`;
    node.style.top = `${Math.min(95, (100 * box.y) / height)}%`;
    view.append(node);
  };

  const list = (mark) => {
    const entry = document.createElement("li");
    const button = document.createElement("button");
    const dot = document.createElement("i");
    dot.className = "dot";
    button.type = "button";
    button.dataset.class = mark.class;
    button.append(dot, mark.title);
    const light = (on) => () => mark.path.classList.toggle("lit", on);
    button.addEventListener("focus", light(true));
    button.addEventListener("blur", light(false));
    button.addEventListener("pointerenter", light(true));
    button.addEventListener("pointerleave", light(false));
    entry.append(button);
    return entry;
  };

  const enlarge = (item) => {
    putBack();
    current = item;
    const image = one("img", item.view);
    item.sizes = image.sizes;
    item.open.style.minHeight = `${item.view.offsetHeight}px`;
    if (image.hasAttribute("sizes")) image.sizes = "100vw";
    one("#large-name").textContent = item.name.textContent;
    one("#large-file").href = item.open.href;
    const marks = item.marks.filter((mark) => !mark.path.classList.contains("off")).reverse();
    one("#large-found").replaceChildren(...marks.map(list));
    const maps = all(".chips.labels, .chips.panoptic", item.node).map((names) => names.cloneNode(true));
    one("#large-maps").replaceChildren(...maps);
    stage.append(item.view);
    if (!large.open) large.showModal();
    const drawing = one("svg", item.view);
    if (drawing && !drawing.classList.contains("drawn") && one("#large-names").ariaPressed === "true") {
      const { width, height } = drawing.viewBox.baseVal;
      for (const mark of marks.slice(0, MOST_TAGS)) tag(mark, item.view, width, height);
    }
    fit();
    keep("open", item.node.dataset.item);
  };

  const beside = (list_, item, step) => list_[Math.min(list_.length - 1, Math.max(0, list_.indexOf(item) + step))];

  const turn = (step) => {
    const next = beside(shown().filter((item) => item.view), current, step);
    if (next && next !== current) enlarge(next);
  };

  const closed = () => {
    const item = current;
    putBack();
    keep("open", "");
    item?.open.focus({ preventScroll: true });
    item?.node.scrollIntoView({ block: "nearest" });
  };

  const walk = (step) => {
    const there = shown().filter((item) => item.open);
    const at = there.find((item) => item.node.contains(document.activeElement));
    const next = at ? beside(there, at, step) : there[0];
    next?.open.focus({ preventScroll: true });
    next?.node.scrollIntoView({ block: "start" });
  };

  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=radio]), select, textarea")) return;
    const step = { j: 1, k: -1 }[event.key] ?? (large.open ? { ArrowRight: 1, ArrowLeft: -1 }[event.key] : undefined);
    if (!step) return;
    event.preventDefault();
    if (large.open) turn(step);
    else walk(step);
  };

  for (const item of items) {
    if (!item.view) continue;
    item.open.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab, as the person wishes
      event.preventDefault();
      enlarge(item);
    });
  }
  large.addEventListener("close", closed);
  one("#large-close").addEventListener("click", () => large.close());
  one("#large-next").addEventListener("click", () => turn(1));
  one("#large-previous").addEventListener("click", () => turn(-1));
  one("#large-names").addEventListener("click", (event) => {
    event.currentTarget.ariaPressed = String(event.currentTarget.ariaPressed !== "true");
    enlarge(current);
  });
  addEventListener("resize", fit);
  document.addEventListener("keydown", keys);
  for (const kind of all("input[name=kind]")) {
    kind.addEventListener("change", () => keep("kind", kind.id === one("input[name=kind]").id ? "" : kind.id.replace("show-", "")));
  }

  // What the address asks for.
  const kind = document.getElementById(`show-${asked.get("kind")}`);
  if (kind) kind.checked = true;
  if (least) {
    one("#filters").hidden = false;
    least.value = Math.round(100 * Number(asked.get("score") ?? 0)) || 0;
    const hidden = (asked.get("hide") ?? "").split(",");
    for (const choice of choices) choice.checked = !hidden.includes(choice.dataset.choice);
    least.addEventListener("input", filter);
    for (const choice of choices) choice.addEventListener("change", filter);
    one("#all-classes").addEventListener("click", () => choose(true));
    one("#no-class").addEventListener("click", () => choose(false));
    one("#find-class")?.addEventListener("input", find);
    filter();
  }
  if (one("#order")) {
    one("#order").value = asked.get("order") ?? "";
    one("#order").addEventListener("change", sort);
    if (one("#order").value) sort();
  }
  const wanted = items.find((item) => item.node.dataset.item === asked.get("open"));
  if (wanted?.view) enlarge(wanted);
})();
