// A conversation on the page: its messages, and the reply that is being written.

import { formatTimeOfDay, formatDay, make, parseTime } from "./elements.js";
import { readConversation, streamTurn } from "./server.js";

const PAGE_SIZE = 50;
const AUTHORS = { user: "You", assistant: "Chatledger", tool: "Tool", system: "Instructions" };
const STOP_REASONS = {
  stopped: "Stopped",
  failed: "Interrupted",
  timed_out: "Cut off at the time limit",
  max_tokens: "Cut off at the length limit",
  model_context_window_exceeded: "Cut off: the conversation is too long for the model",
  guardrail_intervened: "Stopped by the operator's guardrail",
  content_filtered: "Stopped by the model's content filter",
};

/**
 * A conversation and its element. A conversation whose reply is arriving is kept while another one
 * is shown. `id` is null until the server has assigned one.
 */
export class Conversation {
  #entries = [];
  #turn = null;
  #wasStopped = false;

  constructor(id, user) {
    this.id = id;
    this.user = user;
    this.title = null;
    this.before = null;
    this.isLoaded = id === null;
    this.canBeStopped = false;
    this.element = make("ol", { className: "messages", role: "list" });
  }

  get isEmpty() {
    return this.#entries.length === 0;
  }

  /** True if the last message is the user's and no reply to it is arriving here. */
  get isUnanswered() {
    return !this.isReplying && this.#entries.at(-1)?.role === "user";
  }

  get isReplying() {
    return this.#turn !== null;
  }

  async load(signal) {
    const { id, user } = this;
    const page = await readConversation(id, { user, limit: PAGE_SIZE, signal });
    this.title = page.title;
    this.before = page.next ?? null;
    this.isLoaded = true;
    this.#entries = page.messages.map(makeEntry);
    this.#arrange();
  }

  async loadEarlier() {
    const { id, user, before } = this;
    const page = await readConversation(id, { user, limit: PAGE_SIZE, before });
    if (this.before !== before) return;
    this.before = page.next ?? null;
    this.#entries.unshift(...page.messages.map(makeEntry));
    this.#arrange();
  }

  /**
   * Send `text` and show the reply as it arrives. Call `onStart` once the server has stored the
   * message (from then on the reply can be stopped), and `onPiece` with each piece of the reply.
   * Throw an error if the reply is not complete; its property `stored` says whether the message was
   * stored. A message that was not stored is removed from the page again.
   */
  async send(text, { onStart, onPiece }) {
    const now = new Date().toISOString();
    const question = makeEntry({ role: "user", content: text, timestamp: now });
    const reply = makeEntry({ role: "assistant", content: "", timestamp: now });
    this.#entries.push(question, reply);
    this.#arrange();
    reply.element.classList.add("replying");
    this.#turn = new AbortController();
    const { signal } = this.#turn;
    try {
      for await (const { name, data } of this.#streamTurn(text, signal)) {
        if (name === "start") {
          this.id = data.conversation_id;
          this.canBeStopped = true;
          this.#wasStopped = false;
          onStart();
        } else if (name === "piece") {
          reply.text.append(data.text);
          onPiece(data.text);
        } else if (name === "done") {
          addNote(reply, STOP_REASONS[data.stop_reason]);
        }
      }
    } catch (error) {
      const stored = this.canBeStopped;
      if (!stored) this.#remove(question, reply);
      addNote(reply, signal.aborted ? STOP_REASONS.stopped : STOP_REASONS.failed);
      if (!signal.aborted) throw Object.assign(error, { stored });
    } finally {
      this.#turn = null;
      this.canBeStopped = false;
      reply.element.classList.remove("replying");
      reply.text.normalize();
    }
  }

  /** Stop the reply; the server saves the part that it has received so far. */
  stop() {
    this.#wasStopped = true;
    this.#turn?.abort();
  }

  async *#streamTurn(message, signal) {
    const { id, user } = this;
    for (let pause = 100; ; pause *= 2) {
      try {
        return yield* streamTurn({ message, id, user, signal });
      } catch (error) {
        // The server may not have noticed yet that the previous turn was stopped.
        const isTooEarly = error.code === "turn_in_progress" && this.#wasStopped && pause < 3000;
        if (!isTooEarly) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  #remove(...entries) {
    this.#entries = this.#entries.filter((entry) => !entries.includes(entry));
    this.#arrange();
  }

  /** Put the messages into the list, with a heading before the first message of each day. */
  #arrange() {
    const children = [];
    let day = null;
    for (const { element, time } of this.#entries) {
      if (time && time.toDateString() !== day) {
        day = time.toDateString();
        children.push(make("li", { className: "day", textContent: formatDay(time) }));
      }
      children.push(element);
    }
    this.element.replaceChildren(...children);
  }
}

function makeEntry({ role, content, timestamp, stop_reason }) {
  const element = make("li", { className: `message ${role in AUTHORS ? role : "tool"}` });
  const time = parseTime(timestamp);
  const { text, otherTypes } = splitContent(content);
  const body = make("div", { className: "text", dir: "auto", textContent: text });
  const heading = make("h2", {}, make("span", { textContent: AUTHORS[role] ?? role }));
  if (time) heading.append(" ", make("time", { dateTime: time.toISOString(), textContent: formatTimeOfDay(time) }));
  if (role === "user" || role === "assistant") {
    element.append(heading, body);
  } else {
    // Tool results and instructions are collapsed; the reader can open them.
    const summary = make("summary", { textContent: AUTHORS[role] ?? role });
    element.append(make("details", {}, summary, body));
  }
  const entry = { role, element, time, text: body };
  if (otherTypes.length) addNote(entry, otherTypes.join(", "));
  addNote(entry, STOP_REASONS[stop_reason]);
  return entry;
}

/** Add a small note below a message, unless `words` is empty. */
function addNote({ element }, words) {
  if (words) element.append(make("p", { className: "remark", textContent: words }));
}

/** Split a message's content into its text and the types of its other blocks. */
function splitContent(content) {
  const blocks = Array.isArray(content) ? content : [content];
  const text = [];
  const otherTypes = [];
  for (const block of blocks) {
    if (typeof block === "string") text.push(block);
    else if (typeof block?.text === "string") text.push(block.text);
    else if (block) otherTypes.push(String(block.type ?? Object.keys(block)[0] ?? "?").replaceAll("_", " "));
  }
  return { text: text.join(""), otherTypes };
}
