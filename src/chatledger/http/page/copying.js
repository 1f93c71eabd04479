// Buttons that copy text to the clipboard.

import { make } from "./elements.js";

const CONFIRMED_MS = 2000;

/** Return a button "Copy" for `getText()`; only screen readers say `what` it copies. */
export function makeCopyButton(what, getText) {
  const label = () => ["Copy", make("span", { className: "unseen", textContent: ` ${what}` })];
  const button = make("button", { type: "button", className: "copy" }, ...label());
  let timer;
  button.addEventListener("click", async () => {
    const words = (await copy(getText())) ? "Copied" : "Could not copy";
    button.replaceChildren(words);
    // Emptied first, so that the same words are announced again.
    const result = document.querySelector("#copy-result");
    result.textContent = "";
    requestAnimationFrame(() => (result.textContent = words));
    clearTimeout(timer);
    timer = setTimeout(() => button.replaceChildren(...label()), CONFIRMED_MS);
  });
  return button;
}

/** Copy `text`, and return whether the browser allowed it. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

/** Copy over plain HTTP, where browsers have no `navigator.clipboard`. */
function copySelected(text) {
  const focused = document.activeElement;
  const box = make("textarea", { className: "unseen", value: text, readOnly: true });
  document.body.append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  focused?.focus({ preventScroll: true });
  return done;
}
