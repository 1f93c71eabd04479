// Blocks of code, with colors for the words of their language.

import { makeCopyButton } from "./copying.js";
import { make } from "./elements.js";
import { patch } from "./patching.js";

// The time to color a text grows with the square of its length, and of that of its lines.
const MAX_COLORED_LENGTH = 20_000;
const LONG_LINE = /.{501}/;
const MAX_COLORING_MS = 500;
const slowLanguages = new Set();
let highlighter = null;

/** Load the languages; most conversations contain no code, and need none. */
export async function loadLanguages() {
  highlighter ??= (await import("./vendor/highlight.js")).default;
}

/** Return a block of `text` in a language such as `python`; what follows the first word is ignored. */
export function makeCodeBlock(text, language) {
  const [name] = language.trim().split(/\s/, 1);
  const label = name.slice(0, 40);
  const code = make("code");
  const color = () => patch(code, colored(code.textContent, name));
  code.append(...colored(text, name));
  if (name && !highlighter) loadLanguages().then(color, () => {}); // without colors, it can be read too
  const box = make("pre", { tabIndex: 0, role: "group", ariaLabel: `Code: ${label}` }, code);
  if (!label) box.ariaLabel = "Code";
  const heading = make("div", {}, make("span", { textContent: label || "Code" }));
  heading.append(makeCopyButton("code", () => code.textContent));
  return make("div", { className: "code" }, heading, box);
}

function colored(text, language) {
  if (!highlighter?.getLanguage(language) || slowLanguages.has(language)) return [text];
  if (text.length > MAX_COLORED_LENGTH || LONG_LINE.test(text)) return [text];
  const start = performance.now();
  const result = highlighter.highlight(text, { language, ignoreIllegals: true });
  if (performance.now() - start > MAX_COLORING_MS) slowLanguages.add(language);
  return result.errorRaised ? [text] : result._emitter.rootNode.children.map(makeNode);
}

function makeNode(found) {
  if (typeof found === "string") return document.createTextNode(found);
  const children = found.children.map(makeNode);
  // A scope such as `title.function`; a part in another language has none.
  const className = found.scope ? `code-${found.scope.split(".")[0]}` : "";
  return make("span", { className }, ...children);
}
