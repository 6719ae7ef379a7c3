// Dialogs: keys and export; a click beside one closes it.
import { $, make, say } from "./dom.js";
import { on, state } from "./state.js";

const FORMATS = ["coco", "yolo", "voc", "label-studio", "cvat", "labelme", "png"];

export function openDialog(id) {
  if (!$(id).open) $(id).showModal();
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

on("workspace", () => {
  const formats = state.workspace.formats ?? FORMATS.map((name) => ({ name, title: name }));
  $("formats").replaceChildren(
    ...formats.map(({ name, title }) => {
      const link = make("a", { href: `api/export?format=${encodeURIComponent(name)}`, download: "", textContent: title, data: { format: name } });
      link.addEventListener("click", () => {
        $("export-dialog").close();
        say(`Writing the labels as ${title}…`);
      });
      return make("li", {}, link);
    }),
  );
});
$("open-export").addEventListener("click", () => openDialog("export-dialog"));
