"""The description of the API for people, ``/docs``: a page made from the OpenAPI document."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from shlex import quote as quote_for_shell
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
STYLE = Path(__file__).with_name("reference.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%232b6a55'/%3E%3Cpath d='M4.5 5.5h7M4.5 8h7M4.5 "
    "10.5h4' stroke='%23fff' stroke-width='1.3' stroke-linecap='round'/%3E%3C/svg%3E"
)

Json = Mapping[str, Any]


class Reference(NamedTuple):
    """The page and the headers of its response."""

    html: bytes
    headers: dict[str, str]

    def is_known(self, if_none_match: str | None) -> bool:
        """Return whether the client has the page, as its ``If-None-Match`` header says."""
        tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        return "*" in tags or self.headers["ETag"] in tags


def render_reference(document: Json) -> Reference:
    """Return a page that describes to people what an OpenAPI document describes to programs.

    It needs no script and no other file. All text of the document is escaped.
    """
    html = _Page(document).html().encode()
    return Reference(
        html,
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
            "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
            "Cache-Control": "no-cache",
            "ETag": f'"{hashlib.sha256(html).hexdigest()[:32]}"',
        },
    )


class _Operation(NamedTuple):
    id: str
    """The id of its section."""
    method: str
    path: str
    described: Json


class _Page:
    """The page for a document; its methods return HTML."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._operations = list(_operations(document))

    def html(self) -> str:
        info = self._document["info"]
        title = escape(info["title"])
        contents = "".join(
            f'<li><a href="#{each.id}"><span class="method">{each.method}</span> '
            f"<code>{escape(each.path)}</code></a></li>"
            for each in self._operations
        )
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>The API of {title}</title>\n"
            f'<link rel="icon" href="{_ICON}">\n<style>{STYLE}</style>\n</head>\n<body>\n'
            '<a class="skip" href="#main">Skip to the description</a>\n'
            '<nav aria-labelledby="contents"><h2 id="contents">Contents</h2><ul>'
            f'<li><a href="#examples">How to run the examples</a></li>{contents}'
            '<li><a href="#errors">Errors</a></li></ul></nav>\n'
            f'<main id="main" tabindex="-1">\n<h1>The API of {title}</h1>\n'
            f"<p>Version {escape(info['version'])}. Programs find the same description at "
            '<a href="openapi.json"><code>openapi.json</code></a> '
            f"(OpenAPI {escape(self._document['openapi'])}).</p>\n"
            f"{_paragraphs(info.get('description', ''))}\n{self._preparation()}\n"
            + "\n".join(map(self._section, self._operations))
            + f"\n{self._errors()}\n</main>\n</body>\n</html>\n"
        )

    def _preparation(self) -> str:
        """Say what the examples need: the address of the server, and a token."""
        lines, schemes = ["URL=http://127.0.0.1:8000"], ""
        if self._document.get("security"):
            lines.append("TOKEN=...")
            described = self._document["components"].get("securitySchemes", {})
            schemes = "".join(
                _paragraphs(each.get("description", "")) for each in described.values()
            )
        return (
            '<section id="examples"><h2>How to run the examples</h2>'
            f"<p>In a shell, first set the address of this server.</p>{schemes}"
            f"{_code(chr(10).join(lines))}</section>"
        )

    # Operations -----------------------------------------------------------------------------------

    def _section(self, operation: _Operation) -> str:
        described = operation.described
        summary = _paragraphs(described.get("summary", ""))
        summary += _paragraphs(described.get("description", ""))
        if operation.described.get("security") == [] and self._document.get("security"):
            summary += "<p>It needs no token.</p>"
        return (
            f'<section class="operation" id="{operation.id}" '
            f'aria-labelledby="{operation.id}-name"><h2 id="{operation.id}-name">'
            f'<span class="method">{operation.method}</span> <code>{escape(operation.path)}</code>'
            f'</h2><div class="summary">{summary}</div><div>{self._parameters(described)}'
            f"{self._request_body(described)}{self._responses(described)}</div>"
            f"<div>{self._examples(operation)}</div></section>"
        )

    def _parameters(self, operation: Json) -> str:
        parameters = map(self._resolve, operation.get("parameters", []))
        fields = "".join(
            self._field(
                each["name"],
                each.get("schema", {}),
                f"in the {each['in']}",
                is_required=each.get("required", False),
                description=each.get("description", ""),
            )
            for each in parameters
        )
        return f"<h3>Parameters</h3><dl>{fields}</dl>" if fields else ""

    def _request_body(self, operation: Json) -> str:
        if "requestBody" not in operation:
            return ""
        body = self._resolve(operation["requestBody"])
        return "<h3>Body of the request</h3>" + self._contents(body.get("content", {}))

    def _responses(self, operation: Json) -> str:
        successes, errors = "", ""
        for status, response in sorted(operation["responses"].items()):
            resolved = self._resolve(response)
            if codes := _codes(resolved):
                links = ", ".join(
                    f'<a href="#error-{escape(code)}"><code>{escape(code)}</code></a>'
                    for code in codes
                )
                errors += f"<dt>{escape(status)}</dt><dd>{links}</dd>"
                continue
            headers = "".join(
                self._field(
                    name,
                    header.get("schema", {}),
                    "a header",
                    description=header.get("description", ""),
                )
                for name, header in resolved.get("headers", {}).items()
            )
            successes += (
                f"<h3>Response {escape(status)}</h3>{_paragraphs(resolved.get('description', ''))}"
                f"{self._contents(resolved.get('content', {}))}"
                + (f"<dl>{headers}</dl>" if headers else "")
            )
        if errors:
            errors = f'<h3>Errors</h3><dl class="codes">{errors}</dl>'
        return successes + errors

    def _contents(self, content: Json) -> str:
        """Describe a body in each of its media types."""
        parts = []
        for kind, media_type in content.items():
            heading = f"<h4><code>{escape(kind)}</code></h4>"
            schema = media_type.get("schema", {})
            described = self._resolve(schema).get("description", "")
            fields = self._fields(schema)
            events = "".join(
                f"<dt><code>{escape(name)}</code></dt><dd>{self._fields(data)}</dd>"
                for name, data in media_type.get("x-events", {}).items()
            )
            if events:
                events = f"<h4>Events, and the fields of their data</h4><dl>{events}</dl>"
            parts.append(f"{heading}{_paragraphs(described)}{fields}{events}")
        return "".join(parts)

    # Schemas --------------------------------------------------------------------------------------

    def _fields(self, schema: Json, within: tuple[str, ...] = ()) -> str:
        """Describe the fields of the objects that a schema allows, and of those in them.

        ``within`` has the names of the schemas around it, which are not described again.
        """
        html = ""
        for name, part in self._objects(schema):
            if name in within:
                continue
            required = part.get("required", [])
            html += "".join(
                self._field(
                    field,
                    described,
                    is_required=field in required,
                    description=self._resolve(described).get("description", ""),
                    within=(*within, name),
                )
                for field, described in sorted(
                    part["properties"].items(), key=lambda item: item[0] not in required
                )
            )
        return f"<dl>{html}</dl>" if html else ""

    def _field(
        self,
        name: str,
        schema: Json,
        *facts: str,
        is_required: bool = False,
        description: str,
        within: tuple[str, ...] = (),
    ) -> str:
        kind = [self._type(schema), *self._bounds(schema), *facts]
        kind += ["required"] if is_required else []
        return (
            f'<dt><code>{escape(name)}</code> <span class="kind">{escape(", ".join(kind))}</span>'
            f"</dt><dd>{_paragraphs(description)}{self._fields(schema, within)}</dd>"
        )

    def _type(self, schema: Json) -> str:
        """Return the words for the type of a value."""
        schema = self._resolve(schema)
        if "const" in schema or "enum" in schema:
            return " or ".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
        if alternatives := _alternatives(schema):
            return " or ".join(dict.fromkeys(map(self._type, alternatives)))
        kind = schema.get("type", "object" if "properties" in schema else "any value")
        if kind == "array":
            items = schema.get("items")
            return f"array of {self._type(items)}s" if isinstance(items, Mapping) else "array"
        return kind if isinstance(kind, str) else " or ".join(kind)

    def _bounds(self, schema: Json) -> Iterator[str]:
        """Yield the words for what a value of the schema must be, apart from its type."""
        schema = self._resolve(schema)
        for part in map(self._resolve, _alternatives(schema) or [schema]):
            for least, most, unit in (
                ("minLength", "maxLength", " characters"),
                ("minimum", "maximum", ""),
            ):
                if least in part and most in part:
                    yield f"{part[least]:,} to {part[most]:,}{unit}"
                elif most in part:
                    yield f"at most {part[most]:,}{unit}"
                elif least in part:
                    yield f"at least {part[least]:,}{unit}"
            if "format" in part:
                yield part["format"]
        if schema.get("default") is not None:
            yield f"default {json.dumps(schema['default'])}"

    def _objects(self, schema: Json) -> Iterator[tuple[str, Json]]:
        """Yield the objects with described fields that a schema allows, and their names."""
        name = schema.get("$ref", "").rpartition("/")[2]
        schema = self._resolve(schema)
        if "properties" in schema:
            yield name or str(id(schema)), schema
            return
        parts = _alternatives(schema)
        if isinstance(schema.get("items"), Mapping):
            parts.append(schema["items"])
        for part in parts:
            yield from self._objects(part)

    def _resolve(self, part: Json) -> Json:
        """Return the part of the document to which a reference leads; fields beside it prevail."""
        reference = part.get("$ref")
        if reference is None:
            return part
        found: Any = self._document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        beside = {name: value for name, value in part.items() if name != "$ref"}
        return {**self._resolve(found), **beside}

    # Examples -------------------------------------------------------------------------------------

    def _examples(self, operation: _Operation) -> str:
        html = f"<h3>Example</h3>{_code(self._command(operation))}"
        for status, response in sorted(operation.described["responses"].items()):
            resolved = self._resolve(response)
            if _codes(resolved):
                continue
            for kind, media_type in resolved.get("content", {}).items():
                example = self._example(media_type)
                if example is not None:
                    heading = f"<h4>{escape(status)}, <code>{escape(kind)}</code></h4>"
                    html += heading + _code(_text(example))
        return html

    def _command(self, operation: _Operation) -> str:
        """Return a command for curl that sends a request."""
        described, path = operation.described, operation.path
        needs_token = bool(described.get("security", self._document.get("security")))
        query = {}
        for parameter in map(self._resolve, described.get("parameters", [])):
            name, value = parameter["name"], parameter.get("example", parameter["name"])
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
            elif parameter["in"] == "query" and (
                parameter.get("required") or ("example" in parameter and not needs_token)
            ):
                query[name] = value
        address = path + (f"?{urlencode(query)}" if query else "")
        options = []
        if operation.method != "GET":
            options.append(f"-X {operation.method}")
        success = self._resolve(described["responses"].get("200", {})).get("content", {})
        if EVENT_STREAM in success and JSON not in success:
            options.append("-N")
        lines = [" ".join(["curl", *options, f'"$URL{address}"'])]
        if needs_token:
            lines.append('-H "Authorization: Bearer $TOKEN"')
        body = self._resolve(described.get("requestBody", {})).get("content", {}).get(JSON)
        if body is not None:
            example = json.dumps(self._example(body) or {}, ensure_ascii=False)
            lines += [f"-H 'Content-Type: {JSON}'", f"-d {quote_for_shell(example)}"]
        return " \\\n  ".join(lines)

    def _example(self, media_type: Json) -> Any:
        """Return an example of a body, or None if there is none."""
        if "example" in media_type:
            return media_type["example"]
        for example in media_type.get("examples", {}).values():
            return self._resolve(example).get("value")
        schema = self._resolve(media_type.get("schema", {}))
        return next(iter(schema.get("examples", [])), None)

    # Errors ---------------------------------------------------------------------------------------

    def _errors(self) -> str:
        """Describe the body of errors, and each code."""
        named: Json = self._document["components"].get("responses", {})
        # Responses that no operation has are named; their status is the beginning of the text.
        responses = [(each["description"].partition(":")[0], each) for each in named.values()]
        for operation in self._operations:
            responses += operation.described["responses"].items()
        statuses: dict[str, set[str]] = {}
        bodies = {}
        for status, response in responses:
            resolved = self._resolve(response)
            for code in _codes(resolved):
                statuses.setdefault(code, set()).add(status)
                bodies[code] = resolved["content"][JSON]
        described = ""
        for code in sorted(statuses):
            examples = bodies[code].get("examples", {})
            sentence = self._resolve(examples[code])["value"]["error"] if code in examples else ""
            described += (
                f'<dt id="error-{escape(code)}"><code>{escape(code)}</code> '
                f'<span class="kind">{escape(", ".join(sorted(statuses[code])))}</span></dt>'
                f"<dd>{_paragraphs(sentence)}</dd>"
            )
        if not bodies:
            return ""
        form = self._fields({"$ref": next(iter(bodies.values()))["schema"]["$ref"]})
        return (
            '<section id="errors"><h2>Errors</h2><p>The body of an error is an object.</p>'
            f"{form}<h3>The codes, each with a sentence that it may have</h3>"
            f"<dl>{described}</dl></section>"
        )


