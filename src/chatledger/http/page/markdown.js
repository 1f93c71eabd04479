// Markdown as elements. Each is made here, by name: nothing that a model wrote is parsed as HTML.

import { makeCodeBlock } from "./code.js";
import { make } from "./elements.js";
import MarkdownIt from "./vendor/markdown-it.js";

// Deeper elements are left out, and their text is shown in those around them: browsers fail to lay
// out thousands of nested elements, and markdown-it leaves out the text of blocks deeper than 100.
const MAX_DEPTH = 100;
const MAX_BLOCK_DEPTH = 60;
const ALLOWED_LINK = /^(?:https?:\/\/|mailto:)/i;
// The author of a message is a heading of level 2.
const HEADINGS = { h1: "h3", h2: "h4", h3: "h5", h4: "h6", h5: "h6", h6: "h6" };
const TAGS = new Set([
  ...["p", "blockquote", "ul", "ol", "em", "strong", "s", "thead", "tbody", "tr", "th", "td"],
  ...Object.values(HEADINGS),
]);
const DELIMITERS = [["$$", "$$"], ["\\[", "\\]"], ["\\(", "\\)"], ["$", "$"]];

const markdownIt = new MarkdownIt({ breaks: true, linkify: true });
markdownIt.validateLink = (url) => ALLOWED_LINK.test(url);
// Without these, "main.py" and "setup.sh" would be links to sites in Paraguay and on Saint Helena.
markdownIt.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
markdownIt.linkify.add("ftp:", null).add("//", null);
markdownIt.block.ruler.before("table", "too deep", parseTooDeep);
markdownIt.block.ruler.before("fence", "math", parseMathBlock, {
  alt: ["paragraph", "reference", "blockquote", "list"],
});
markdownIt.inline.ruler.before("escape", "math", parseMath);

/**
 * Parse Markdown into its blocks: each is `{node, start, end}`, an element and its lines. Links to
 * `references` work, and those that are defined in the text are added to it.
 */
export function parseBlocks(text, references = {}) {
  const blocks = [];
  const tokens = markdownIt.parse(text, { references });
  for (let n = 0; n < tokens.length; ) {
    const first = n;
    let depth = 0;
    do depth += tokens[n++].nesting;
    while (depth > 0);
    const fragment = new DocumentFragment();
    build(tokens.slice(first, n), fragment, 0);
    const [start, end] = tokens[first].map;
    blocks.push({ node: fragment.firstChild, start, end });
  }
  return blocks;
}

/** Return the text of Markdown without its marks. */
export function plainText(text) {
  const all = make("div", {}, ...parseBlocks(text).map(({ node }) => node));
  for (const heading of all.querySelectorAll(".code > div")) heading.remove();
  for (const part of all.querySelectorAll("p, h3, h4, h5, h6, li, th, td, br, pre")) part.append(" ");
  return all.textContent;
}

/** Add the nodes for `tokens` to `parent`, which is `depth` elements deep. */
function build(tokens, parent, depth) {
  const parents = [parent];
  const open = (element, inner = element) => {
    if (depth + parents.length > MAX_DEPTH) return parents.push(parents.at(-1));
    parents.at(-1).append(element);
    return parents.push(inner);
  };
  tokens.forEach((token, n) => {
    const { type, nesting } = token;
    if (type === "inline") build(token.children, parents.at(-1), depth + parents.length);
    else if (token.hidden) return; // the paragraph of a short list item
    else if (nesting < 0) parents.pop();
    else if (type === "list_item_open") open(makeListItem(tokens[n + 2]));
    else if (type === "table_open") open(...makeTable());
    else if (type === "th_open" && !tokens[n + 1].content) open(make("td")); // it is no heading
    else if (type === "link_open") open(makeLink(token.attrGet("href"), token.attrGet("title")));
    else if (nesting > 0) open(makeElement(token));
    else parents.at(-1).append(makeLeaf(token, parents));
  });
}

function makeElement(token) {
  const tag = HEADINGS[token.tag] ?? token.tag;
  const element = make(TAGS.has(tag) ? tag : "span");
  if (tag === "ol" && token.attrGet("start") !== null) element.start = token.attrGet("start");
  const alignment = /^text-align:(\w+)$/.exec(token.attrGet("style"));
  if (alignment) element.className = alignment[1];
  return element;
}

