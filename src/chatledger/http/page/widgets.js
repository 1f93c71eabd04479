// Widgets: following the end of the messages, notices, and announcements to screen readers.

import { formatDuration, make } from "./elements.js";
import { plainText } from "./markdown.js";

/** Keeps the end of `content` in view until the user scrolls away from it. */
export class ScrollFollower {
  #following = true;
  #lastTop = 0;

  constructor({ scroller, content, button }) {
    this.scroller = scroller;
    this.button = button;
    scroller.addEventListener("scroll", () => this.#onScroll());
    const observer = new ResizeObserver(() => this.#following && this.follow());
    observer.observe(scroller);
    observer.observe(content);
  }

  /** Scroll to the end and stay there. */
  follow() {
    this.#following = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.button.hidden = true;
  }

  /** Scroll to `element`, and stay there. */
  goTo(element) {
    this.#following = false;
    element.scrollIntoView({ block: "center" });
  }

  /** Run `change`, and scroll so that `element` stays in its place on the screen. */
  async keepInPlace(element, change) {
    this.#following = false;
    const top = () => element.getBoundingClientRect().top;
    const before = top();
    await change();
    if (element.isConnected) this.scroller.scrollTop += top() - before;
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const remaining = scrollHeight - clientHeight - scrollTop;
    if (remaining < 40) this.#following = true;
    else if (scrollTop < this.#lastTop) this.#following = false;
    this.#lastTop = scrollTop;
    this.button.hidden = this.#following || remaining < 200;
  }
}

/**
 * A sentence above the message box, with buttons. Each action is `[label, function, seconds]`: the
 * button waits for so many seconds, if any, and counts them down.
 */
export class Notice {
  constructor(region, restoreFocus) {
    this.region = region;
    this.restoreFocus = restoreFocus;
  }

  clear() {
    this.region.replaceChildren();
  }

  /** Show an error. */
  showError(sentence, ...actions) {
    this.region.classList.remove("calm");
    this.#show(sentence, actions);
  }

  /** Show information. */
  showInfo(sentence, ...actions) {
    this.region.classList.add("calm");
    this.#show(sentence, actions);
  }

  #show(sentence, actions) {
    this.region.replaceChildren(make("p", { textContent: sentence }));
    for (const [label, act, seconds] of [...actions, ["Dismiss", () => this.clear()]]) {
      const button = make("button", { type: "button", className: "quiet", textContent: label });
      button.addEventListener("click", () => {
        if (button.getAttribute("aria-disabled") === "true") return;
        this.restoreFocus();
        act();
      });
      this.region.append(button);
      if (seconds) disableFor(seconds, button);
    }
  }
}

/** Disable a button for so many seconds, and show how many are left. */
function disableFor(seconds, button) {
  const end = Date.now() + seconds * 1000;
  const rest = make("span", { ariaHidden: "true" }); // screen readers would read each number aloud
  button.append(rest);
  button.setAttribute("aria-disabled", "true");
  const timer = setInterval(tick, 1000);
  function tick() {
    const left = Math.ceil((end - Date.now()) / 1000);
    rest.textContent = left > 0 ? ` in ${formatDuration(left)}` : "";
    if (left <= 0) button.removeAttribute("aria-disabled");
    if (left <= 0 || !button.isConnected) clearInterval(timer);
  }
  tick();
}

/** Announces text to screen readers, in a live region. */
export class Announcer {
  #rest = "";

  constructor(region) {
    this.region = region;
  }

  announce(words) {
    this.#rest = "";
    this.region.replaceChildren(make("p", { textContent: words }));
  }

  /** Add a piece of a reply in Markdown, which is announced in whole sentences: pieces are too short for that. */
  addPiece(piece) {
    this.#rest += piece;
    const sentences = /^.*(?:[.!?:…]["'”’)]*\s|[。！？]|\n)/s.exec(this.#rest)?.[0];
    if (sentences) this.#add(sentences);
  }

  /** Announce the rest of the reply. */
  finish() {
    this.#add(this.#rest);
  }

  #add(words) {
    this.#rest = this.#rest.slice(words.length);
    const text = plainText(words).trim();
    // A line such as "|:--|--:|" is not a sentence.
    if (/[^\s|:$-]/.test(text)) this.region.append(make("p", { textContent: text }));
  }
}
