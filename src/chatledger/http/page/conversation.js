// One conversation on the page: its messages, and the reply being written.

import { clock, dayOf, make, timeOf } from "./elements.js";
import { readConversation, talk } from "./server.js";

const AT_ONCE = 50;
const NAMES = { user: "You", assistant: "Chatledger", tool: "Tool", system: "Instructions" };
const ENDINGS = {
  stopped: "Stopped",
  failed: "Broke off",
  timed_out: "Cut off: it took too long",
  max_tokens: "Cut off at the length limit",
  model_context_window_exceeded: "Cut off: the conversation is too long for the model",
  guardrail_intervened: "Ended by the operator's guardrail",
  content_filtered: "Ended by the model's content filter",
};

/**
 * A conversation and its element. It outlives a look at another one, so that a reply goes on being
 * written meanwhile. `id` is null until the server has given one.
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

  /** Whether the last word is the user's, and no reply to it is being written here. */
  get isUnanswered() {
    return !this.isReplying && this.#entries.at(-1)?.role === "user";
  }

  get isReplying() {
    return this.#turn !== null;
  }

  async load(signal) {
    const { id, user } = this;
    const found = await readConversation(id, { user, limit: AT_ONCE, signal });
    this.title = found.title;
    this.before = found.next ?? null;
    this.isLoaded = true;
    this.#entries = found.messages.map(entryOf);
    this.#arrange();
  }

  async loadEarlier() {
    const { id, user, before } = this;
    const found = await readConversation(id, { user, limit: AT_ONCE, before });
    if (this.before !== before) return;
    this.before = found.next ?? null;
    this.#entries.unshift(...found.messages.map(entryOf));
    this.#arrange();
  }

  /**
   * Say `text` and show the reply as it comes. Calls `onStart` once the server has stored the
   * message (from then on it can be stopped), and `onPiece` with each stretch of the reply.
   * Rejects where the reply could not be had in full; `stored` on the error tells whether the
   * message was. If not, it is off the page again.
   */
  async say(text, { onStart, onPiece }) {
    const now = new Date().toISOString();
    const said = entryOf({ role: "user", content: text, timestamp: now });
    const reply = entryOf({ role: "assistant", content: "", timestamp: now });
    this.#entries.push(said, reply);
    this.#arrange();
    reply.element.classList.add("replying");
    this.#turn = new AbortController();
    const { signal } = this.#turn;
    try {
      for await (const { name, data } of this.#talk(text, signal)) {
        if (name === "start") {
          this.id = data.conversation_id;
          this.canBeStopped = true;
          this.#wasStopped = false;
          onStart();
        } else if (name === "piece") {
          reply.text.append(data.text);
          onPiece(data.text);
        } else if (name === "done") {
          remark(reply, ENDINGS[data.stop_reason]);
        }
      }
    } catch (error) {
      const stored = this.canBeStopped;
      if (!stored) this.#remove(said, reply);
      remark(reply, signal.aborted ? ENDINGS.stopped : "Broke off");
      if (!signal.aborted) throw Object.assign(error, { stored });
    } finally {
      this.#turn = null;
      this.canBeStopped = false;
      reply.element.classList.remove("replying");
      reply.text.normalize();
    }
  }

  /** Ends the reply; the server keeps what was said so far. */
  stop() {
    this.#wasStopped = true;
    this.#turn?.abort();
  }

  async *#talk(message, signal) {
    const { id, user } = this;
    for (let pause = 100; ; pause *= 2) {
      try {
        return yield* talk({ message, id, user, signal });
      } catch (error) {
        // The server may not have noticed yet that the turn before was stopped.
        const early = error.code === "turn_in_progress" && this.#wasStopped && pause < 3000;
        if (!early) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  #remove(...entries) {
    this.#entries = this.#entries.filter((entry) => !entries.includes(entry));
    this.#arrange();
  }

  /** Put the messages into the list, with the day written where a new one begins. */
  #arrange() {
    const children = [];
    let day = null;
    for (const { element, time } of this.#entries) {
      if (time && time.toDateString() !== day) {
        day = time.toDateString();
        children.push(make("li", { className: "day", textContent: dayOf(time) }));
      }
      children.push(element);
    }
    this.element.replaceChildren(...children);
  }
}

function entryOf({ role, content, timestamp, stop_reason }) {
  const element = make("li", { className: `message ${role in NAMES ? role : "tool"}` });
  const time = timeOf(timestamp);
  const { text, others } = partsOf(content);
  const words = make("div", { className: "text", dir: "auto", textContent: text });
  const heading = make("h2", {}, make("span", { textContent: NAMES[role] ?? role }));
  if (time) heading.append(" ", make("time", { dateTime: time.toISOString(), textContent: clock(time) }));
  if (role === "user" || role === "assistant") {
    element.append(heading, words);
  } else {
    // What tools and instructions say is there for whoever asks.
    const summary = make("summary", { textContent: NAMES[role] ?? role });
    element.append(make("details", {}, summary, words));
  }
  const entry = { role, element, time, text: words };
  if (others.length) remark(entry, others.join(", "));
  remark(entry, ENDINGS[stop_reason]);
  return entry;
}

/** A discreet word below a message. */
function remark({ element }, words) {
  if (words) element.append(make("p", { className: "remark", textContent: words }));
}

/** The text of a content, and the names of its parts that are no text. */
function partsOf(content) {
  const blocks = Array.isArray(content) ? content : [content];
  const text = [];
  const others = [];
  for (const block of blocks) {
    if (typeof block === "string") text.push(block);
    else if (typeof block?.text === "string") text.push(block.text);
    else if (block) others.push(String(block.type ?? Object.keys(block)[0] ?? "?").replaceAll("_", " "));
  }
  return { text: text.join(""), others };
}