function makeLeaf(token, parents) {
  const { type, content } = token;
  if (type === "code_inline") return make("code", { textContent: content });
  if (type === "fence" || type === "code_block") return makeCodeBlock(content, token.info);
  if (type === "hardbreak" || type === "softbreak") return make("br");
  if (type === "hr") return make("hr");
  if (type === "math_block") return make("p", { className: "math", textContent: content });
  if (type !== "image") return content;
  // Images of other servers are not loaded: they would tell them who reads which message.
  const source = token.attrGet("src");
  const label = content || source;
  return parents.some((parent) => parent.tagName === "A") ? label : makeLink(source, null, label);
}

/** Return a link that opens in a new tab. */
export function makeLink(href, title, text = "") {
  const link = make("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, text);
  if (title) link.title = title;
  return link;
}

/** Return a table, and the box in which it scrolls sideways. */
function makeTable() {
  const table = make("table");
  const box = make("div", { className: "table", tabIndex: 0, role: "group", ariaLabel: "Table" }, table);
  return [box, table];
}

/** Return an item, with a box that is checked or not if its text begins with `[x]` or `[ ]`. */
function makeListItem(first) {
  const text = first?.type === "inline" ? first.children[0] : null;
  const mark = text?.type === "text" && /^\[([ xX])\] /.exec(text.content);
  if (!mark) return make("li");
  text.content = text.content.slice(mark[0].length);
  const isDone = mark[1] !== " ";
  const box = make("input", { type: "checkbox", disabled: true, ariaLabel: isDone ? "Done" : "To do" });
  box.toggleAttribute("checked", isDone);
  return make("li", { className: "task" }, box);
}

/** Show lines that are nested too deeply as they were written. */
function parseTooDeep(state, first, end, silent) {
  if (state.level < MAX_BLOCK_DEPTH) return false;
  if (silent) return true;
  const token = state.push("too_deep", "", 0);
  token.content = state.getLines(first, end, state.blkIndent, false);
  token.map = [first, end];
  state.line = end;
  return true;
}

// Mathematics is shown as it was written: within it, `_`, `*` and `\` are not Markdown.

/** Parse lines from `$$` or `\[` to the closing one, or to an empty line. */
function parseMathBlock(state, first, end, silent) {
  const start = state.bMarks[first] + state.tShift[first];
  const opening = state.src.slice(start, start + 2);
  const closing = { $$: "$$", "\\[": "\\]" }[opening];
  if (!closing || state.sCount[first] - state.blkIndent >= 4) return false;
  let last = first;
  let line = state.src.slice(start + 2, state.eMarks[first]).trimEnd();
  if (line.includes(closing) && !line.endsWith(closing)) return false; // a paragraph begins with it
  if (silent) return true;
  const isInside = (n) => n < end && !state.isEmpty(n) && state.sCount[n] >= state.blkIndent;
  while (!line.includes(closing) && isInside(last + 1)) {
    last += 1;
    line = state.src.slice(state.bMarks[last], state.eMarks[last]);
  }
  const token = state.push("math_block", "", 0);
  token.content = state.getLines(first, last + 1, state.blkIndent, false).trim();
  token.map = [first, last + 1];
  state.line = last + 1;
  return true;
}

/** Parse `$x$`, `$$x$$`, `\(x\)` or `\[x\]`. */
function parseMath(state, silent) {
  const { src, pos, posMax } = state;
  const [opening, closing] = DELIMITERS.find(([mark]) => src.startsWith(mark, pos)) ?? [];
  if (!opening) return false;
  const end = findClosing(state, closing, pos + opening.length);
  if (end === -1 || end > posMax) return false;
  if (!silent) state.push("math", "", 0).content = src.slice(pos, end);
  state.pos = end;
  return true;
}

/** Return the position after the next `closing` mark, or -1. */
function findClosing(state, closing, from) {
  // Amounts are not mathematics: "$5 and $10", "5$".
  const isOne = closing === "$";
  if (isOne && !/^(?:|[^\p{L}\p{N}])\$\S$/u.test(state.src.slice(Math.max(0, from - 2), from + 1))) return -1;
  // A search that failed once would fail again: the text is searched once for each kind of mark.
  const failed = (state.env.mathWithoutEnd ??= {});
  if (failed[closing]?.text === state.src && failed[closing].from <= from) return -1;
  for (let at = from; (at = state.src.indexOf(closing, at)) !== -1; at += closing.length) {
    if (at === from) continue;
    if (!isOne || /[^\s\\]\$(?![\p{L}\p{N}])/u.test(state.src.slice(at - 1, at + 2))) return at + closing.length;
  }
  failed[closing] = { text: state.src, from };
  return -1;
}
