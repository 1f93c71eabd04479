// A conversation on the page: its messages, and the reply that is being written.

import { formatFacts, formatJson, makeFolded, makeImage, readMessage } from "./content.js";
import { makeCopyButton } from "./copying.js";
import { formatTimeOfDay, formatDay, make, parseTime, putInto } from "./elements.js";
import { MarkdownText } from "./markdown-text.js";
import { readOffer } from "./offer.js";
import {
  editMessage,
  followReply,
  readConversation,
  regenerateReply,
  stopReply,
  streamTurn,
} from "./server.js";
import { urlOf } from "./urls.js";

const PAGE_SIZE = 50;
// While the reader scrolls, fewer at a time: the page makes no frame before they are laid out.
const NEXT_PAGE_SIZE = 25;
const MAX_LIMIT = 100;
// The messages above one that is searched for, which show what it is about.
const MESSAGES_ABOVE = 10;
// The most messages in the page while the reader scrolls; those farthest away are removed, and read again when needed.
const MAX_KEPT = 200;
// Longer than the lease of a turn whose server died, unless the operator has set a longer one.
const MAX_WAIT_MS = 15_000;
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
 * is shown. `id` is null until the server has assigned one. Of a long conversation, it has some
 * consecutive messages: there are more before seq `before` and after seq `after`, unless these are null.
 */
export class Conversation {
  #entries = [];
  #turn = null;
  #aside = null; // the entries at the end, and their `before`, if others are shown while a reply arrives

  constructor(id, user) {
    this.id = id;
    this.user = user;
    this.title = null;
    this.metadata = {};
    this.createdAt = null; // as the server has it, once it has been read
    this.before = null;
    this.after = null;
    this.isLoaded = id === null;
    this.canBeStopped = false;
    this.isReplyingElsewhere = false; // when it was loaded
    this.element = make("ol", { className: "messages", role: "list" });
  }

  get isEmpty() {
    return this.#entries.length === 0;
  }

  /** True if the last message is the user's and no reply to it is arriving here. */
  get isUnanswered() {
    return this.showsEnd && !this.isReplying && this.#entries.at(-1)?.role === "user";
  }

  /** True if a reply has ended without a word. */
  get lacksReply() {
    const last = this.#entries.at(-1);
    return !this.isReplying && last?.role === "assistant" && last.text.textContent === "" && last.seq === undefined;
  }

  get isReplying() {
    return this.#turn !== null;
  }

  /** True if the last message is among those that are shown. */
  get showsEnd() {
    return this.after === null;
  }

  /** True if later messages can be read now. */
  get hasLater() {
    return !this.showsEnd && !this.#endsWithReply;
  }