def _operations(document: Json) -> Iterator[_Operation]:
    used: set[str] = set()
    for path, by_method in document["paths"].items():
        for method, operation in by_method.items():
            if method not in ("get", "put", "post", "delete", "options", "head", "patch", "trace"):
                continue  # OpenAPI allows other fields here
            name = operation.get("operationId") or f"{method} {path}"
            id = f"operation-{re.sub(r'[^A-Za-z0-9]+', '-', name)}"
            while id in used:
                id += "-"
            used.add(id)
            yield _Operation(id, method.upper(), path, operation)


def _codes(response: Json) -> list[str]:
    """Return the codes of an error response in the API's format, or none for any other response."""
    schema = response.get("content", {}).get(JSON, {}).get("schema", {})
    codes: list[str] = schema.get("properties", {}).get("code", {}).get("enum", [])
    return codes


def _alternatives(schema: Json) -> list[Json]:
    return [part for name in ("anyOf", "oneOf", "allOf") for part in schema.get(name, [])]


def _paragraphs(text: str) -> str:
    paragraphs: Iterable[str] = filter(None, (each.strip() for each in text.split("\n\n")))
    return "".join(f"<p>{escape(_sentence(each))}</p>" for each in paragraphs)


def _sentence(text: str) -> str:
    """Return the text with a capital letter at its beginning and a full stop at its end."""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".:;?!" else f"{text}."


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def _text(example: object) -> str:
    if isinstance(example, str):
        return example.strip()
    return json.dumps(example, indent=2, ensure_ascii=False)
