"""Replies in Markdown on the page, in a real Chromium, served by a real server."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from chatledger.testing.bedrock_server import BedrockServer, Says
from tests.browser import open_page
from tests.http.client import new_user
from tests.http.test_page import Visitor, widest_scroll_width
from tests.serving import Server, StartServer

RICH = (Path(__file__).parents[1] / "data" / "rich-reply.md").read_text(encoding="utf-8")
"""A reply with every kind of block."""

DOCUMENTS = [
    RICH,
    "para\n| a | b |\n|---|--:|\n| 1 | 2\n| 3 |\n\nafter",
    "heading\n=\n\nother\n---\n\n***\n\n- - -\ntext\n- not a heading\n-\n",
    (
        "1. one\n\n2. two\n\n   inside\n\n   1. deep\n\n\n4) other\n\n2\n\n"
        "2. next\n- a\n- b\n\n\n- c\n  d\ne"
    ),
    "- [ ] a\n- [x] b\n  - [X] c\n\n- loose\n\n-\n-\n",
    "> quote\nlazy\n> - list\n> lazy\n\n> ```\n> code\n\nafter\n> > deep\n",
    "```python title\nprint(1)\n\n~~~\n# x\n````\nafter ``a ` b``\n\n~~~~\nopen\n```\n",
    "    code\n\n\tmore\n  text\n\n- item\n\n      code\n\n     x",
    (
        "see [a] and [b]\n\n[a]: https://a.example\n'one\ntitle'\n\n"
        "[b]:\nhttps://b.example\n\n[a]: https://c.example\n\n[a]"
    ),
    "[x]: https://x.example\n'no title\n\nuse [x]\n\n> [y]: https://y.example\n\n[y]",
    (
        "a \\(x_1 * y_2\\) b $a_b$ c $$d*e*f$$ \\[g\\]\n"
        "\\[\n- h\n\ni\n$$\n= j\n# k $$ rest *l*\n\n$$\n\n$5 *m* $6"
    ),
    "$$\nx\n$$ foo *a*\n\ntext\n$$ *b* $$ *c*\n\ntext\n\\[ d \\]\n\\[ e",
    "a\r\nb\r\rc\r\n\r\n- d\r\n- e\r\n\r\n```js\r\nlet x\r\n```\r\n",
    (
        "**bold *both*** _a_ __b__ ~~c~~ a*b*c * d * **open\n"
        "**e**\\\nf  \ng &amp; &lt; \\* <b>h</b> \u0000 \U0001f9e0 é"
    ),
]


@pytest.fixture(scope="module")
def server(start_server: StartServer, bedrock: BedrockServer) -> Server:
    return start_server(CHATLEDGER_MODEL="bedrock:amazon.nova-lite-v1:0", **bedrock.environment)


@pytest.fixture(scope="module")
def sandbox(browser: Browser, server: Server) -> Iterator[Page]:
    """The page, for tests that show Markdown in it without a model; none may harm it.

    In it, ``MarkdownText`` and ``show(pieces)`` are global; the latter shows a message, and returns
    its element.
    """
    with open_page(browser) as page:
        page.goto(server.url)
        page.evaluate(
            """async () => {
              globalThis.MarkdownText = (await import("/page/markdown-text.js")).MarkdownText;
              await (await import("/page/code.js")).loadLanguages();
              globalThis.show = (...pieces) => {
                const message = document.createElement("li");
                message.className = "message assistant";
                const element = document.createElement("div");
                element.className = "text markdown";
                message.append(element);
                document.querySelector("#messages ol").replaceChildren(message);
                const text = new MarkdownText(element);
                for (const piece of pieces) text.append(piece);
                text.finish();
                return element;
              };
            }"""
        )
        yield page


@pytest.fixture
def visitor(page: Page, server: Server, bedrock: BedrockServer) -> Visitor:
    bedrock.reset()
    return Visitor(page, server.url).visit(as_user=new_user())


def pieces_of(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


# What is shown


def test_a_reply_is_shown_as_markdown_and_copied_as_it_was_written(
    visitor: Visitor, bedrock: BedrockServer
) -> None:
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    bedrock.script(Says(pieces_of(RICH, 11), pause=0))
    visitor.send("**How**\n# do I?")
    assert visitor.messages.first.locator(".text").inner_text() == "**How**\n# do I?"
    reply = visitor.replies.last
    for level, name in enumerate(["Reading a large file", "Steps", "What it costs"], start=3):
        expect(reply.get_by_role("heading", name=name, level=level)).to_be_visible()
    expect(reply.get_by_role("heading", level=1)).to_have_count(0)
    expect(reply.locator("ol > li > ul > li")).to_have_text(
        ['with encoding="utf-8"', 'and newline="" for CSV']
    )
    expect(reply.get_by_role("checkbox")).to_have_count(3)
    expect(reply.get_by_role("checkbox", name="Done", checked=True)).to_have_count(1)
    expect(reply.get_by_role("cell", name="1,900,000")).to_have_css("text-align", "right")
    expect(reply.locator("blockquote strong")).to_have_text("Note.")
    expect(reply.locator("s code")).to_have_text("readlines()")
    expect(reply.locator("hr")).to_have_count(1)
    expect(reply).to_contain_text(r"$\bar{x} = \frac{1}{n}\sum_{i=1}^{n} x_i$, and it costs $5 or")
    expect(reply).to_contain_text(r"\sigma^2 = \frac{1}{n} \sum_i (x_i - \bar{x})^2")
    python = reply.get_by_role("group", name="Code: python")
    expect(python.locator(".code-keyword", has_text="class")).to_be_visible()
    for link in reply.get_by_role("link").all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert link.get_attribute("target") == "_blank"
    expect(reply.get_by_role("link", name="A diagram")).to_have_attribute(
        "href", "https://example.com/diagram.png"
    )

    shown = reply.locator(".text").inner_html()

    clipboard = "navigator.clipboard.readText()"
    reply.get_by_role("button", name="Copy message").click()
    expect(visitor.page.locator("#copy-result")).to_have_text("Copied")
    assert visitor.page.evaluate(clipboard) == RICH
    reply.get_by_role("button", name="Copy code").last.click()
    expect(reply.get_by_role("button", name="Copied")).to_have_count(2)
    copied = visitor.page.evaluate(clipboard)
    assert copied == "- old = file.readlines()\n+ new = iter(file)\n"
    visitor.messages.first.hover()
    visitor.messages.first.get_by_role("button", name="Copy message").click()
    expect(visitor.messages.first.get_by_role("button", name="Copied")).to_be_visible()
    assert visitor.page.evaluate(clipboard) == "**How**\n# do I?"

    visitor.page.reload()
    expect(reply.locator(".code-keyword").first).to_be_visible()
    assert reply.locator(".text").inner_html() == shown


def test_text_is_copied_where_the_browser_has_no_clipboard_api(
    visitor: Visitor, bedrock: BedrockServer
) -> None:
    visitor.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    bedrock.script(Says("Some *words*"))
    visitor.send("Hi")
    visitor.replies.last.get_by_role("button", name="Copy message").click()
    expect(visitor.replies.last.get_by_role("button", name="Copied")).to_be_focused()
    visitor.box.focus()
    visitor.page.keyboard.press("Control+V")
    expect(visitor.box).to_have_value("Some *words*")


def test_an_unfinished_fence_is_code_while_it_streams(
    visitor: Visitor, bedrock: BedrockServer
) -> None:
    pieces = ["Look:\n\n```python\n", "def f():\n", "    return 1\n", *["# x\n"] * 100]
    bedrock.script(Says(pieces, pause=0.2))
    visitor.box.fill("Hi")
    visitor.box.press("Enter")
    code = visitor.pending.get_by_role("group", name="Code: python").locator("code")
    expect(code).to_contain_text("return 1")
    expect(visitor.pending.locator(".code-keyword").first).to_have_text("def")
    visitor.pending.get_by_role("button", name="Copy code").click()
    copied = visitor.pending.get_by_role("button", name="Copied")
    expect(copied).to_be_focused()
    comments = code.locator(".code-comment")
    expect(comments).not_to_have_count(comments.count())
    expect(copied).to_be_focused()
    visitor.stop.click()
    expect(visitor.pending).to_have_count(0)
    expect(visitor.replies.last).not_to_contain_text("```")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_long_word_in_a_table_leaves_room_for_the_other_columns(
    sandbox: Page, width: int
) -> None:
    sandbox.set_viewport_size({"width": width, "height": 640})
    word, words = "x" * 100, "word " * 20
    sandbox.evaluate("show", f"| a | b |\n|-|-|\n| {word} | {words} |")
    for cell in sandbox.locator(".markdown td").all():
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth")
    assert sandbox.locator(".markdown td").last.evaluate("cell => cell.clientWidth > 120")


@pytest.mark.parametrize("width", [320, 1280])
def test_wide_parts_scroll_within_themselves(sandbox: Page, width: int) -> None:
    sandbox.set_viewport_size({"width": width, "height": 640})
    wide = "| " + " | ".join(f"column{n}" for n in range(40)) + " |"
    rule = "|" + "-|" * 40
    word = "x" * 400
    sandbox.evaluate(
        "show",
        f"# {word}\n\n{word} `{word}` https://a.example/{word}\n\n```{word}\n{word}\n```\n\n"
        f"- - - > ```\n        {word}\n\n{wide}\n{rule}\n{wide}\n\n$$\n{word}\n$$\n\n> {word}",
    )
    assert widest_scroll_width(sandbox) <= width
    for box in (".markdown pre", ".markdown .table"):
        assert sandbox.locator(box).first.evaluate("box => box.scrollWidth > box.clientWidth")
        sandbox.locator(box).first.focus()
        sandbox.keyboard.press("ArrowRight")
        sandbox.wait_for_function("box => document.querySelector(box).scrollLeft > 0", arg=box)


def test_a_reply_is_announced_once_and_without_its_marks(
    visitor: Visitor, bedrock: BedrockServer
) -> None:
    text = "# Title\n\nThis is **bold**. See [a page](https://a.example).\n\n- one\n- two\n\n`end`"
    bedrock.script(Says(pieces_of(text, 4)))
    visitor.send("Hi")
    spoken = visitor.page.get_by_role("log").locator("p").all_inner_texts()
    words = "Title This is bold. See a page. one two end"
    assert " ".join(" ".join(spoken[1:]).split()) == words
    expect(visitor.page.locator(".messages [aria-live], .messages [role=log]")).to_have_count(0)


CONTRAST = """() => {
  const channels = (color) => color.match(/[0-9.]+/g).slice(0, 3).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const light = (color) => {
    const [red, green, blue] = channels(color);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
  const names = rules
    .filter((rule) => rule.selectorText?.startsWith(".code-"))
    .flatMap((rule) => rule.selectorText.split(", "));
  const box = document.querySelector(".markdown .code");
  const paper = light(getComputedStyle(box).backgroundColor);
  return names.map((name) => {
    const word = document.createElement("span");
    word.className = name.slice(1);
    box.querySelector("code").append(word);
    const ink = light(getComputedStyle(word).color);
    return [name, (Math.max(paper, ink) + 0.05) / (Math.min(paper, ink) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colors_of_code_can_be_read(sandbox: Page, scheme: Any) -> None:
    sandbox.emulate_media(color_scheme=scheme)
    sandbox.evaluate("show", "```python\nx\n```")
    found = sandbox.evaluate(CONTRAST)
    sandbox.emulate_media(color_scheme="light")
    assert len(found) > 20
    assert [(name, ratio) for name, ratio in found if ratio < 4.5] == []


# Streaming


def test_a_streamed_reply_equals_one_that_is_rendered_at_once(sandbox: Page) -> None:
    # As while frames pass: each piece is rendered, and a block that is complete is not replaced.
    compare = """([pieces, hasLateLinks]) => {
      const element = document.createElement("div");
      let frame = () => {};
      const request = globalThis.requestAnimationFrame;
      globalThis.requestAnimationFrame = (run) => ((frame = run), 1);
      const streamed = new MarkdownText(element);
      for (const piece of pieces) {
        streamed.append(piece);
        frame(Infinity);
      }
      const before = element.innerHTML;
      streamed.finish();
      globalThis.requestAnimationFrame = request;
      const atOnce = show(pieces.join("")).innerHTML;
      return [hasLateLinks ? element.innerHTML : before, element.innerHTML, atOnce];
    }"""
    seed = random.randrange(1_000_000)
    cuts = random.Random(seed)
    for document in DOCUMENTS:
        # A document at once is one block of lines; each of its prefixes is a streamed document.
        for size in (1, 3, None, None, None):
            pieces = pieces_of(document, size) if size else split_at_random(document, cuts)
            before, streamed, at_once = sandbox.evaluate(
                compare, [pieces, "]: " in document or "]:\n" in document]
            )
            assert before == streamed == at_once, f"seed {seed}: {pieces}"


def split_at_random(text: str, cuts: random.Random) -> list[str]:
    places = sorted(cuts.sample(range(1, len(text)), min(len(text) - 1, 25)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


STREAM = """async (pieces) => {
  const { promise: done, resolve } = Promise.withResolvers();
  const element = show("");
  const text = new MarkdownText(element);
  let frames = 0;
  let renders = 0;
  let replaced = 0;
  let streaming = true;
  let busy = 0;
  const request = globalThis.requestAnimationFrame;
  globalThis.requestAnimationFrame = (run) => request((now) => {
    const start = performance.now();
    run(now);
    busy += performance.now() - start;
    renders += 1;
  });
  const observer = new MutationObserver((changes) => {
    for (const { target, removedNodes } of changes) {
      if (target === element) replaced += removedNodes.length;
    }
  });
  observer.observe(element, { childList: true });
  const count = () => {
    frames += 1;
    if (streaming) request(count);
  };
  request(count);
  for (const [n, piece] of pieces.entries()) {
    text.append(piece);
    // Pieces come faster than frames do.
    if (n % 10 === 9) await new Promise((resolve) => setTimeout(resolve));
  }
  const start = performance.now();
  text.finish();
  busy += performance.now() - start;
  streaming = false;
  globalThis.requestAnimationFrame = request;
  return { frames, renders, replaced, busy, length: element.textContent.length };
}"""


def test_a_long_reply_is_rendered_at_most_once_per_frame(sandbox: Page) -> None:
    paragraph = "Some **words** with `code` and [a link](https://a.example).\n\n- one\n- two\n\n"
    text = (paragraph * 300)[:20_000]
    result = sandbox.evaluate(STREAM, pieces_of(text, 10))
    assert result["renders"] <= result["frames"] + 1
    assert result["replaced"] < 100
    assert result["busy"] < 3000
    assert result["length"] > 10_000


def test_complete_blocks_and_their_selection_stay_while_a_reply_streams(sandbox: Page) -> None:
    kept = """async () => {
      const element = show("");
      const text = new MarkdownText(element);
      const frame = () => new Promise(requestAnimationFrame);
      text.append(`First *block* here.\\n\\n|${" a |".repeat(40)}\\n|${"---|".repeat(40)}\\n`);
      text.append(`|${" 2 |".repeat(40)}\\n`);
      await frame();
      await frame();
      const [first, table] = element.children;
      getSelection().selectAllChildren(first);
      table.scrollLeft = 40;
      first.title = "would be lost if the block were rendered again";
      for (let n = 0; n < 20; n += 1) {
        text.append(`| ${n} | x |\\n`);
        await frame();
        await frame();
      }
      text.append("\\nLast.");
      text.finish();
      const [same, sameTable] = element.children;
      const rows = table.querySelectorAll("tr").length;
      return [same === first, sameTable === table, table.scrollLeft, String(getSelection()), rows];
    }"""
    same, same_table, left, selected, rows = sandbox.evaluate(kept)
    assert same
    assert same_table
    assert left == 40
    assert selected.strip() == "First block here."
    assert rows == 22


# Attacks

ATTACKS = [
    "<script>owned()</script>",
    "<img src=x onerror=owned()>",
    "<svg onload=owned()><animate onbegin=owned() attributeName=x dur=1s>",
    "<svg><style><img src=x onerror=owned()></style></svg>",
    (
        "<math><mtext><table><mglyph><style><!--</style>"
        "<img title='--&gt;&lt;img src=x onerror=owned()&gt;'>"
    ),
    '<form><math><mtext></form><form><mglyph><style></math><img src onerror="owned()">',
    "<noscript><p title='</noscript><img src=x onerror=owned()>'></noscript>",
    "<iframe srcdoc='<script>parent.owned()</script>'></iframe>",
    "<a href='javascript:owned()'>click</a>",
    "<!-- --!><img src=x onerror=owned()> -->",
    "<base href=https://evil.example><link rel=stylesheet href=https://evil.example/a.css>",
    "<style>@import 'https://evil.example/a.css';</style>",
    "<x/style=position:fixed;inset:0 onmouseover=owned()>",
    "&lt;img src=x onerror=owned()&gt; &#60;script&#62;owned()&#60;/script&#62;",
    "[click](javascript:owned())",
    "[click](JaVaScRiPt:owned())",
    "[click](java\tscript:owned())",
    "[click](<java\tscript:owned()>)",
    "[click](\x01javascript:owned())",
    "[click](&#106;avascript:owned())",
    "[click](javascript&colon;owned())",
    "[click](&#x1;javascript:owned())",
    "[click](j&Tab;avascript:owned())",
    "[click](data:text/html,<script>owned()</script>)",
    "[click](vbscript:owned())",
    "[click](file:///etc/passwd)",
    "[click](//evil.example/x)",
    "[click](blob:https://evil.example/x)",
    "[click](https:javascript:owned())",
    "[click](\\javascript:owned())",
    "[click][a]\n\n[a]: javascript:owned()",
    "<javascript:owned()>",
    "<data:text/html;base64,PHNjcmlwdD5vd25lZCgpPC9zY3JpcHQ+>",
    '[click](https://a.example "title\' onmouseover=owned() x=")',
    '[click](https://a.example/"onmouseover=owned()//)',
    "![x](https://evil.example/pixel.png)",
    "![x](data:image/svg+xml,<svg onload=owned()>)",
    "![x](javascript:owned())",
    '!["onerror=owned() x="](x)',
    "[![x](https://evil.example/pixel.png)](javascript:owned())",
    "```<img src=x onerror=owned()>\ncode\n```",
    '```python"onmouseover=owned()\n</code></pre><script>owned()</script>\n```',
    "```__proto__\nx\n```\n\n```constructor\nx\n```",
    "```html\n<script>owned()</script><img src=x onerror=owned()>\n```",
    "    <script>owned()</script>",
    "`<img src=x onerror=owned()>`",
    (
        "| <img src=x onerror=owned()> | [b](javascript:owned()) |\n|---|---|\n"
        "| <svg onload=owned()> | x |"
    ),
    "# <img src=x onerror=owned()>",
    "- [ ] <img src=x onerror=owned()>\n- <details open ontoggle=owned()>",
    "> <object data=https://evil.example/x></object><embed src=https://evil.example/x>",
    (
        "$<img src=x onerror=owned()>$ \\(<svg onload=owned()>\\)\n\n"
        "$$\n<img src=x onerror=owned()>\n$$"
    ),
    "[__proto__]: https://a.example\n\n[__proto__] [constructor]",
    "\u202ereversed <img src=x onerror=owned()>",
    "https://evil.example/<script>owned()</script>",
    "{{constructor.constructor('owned()')()}} ${owned()} <%= owned() %>",
]


def test_nothing_in_a_reply_runs_or_loads(
    visitor: Visitor, bedrock: BedrockServer, server: Server
) -> None:
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.expose_function("owned", lambda: asked.append("owned"))
    text = "\n\n".join(ATTACKS)
    bedrock.script(Says(pieces_of(text, 9), pause=0))
    visitor.send("Hi")
    expect(visitor.replies.last).to_contain_text("<%= owned() %>")
    foreign = visitor.page.evaluate(
        """() => {
          const names = new Set(("H2 H3 H4 H5 H6 SPAN TIME DIV P BR HR UL OL LI INPUT BLOCKQUOTE " +
            "TABLE THEAD TBODY TR TH TD PRE CODE A EM STRONG S BUTTON").split(" "));
          const attributes = new Set(("class dir datetime href rel target title tabindex role " +
            "aria-label type disabled checked start data-action").split(" "));
          return [...document.querySelectorAll(".message.assistant *")].filter((element) =>
            !names.has(element.tagName) ||
            element.getAttributeNames().some((name) => !attributes.has(name)) ||
            (element.tagName === "A" && !["http:", "https:", "mailto:"].includes(element.protocol))
          ).map((element) => element.outerHTML);
        }"""
    )
    assert foreign == []
    for button in visitor.replies.last.get_by_text("click", exact=True).all():
        button.hover()
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:"))] == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_text_of_an_attack_is_shown(sandbox: Page, attack: str) -> None:
    shown = sandbox.evaluate("(text) => show(text).innerText", attack)
    words = re.findall(r"onerror=owned|<script>owned|onload=owned|javascript:owned", attack)
    if "]: " not in attack and not attack.startswith("```") and "&" not in attack:
        for word in words:
            assert word in shown
    assert shown.strip() or "]: " in attack


HOSTILE = {
    "brackets": "[" * 100_000,
    "images": "![" * 50_000,
    "links": "[a](" * 25_000,
    "closed brackets": "[]" * 50_000,
    "stars": "*" * 100_000,
    "open emphasis": "*a **a " * 15_000,
    "nested emphasis": "*a _a " * 15_000 + " a_ a*" * 15_000,
    "strong and bracket": "**x [" * 20_000,
    "quotes": ">" * 100_000,
    "lazy quotes": ("> " * 90 + "a\n" + "b\n" * 10) * 200,
    "lists": "- " * 50_000,
    "indented lists": "\n".join(" " * n * 2 + "- a" for n in range(400)),
    "backticks": " ".join("`" * n for n in range(440)),
    "tildes": "~~a " * 25_000,
    "less than": "<" * 100_000,
    "entities": "&" * 100_000,
    "backslashes": "\\" * 100_000,
    "dollars": "$a" * 50_000,
    "open math": "\\(" * 50_000,
    "math lines": "x\n" + "\\[a\n" * 20_000 + "\\] b",
    "dollar lines": "$$ a $$ b\n" * 10_000,
    "references": "[a]: https://a.example\n" * 4_000,
    "columns": "|" * 50_000 + "\n" + "|-" * 50_000 + "\n" + "|x" * 50_000,
    "rows": "|a|b|\n|-|-|\n" + "|x|y|\n" * 5_000,
    "urls": "http://" * 14_000,
    "addresses": "mailto:" * 14_000,
    "spaces": " " * 100_000 + "x",
    "fences": "```x\n" * 20_000,
    "code": "```python\n" + "f'{" * 33_000,
    "long line of code": "```markdown\n" + "[a](" * 3_000,
    "lines of code": "```csharp\n" + ("a" * 500 + "\n") * 39,
    "blocks of code": ("```cpp\n" + ("a" * 500 + "\n") * 39 + "```\n") * 5,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_does_not_freeze_the_page(sandbox: Page, name: str) -> None:
    milliseconds = sandbox.evaluate(
        """(text) => {
          const start = performance.now();
          const element = show(text);
          const end = performance.now();
          element.offsetHeight;
          const laid = performance.now();
          element.remove();
          return [end - start, laid - end];
        }""",
        HOSTILE[name],
    )
    assert sum(milliseconds) < 5_000


@pytest.mark.parametrize(
    ("opening", "closing"), [("> ", ""), ("- ", ""), ("1. ", ""), ("*a _b ", " b_ a*")]
)
def test_deeply_nested_text_is_shown(sandbox: Page, opening: str, closing: str) -> None:
    depth = """(text) => {
      let depth = 0;
      for (let node = show(text); node; node = node.firstElementChild) depth += 1;
      return depth;
    }"""
    assert 50 < sandbox.evaluate(depth, opening * 300 + "the end" + closing * 300) < 150
    expect(sandbox.locator(".markdown")).to_contain_text("the end")