  /** True if the reply that is arriving is among the messages that are shown. */
  get #endsWithReply() {
    return this.isReplying && this.#aside === null;
  }

  /** Return the id of the model that writes the replies: the user's choice if it is offered, else the default. */
  modelIn({ models }) {
    const isOffered = models.some(({ id }) => id === this.metadata.model);
    return isOffered ? this.metadata.model : models.find(({ is_default }) => is_default).id;
  }

  /** The instructions that the user has given the model for this conversation, or "". */
  get systemPrompt() {
    const { system_prompt: text } = this.metadata;
    return typeof text === "string" ? text : "";
  }

  /** Return the fields of a turn's request that the user has chosen, as far as the server allows them. */
  async #choices() {
    const offer = await readOffer();
    const choices = {};
    if (this.metadata.model) choices.model_id = this.modelIn(offer);
    if (this.systemPrompt && offer.allows_system_prompt) choices.system_prompt = this.systemPrompt;
    return choices;
  }

  async load(signal) {
    const { id, user } = this;
    const page = await readConversation(id, { user, limit: PAGE_SIZE, signal });
    this.title = page.title;
    this.metadata = page.metadata;
    this.createdAt = page.created_at;
    this.before = page.next ?? null;
    this.after = null;
    this.isLoaded = true;
    this.isReplyingElsewhere = page.replying === true;
    this.#entries = page.messages.map(makeEntry);
    this.#arrange();
  }

  /**
   * Read the messages before those that are shown, and return a function that shows them. With
   * `keepsAll`, all others stay.
   */
  async readEarlier({ keepsAll = false } = {}) {
    const { id, user, before } = this;
    const limit = keepsAll ? MAX_LIMIT : NEXT_PAGE_SIZE;
    const page = await readConversation(id, { user, limit, before });
    return () => {
      if (this.before !== before) return;
      this.before = page.next ?? null;
      this.#entries.unshift(...page.messages.map(makeEntry));
      if (!keepsAll && !this.#endsWithReply) this.#dropLast();
      this.#arrange();
    };
  }

  /** Read the messages after those that are shown, like `readEarlier`. */
  async readLater({ keepsAll = false } = {}) {
    const { id, user, after } = this;
    const limit = keepsAll ? MAX_LIMIT : NEXT_PAGE_SIZE;
    const page = await readConversation(id, { user, limit, after });
    return () => {
      if (this.after !== after) return;
      const { messages } = page;
      this.after = page.next ?? null;
      if (this.#aside) {
        const first = this.#aside.entries[0].seq;
        this.#entries.push(...messages.filter(({ seq }) => seq < first).map(makeEntry));
        if (this.after === null || messages.at(-1).seq >= first) {
          this.#entries.push(...this.#aside.entries);
          this.#aside = this.after = null;
        }
      } else {
        this.#entries.push(...messages.map(makeEntry));
      }
      if (!keepsAll) this.#dropFirst();
      this.#arrange();
    };
  }

  /** Read the messages from the first one on, and return a function that shows them instead of all others. */
  async readBeginning() {
    return (await this.#readFrom(1)).show;
  }

  /** Return the element of the message at `seq`, which may be shown instead of all others, or null. */
  async findMessage(seq) {
    const find = () => this.#entries.find((entry) => entry.seq === seq)?.element ?? null;
    if (find()) return find();
    const { messages, show } = await this.#readFrom(Math.max(1, seq - MESSAGES_ABOVE));
    if (messages.some((message) => message.seq === seq)) show();
    return find();
  }

  async #readFrom(seq) {
    const { id, user } = this;
    const { messages, next } = await readConversation(id, { user, limit: PAGE_SIZE, after: seq - 1 });
    const show = () => {
      if (this.#endsWithReply) this.#aside = { entries: this.#entries, before: this.before };
      this.#entries = messages.map(makeEntry);
      this.before = seq > 1 ? messages[0].seq : null;
      this.after = next ?? (this.#aside ? messages.at(-1).seq : null);
      this.#arrange();
    };
    return { messages, show };
  }

  /** Show the last messages again. */
  async returnToEnd() {
    if (!this.#aside) return this.load();
    const { entries, before } = this.#aside;
    this.#entries = entries;
    this.before = before;
    this.#aside = this.after = null;
    this.#arrange();
  }

  #dropLast() {
    if (this.#entries.length <= MAX_KEPT) return;
    // A reply that arrived here may not have its seq yet.
    const last = this.#entries.findLastIndex(({ seq }, n) => n < MAX_KEPT && seq !== undefined);
    this.#entries = this.#entries.slice(0, last + 1);
    this.after = this.#entries[last].seq;
  }

  #dropFirst() {
    const surplus = this.#entries.length - MAX_KEPT;
    if (surplus <= 0) return;
    const first = this.#entries.findIndex(({ seq }, n) => n >= surplus && seq !== undefined);
    this.#entries = this.#entries.slice(first);
    this.before = this.#entries[0].seq;
  }

  /**
   * Send `text` and show the reply as it arrives. Call `onWait` if another reply must be complete
   * first, `onStart` with the event's data once the server has stored the message (from then on the
   * reply can be stopped), `onPiece` with each piece of the reply, and `onBegunAnew` after the reply if
   * the conversation had been deleted elsewhere, so that the message has begun it anew.
   * Throw an error if the reply is not complete; its property `stored` says whether the message was
   * stored. A message that was not stored is removed from the page again.
   */
  async send(text, { onWait, onStart, onPiece, onBegunAnew }) {
    const now = new Date().toISOString();
    const question = makeEntry({ role: "user", content: text, timestamp: now });
    const replaced = this.#entriesReplacedBy(text);
    this.#entries.push(question);
    this.#turn = new AbortController();
    const events = this.#streamTurn(text, this.#turn.signal, onWait);
    const onRefused = () => this.#remove(question);
    await this.#receive(events, { question, replaced, onStart, onPiece, onRefused, onBegunAnew });
  }

  /** Replace what follows the last message of the user or a tool with another reply; otherwise like `send`. */
  async regenerate({ onStart, onPiece }) {
    const last = this.#entries.findLastIndex(({ role }) => role === "user" || role === "tool");
    const replaced = this.#entries.slice(last + 1);
    this.#turn = new AbortController();
    const { id, user } = this;
    const lastSeq = this.#entries.at(-1)?.seq;
    const { signal } = this.#turn;
    const events = regenerateReply({ id, lastSeq, user, choices: this.#choices(), signal });
    await this.#receive(events, { question: this.#entries[last], replaced, onStart, onPiece });
  }

  /** Replace the user's message and all after it with `text`, and show the reply to that. */
  async edit(entry, text, { onStart, onPiece }) {
    const replaced = this.#entries.slice(this.#entries.indexOf(entry));
    const question = makeEntry({ role: "user", content: text, timestamp: new Date().toISOString() });
    this.#turn = new AbortController();
    const { id, user } = this;
    const { signal } = this.#turn;
    const events = editMessage({ id, seq: entry.seq, message: text, user, choices: this.#choices(), signal });
    this.#entries.push(question);
    const onRefused = () => this.#remove(question);
    await this.#receive(events, { question, replaced, onStart, onPiece, onRefused });
  }

  /** Return the entry of the message that has `element`. */
  entryOf(element) {
    return this.#entries.find((entry) => entry.element === element);
  }

  /**
   * Show the reply that the server is writing to the last message, as it arrives, from its beginning.
   * The arguments and errors are those of `send`; the error has the code `no_reply` if nobody writes.
   */
  async follow({ onStart, onPiece }) {
    this.#turn = new AbortController();
    const { id, user } = this;
    const events = followReply({ id, user, signal: this.#turn.signal });
    await this.#receive(events, { question: this.#entries.at(-1), onStart, onPiece });
  }

  async #receive(events, callbacks) {
    const { question, replaced = [], onStart, onPiece, onRefused = () => {}, onBegunAnew = () => {} } = callbacks;
    const reply = makeEmptyReply();
    const { signal } = this.#turn;
    this.#entries.push(reply);
    this.#arrange();
    reply.element.classList.add("replying");
    let isStored = false;
    let replyId = null;
    try {
      for await (const { name, data } of events) {
        if (name === "start") {
          this.id = data.conversation_id;
          replyId = data.reply_id;
          if (data.offset === 0) reply.markdown.clear();
          question.seq = data.seq;
          addBranch(question, data.branch_id);
          if (!isStored) {
            isStored = this.canBeStopped = true;
            if (!this.#aside) this.after = null; // an edit removes the messages that were not shown, too
            this.#remove(...replaced);
            onStart(data);
          }
        } else if (name === "piece") {
          reply.markdown.append(data.text);
          onPiece(data.text);
        } else if (name === "done") {
          addNote(reply, STOP_REASONS[data.stop_reason]);
          this.#loadFacts(reply, replyId, onBegunAnew);
        }
      }
    } catch (error) {
      if (!isStored) {
        this.#remove(reply);
        onRefused();
      }
      addNote(reply, signal.aborted ? STOP_REASONS.stopped : STOP_REASONS.failed);
      reply.hasFailed = !signal.aborted && error.code !== "broken_off";
      if (!signal.aborted) throw Object.assign(error, { stored: isStored });
    } finally {
      this.#turn = null;
      this.#aside = null;
      this.canBeStopped = false;
      reply.markdown.finish();
      reply.element.classList.remove("replying");
    }
  }

  /** Show the model and the usage of a reply that is complete; events do not have them all. */
  async #loadFacts(reply, replyId, onBegunAnew) {
    const { id, user } = this;
    const page = await readConversation(id, { user, limit: 1 }).catch(() => null); // it can be read without them
    if (!page) return;
    const known = this.createdAt;
    this.createdAt = page.created_at;
    if (known !== null && known !== page.created_at) return onBegunAnew();
    const message = page.messages.find((each) => each.id === replyId);
    if (!message) return;
    reply.seq = message.seq;
    addFacts(reply, message);
  }

  /** Stop the reply; the server saves the part that it has received so far. */
  async stop() {
    const turn = this.#turn;
    if (!turn) return;
    this.canBeStopped = false;
    try {
      await stopReply(this.id, this);
    } finally {
      // The end of the reply follows; if it does not, the server cannot be reached.
      setTimeout(() => turn.abort(), 1000);
    }
  }

  async *#streamTurn(message, signal, onWait) {
    const { id, user } = this;
    const start = performance.now();
    for (let pause = 100; ; pause *= 2) {
      try {
        return yield* streamTurn({ message, id, user, choices: this.#choices(), signal });
      } catch (error) {
        if (error.code !== "turn_in_progress" || performance.now() - start > MAX_WAIT_MS) throw error;
        // A turn that was stopped ends at once, one whose server died when its lease ends.
        if (pause > 1000) onWait();
        pause = Math.min(pause, (error.retryAfter ?? 1) * 1000);
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** Return the last message, and its failed reply, if `text` is the same message sent again. */
  #entriesReplacedBy(text) {
    const last = this.#entries.slice(this.#entries.at(-1)?.hasFailed ? -2 : -1);
    return last[0]?.role === "user" && last[0].text.textContent === text ? last : [];
  }

  #remove(...entries) {
    const stays = (entry) => !entries.includes(entry);
    this.#entries = this.#entries.filter(stays);
    if (this.#aside) this.#aside.entries = this.#aside.entries.filter(stays);
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
    this.#nameResults();
    this.element.classList.toggle("continued", !this.showsEnd);
    putInto(this.element, children);
  }

  /** Show in the label of each result the name of the tool, which only the call has. */
  #nameResults() {
    const calls = new Map(this.#entries.flatMap((entry) => entry.calls.map((call) => [call.id, call])));
    for (const { id, isError, element } of this.#entries.flatMap((entry) => entry.results)) {
      const call = calls.get(id);
      const name = call && make("code", { textContent: call.name });
      if (call) element.querySelector("summary").replaceChildren(isError ? "Error from " : "Result of ", name);
    }
  }
}

function makeEmptyReply() {
  return makeEntry({ role: "assistant", content: "", timestamp: new Date().toISOString() });
}

function makeEntry(message) {
  const { role, timestamp, stop_reason, seq, branch_id } = message;
  const { text, reasoning, calls, results, images, others } = readMessage(message);
  const isResult = results.length > 0 && !text; // some frameworks store results as messages of the user
  const kind = isResult || !(role in AUTHORS) ? "tool" : role;
  const element = make("li", { className: `message ${kind}` });
  const time = parseTime(timestamp);
  // Users write text, models write Markdown.
  const body = make("div", { className: "text", dir: "auto" });
  const markdown = kind === "assistant" ? new MarkdownText(body, text) : null;
  body.classList.toggle("markdown", markdown !== null);
  if (!markdown) body.textContent = text;
  const heading = make("h2", {}, make("span", { textContent: AUTHORS[kind] ?? kind }));
  if (time) heading.append(" ", make("time", { dateTime: time.toISOString(), textContent: formatTimeOfDay(time) }));
  const resultParts = results.map(makeResult);
  const folded = [
    ...calls.map(({ name, input }) => makeFolded(["Called ", make("code", { textContent: name })], formatJson(input))),
    ...resultParts.map((result) => result.element),
  ];
  if (kind === "user" || kind === "assistant") {
    const copy = makeCopyButton("message", () => markdown?.source ?? text);
    const act = kind === "user" ? makeAction("Edit", "edit") : makeAction("Regenerate", "regenerate");
    element.append(heading);
    if (reasoning.length) element.append(makeFolded(["Reasoning"], reasoning.join("\n\n")));
    element.append(body, ...images.map(makeImage), make("div", { className: "actions" }, copy, act), ...folded);
  } else if (isResult) {
    element.append(...folded, ...images.map(makeImage));
  } else {
    // The reader can open instructions, too.
    element.append(makeFolded([AUTHORS[kind] ?? kind], text));
  }
  const hasFailed = stop_reason === "failed";
  const entry = { role, element, time, text: body, markdown, calls, results: resultParts, seq, hasFailed };
  addBranch(entry, branch_id);
  addFacts(entry, message);
  if (others.length) addNote(entry, others.join(", "));
  addNote(entry, STOP_REASONS[stop_reason]);
  return entry;
}

/** Return the result of a tool call, folded; `id` is that of the call. */
function makeResult({ id, text, isError }) {
  const element = makeFolded([isError ? "Error of the tool" : "Result of the tool"], formatJson(text));
  return { id, isError, element };
}

/** Show the model and the usage of a reply after its actions, if they are known. */
function addFacts({ element }, message) {
  for (const textContent of formatFacts(message)) {
    element.querySelector(".actions")?.append(make("span", { className: "fact", textContent }));
  }
}

function makeAction(label, action) {
  const button = make("button", { type: "button", className: "copy", textContent: label });
  button.dataset.action = action;
  return button;
}

/** Add a link to the conversation as it was before the message was edited, if there is one. */
function addBranch({ element }, id) {
  if (!id) return;
  const link = make("a", { href: urlOf(id), textContent: "Before the edit" });
  element.querySelector(".actions").append(link);
}

/** Add a small note below a message, unless `words` is empty. */
function addNote({ element }, words) {
  if (words) element.append(make("p", { className: "remark", textContent: words }));
}
