// Small things about the document.

export const $ = (id) => document.getElementById(id);

// An element with properties, and children behind them: make("li", {className: "row"}, "text", child).
export function make(tag, properties = {}, ...children) {
  const { data, aria, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(data ?? {})) element.dataset[name] = value;
  for (const [name, value] of Object.entries(aria ?? {})) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

// A spot of a class's color.
export function dot(color) {
  const spot = make("span", { className: "dot" });
  spot.style.setProperty("--color", color);
  return spot;
}

export function option(value, text = value) {
  return make("option", { value, textContent: text });
}

let hiding = 0;

// Tell what happened: seen over the image for a while, and read out.
export function say(text) {
  const told = $("told");
  clearTimeout(hiding);
  told.textContent = "";
  requestAnimationFrame(() => {
    told.textContent = text;
    told.classList.add("fresh");
  });
  hiding = setTimeout(() => told.classList.remove("fresh"), 3000 + 60 * text.length);
}

// Tell what is seen elsewhere: only read out.
export function whisper(text) {
  $("heard").textContent = text;
}

export function setBanner(text) {
  const banner = $("banner");
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
}

// Bring an element into sight within the box that scrolls; the page itself stays where it is.
export function reveal(box, element) {
  const [outer, inner] = [box.getBoundingClientRect(), element.getBoundingClientRect()];
  if (inner.top < outer.top) box.scrollTop -= outer.top - inner.top + 4;
  else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom + 4;
}
