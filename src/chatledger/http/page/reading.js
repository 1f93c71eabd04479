// What helps a reader: the end stays in view, and a reply can be heard.

import { make } from "./elements.js";

/** Keeps the end of `content` in view until its reader scrolls away from it. */
export class EndInView {
  #following = true;
  #lastTop = 0;

  constructor({ scroller, content, button }) {
    this.scroller = scroller;
    this.button = button;
    scroller.addEventListener("scroll", () => this.#scrolled());
    const resized = new ResizeObserver(() => this.#following && this.follow());
    resized.observe(scroller);
    resized.observe(content);
  }

  follow() {
    this.#following = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.button.hidden = true;
  }

  /** Run `change` and keep `element` where the reader sees it. */
  async holding(element, change) {
    this.#following = false;
    const top = () => element.getBoundingClientRect().top;
    const before = top();
    await change();
    if (element.isConnected) this.scroller.scrollTop += top() - before;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const left = scrollHeight - clientHeight - scrollTop;
    if (left < 40) this.#following = true;
    else if (scrollTop < this.#lastTop) this.#following = false;
    this.#lastTop = scrollTop;
    this.button.hidden = this.#following || left < 200;
  }
}

/** A sentence above the box, with what can be done about it: `[words, what to do]`. */
export class Notice {
  constructor(region, settle) {
    this.region = region;
    this.settle = settle;
  }

  clear() {
    this.region.replaceChildren();
  }

  /** Something went wrong. */
  tell(sentence, ...actions) {
    this.region.classList.remove("calm");
    this.#show(sentence, actions);
  }

  /** Something is worth knowing. */
  remark(sentence, ...actions) {
    this.region.classList.add("calm");
    this.#show(sentence, actions);
  }

  #show(sentence, actions) {
    this.region.replaceChildren(make("p", { textContent: sentence }));
    for (const [words, act] of [...actions, ["Dismiss", () => this.clear()]]) {
      const button = make("button", { type: "button", className: "quiet", textContent: words });
      button.addEventListener("click", () => {
        this.settle();
        act();
      });
      this.region.append(button);
    }
  }
}

/** Says things to screen readers. */
export class Voice {
  #rest = "";

  constructor(region) {
    this.region = region;
  }

  say(words) {
    this.#rest = "";
    this.region.replaceChildren(make("p", { textContent: words }));
  }

  /** A piece of a reply; it is said once its sentence is whole, for pieces are too small to follow. */
  hear(piece) {
    this.#rest += piece;
    const whole = /^.*(?:[.!?:…]["'”’)]*\s|[。！？]|\n)/s.exec(this.#rest)?.[0];
    if (whole) this.#add(whole);
  }

  /** The reply is over: what is left of it is said. */
  end() {
    this.#add(this.#rest);
  }

  #add(words) {
    this.#rest = this.#rest.slice(words.length);
    if (words.trim()) this.region.append(make("p", { textContent: words.trim() }));
  }
}
