// The parts of a message: text, reasoning, tool calls and their results, and images.

import { make } from "./elements.js";
import { makeLink } from "./markdown.js";

const REASONING_TYPES = ["thinking", "redacted_thinking", "reasoning", "reasoning_content"];
const CALL_TYPES = ["tool_use", "server_tool_use", "tool_call", "function_call"];
// The beginnings of images in Base64, whatever type they are said to have.
const IMAGE_TYPES = { iVBORw0KGgo: "png", "/9j/": "jpeg", R0lGOD: "gif", UklGR: "webp" };

/**
 * Return the parts of a message: its `text`, a list of the texts of its `reasoning`, its `calls`
 * (`{id, name, input}`), `results` (`{id, text, isError}`) and `images` (their addresses), and the
 * names of all `others`. Frameworks write each of them in forms of their own.
 */
export function readMessage({ role, content, tool_calls = [], tool_call_id = null }) {
  const parts = { text: "", reasoning: [], calls: [], results: [], images: [], others: [] };
  for (const block of Array.isArray(content) ? content : [content]) readBlock(block, parts);
  for (const call of tool_calls) if (call) addCall(parts, call);
  if (role === "tool") {
    parts.results.push({ id: tool_call_id, text: parts.text, isError: false });
    parts.text = "";
  }
  return parts;
}

function readBlock(block, parts) {
  if (typeof block === "string") {
    parts.text += block;
    return;
  }
  if (!block) return;
  const result = block.type === "tool_result" ? block : block.toolResult;
  if (REASONING_TYPES.includes(block.type) || block.reasoningContent) {
    const text = textOf(block.thinking ?? block.reasoning ?? block.summary ?? block.reasoningContent ?? block);
    if (text) parts.reasoning.push(text); // encrypted reasoning has none
  } else if (CALL_TYPES.includes(block.type) || block.toolUse) {
    addCall(parts, block);
  } else if (result) {
    const isError = result.is_error === true || result.status === "error";
    parts.results.push({ id: result.tool_use_id ?? result.toolUseId, text: textOf(result.content), isError });
  } else if (typeof block.text === "string") {
    parts.text += block.text;
  } else if (imageAddress(block)) {
    parts.images.push(imageAddress(block));
  } else {
    const kind = typeof block.type === "string" ? block.type : Object.keys(block)[0] ?? "?";
    parts.others.push(kind.replaceAll("_", " "));
  }
}

/** Add a call, unless it is there: some frameworks store each in the content and beside it. */
function addCall({ calls }, call) {
  const inner = call.toolUse ?? call.function ?? call;
  const id = call.call_id ?? call.id ?? inner.toolUseId ?? null;
  if (id !== null && calls.some((other) => other.id === id)) return;
  const input = inner.args ?? inner.input ?? inner.arguments ?? "";
  calls.push({ id, name: typeof inner.name === "string" ? inner.name : "a tool", input });
}

function textOf(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(textOf).filter(Boolean).join("\n");
  if (value?.json) return JSON.stringify(value.json);
  const inner = value?.text ?? value?.reasoningText ?? value?.reasoning_content;
  return inner ? textOf(inner) : "";
}

function imageAddress(block) {
  const url = block.image_url?.url ?? block.image_url ?? (block.type === "image" ? block.url : undefined);
  if (typeof url === "string") return url;
  const data = block.type === "image" && (block.source?.data ?? block.base64 ?? block.data);
  return typeof data === "string" ? `data:;base64,${data}` : null;
}

/**
 * Return an image, or what stands for it: a link to one of another server, since loading it would
 * tell that server that somebody reads the conversation.
 */
export function makeImage(address) {
  const url = displayableUrl(address);
  if (!url) {
    const isLink = /^https?:/.test(address) && URL.canParse(address);
    return isLink ? makeLink(address, null, `Image at ${new URL(address).host}`) : notShown();
  }
  const image = make("img", { src: url, alt: "Image", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(notShown()));
  return image;
}

function notShown() {
  return make("span", { className: "remark", textContent: "An image that cannot be shown" });
}

/** Return the URL of an image in the message or on this server; null for all others. */
function displayableUrl(address) {
  const [, data] = /^data:[^,]*;base64,(.*)$/s.exec(address) ?? [];
  if (data) {
    const start = Object.keys(IMAGE_TYPES).find((each) => data.startsWith(each));
    return start ? `data:image/${IMAGE_TYPES[start]};base64,${data}` : null;
  }
  if (!URL.canParse(address, location.href)) return null;
  const url = new URL(address, location.href);
  return url.origin === location.origin ? url.href : null;
}

/** Return a part that the reader can unfold: its `label`, and a text that may be JSON. */
export function makeFolded(label, text) {
  const body = make("div", { className: "folded", dir: "auto", textContent: text });
  return make("details", {}, make("summary", {}, ...label), body);
}

/** Return a value as text that is easy to read. Models and tools write JSON as text, too. */
export function formatJson(value) {
  try {
    const parsed = typeof value === "string" ? JSON.parse(value) : value;
    return typeof parsed === "object" ? JSON.stringify(parsed, null, 2) : String(value);
  } catch {
    return value;
  }
}

/** Return the model of a reply, and its tokens in words, such as "1,204 tokens in, 186 out", as far as known. */
export function formatFacts({ model, usage }) {
  const number = (count) => count.toLocaleString();
  const cached = usage?.cached_tokens ? ` (${number(usage.cached_tokens)} from a cache)` : "";
  const tokens = usage && `${number(usage.input_tokens)} tokens in${cached}, ${number(usage.output_tokens)} out`;
  return [model, tokens].filter(Boolean);
}
