// A message in Markdown, which is shown while it arrives.

import { parseBlocks } from "./markdown.js";
import { patch } from "./patching.js";

/**
 * Shows Markdown in `element`. At most once per frame, what was added is shown: only the last block
 * is parsed again, and blocks that are complete stay untouched.
 */
export class MarkdownText {
  #rest = ""; // the Markdown from the end of the last complete block on
  #complete = 0; // the number of complete blocks
  #references = {}; // the links that complete blocks define
  #hasReferences = false;
  #frame = null;
  #busyUntil = 0;

  constructor(element, source = "") {
    this.element = element;
    this.source = "";
    this.#add(source);
    this.finish();
  }

  clear() {
    this.source = this.#rest = "";
    this.#complete = 0;
    this.#references = {};
    this.#render();
  }

  append(piece) {
    this.#add(piece);
    this.#frame ??= requestAnimationFrame((now) => this.#onFrame(now));
  }

  /** Show all at once; nothing more will be added. */
  finish() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    this.#render();
    // Links may be defined after the blocks that use them.
    if (this.#hasReferences) patch(this.element, parseBlocks(this.source).map(({ node }) => node));
  }

  #add(text) {
    this.source += text;
    this.#rest += text;
  }

  #onFrame(now) {
    this.#frame = null;
    if (now < this.#busyUntil) {
      this.#frame = requestAnimationFrame((later) => this.#onFrame(later));
      return;
    }
    const start = performance.now();
    this.#render();
    const end = performance.now();
    // A block that takes long, such as a table of a thousand rows, takes at most a quarter of the time.
    this.#busyUntil = end + 3 * (end - start);
  }

  #render() {
    // A return at the very end may be the first half of a line break.
    this.#rest = this.#rest.replace(/\r\n|\r(?!$)/g, "\n");
    const references = { ...this.#references };
    const blocks = parseBlocks(this.#rest, references);
    this.#hasReferences = Object.keys(references).length > 0;
    patch(this.element, blocks.map(({ node }) => node), this.#complete);
    this.#complete += this.#takeComplete(blocks);
  }

  /** Remove the complete blocks from the rest, and return their number. */
  #takeComplete(blocks) {
    if (blocks.length < 2) return 0;
    const lines = this.#rest.split("\n");
    // While its first line is not complete, the last block may still become a part of the one
    // before: "2" is a paragraph, "2." an item of the list.
    const isCertain = blocks.at(-1).start < lines.length - 1;
    const count = blocks.length - (isCertain ? 1 : 2);
    if (count === 0) return 0;
    const { end } = blocks[count - 1];
    const text = lines.slice(0, end).join("\n");
    if (this.#hasReferences) parseBlocks(text, this.#references);
    this.#rest = lines.slice(end).join("\n");
    return count;
  }
}
