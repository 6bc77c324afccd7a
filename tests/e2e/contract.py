"""What the daemon may answer, as its own /openapi.json says: every response of every test is held against it (penstock.py calls
check). Status, media type and body must be documented for that operation, headers that the document requires must be there, and
nothing else may be in a body.

Schemas are put together once, with their references filled in, and what was found right before is not looked at again: tests poll.
"""
import gzip
import json
import re

import jsonschema


class Broken(AssertionError):
    """An answer that the document does not allow."""


class Contract:
    def __init__(self, document):
        self.document = document
        self._paths = sorted(((template, pattern_of(template)) for template in document["paths"]),
                             key=lambda entry: (entry[0].count("{"), -len(entry[0])))
        self._validators = {}
        self._right = set()

    def operation(self, method, path):
        """(template, operation); operation None: the document has no such method there; both None: no such path."""
        path = path.partition("?")[0]
        for template, pattern in self._paths:
            if pattern.fullmatch(path):
                item = self.document["paths"][template]
                method = "get" if method == "HEAD" else method.lower()
                if method in item:
                    return template, item[method]
                return template, None
        return None, None

    def check(self, method, path, status, headers, body=None):
        """`headers` by their names in small letters; `body`: None when it is a stream, which is not read here."""
        content_type = headers.get("content-type")
        where = f"{method} {path} answered {status} {content_type or '(no content type)'}"
        template, operation = self.operation(method, path)
        if operation is None:
            self._check_unknown(method, where, status, content_type, body)
            return
        documented = operation["responses"].get(str(status))
        if documented is None:
            raise Broken(f"{where}: {operation['operationId']} documents {', '.join(sorted(operation['responses']))}\n{body!r:.600}")
        documented = self._filled(documented)
        for name, header in documented.get("headers", {}).items():
            if header.get("required") and name.lower() not in headers:
                raise Broken(f"{where}: without the header {name}, which is documented")
        content = documented.get("content", {})
        if body and headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self._check_body(f"{where} ({operation['operationId']})", method, status, content, content_type, body)

    def _check_unknown(self, method, where, status, content_type, body):
        if method == "OPTIONS" and status in (200, 204):
            return
        if status < 400:
            raise Broken(f"{where}: /openapi.json knows no such operation")
        problem = self._filled(self.document["components"]["responses"]["NotFound"])["content"]
        self._check_body(where, method, status, problem, content_type, body)

    def _check_body(self, where, method, status, content, content_type, body):
        if method == "HEAD" or status in (101, 204, 304):
            if body:
                raise Broken(f"{where}: with a body of {len(body)} bytes")
            return
        bare = (content_type or "").partition(";")[0].strip().lower()
        if bare not in content:
            raise Broken(f"{where}: documented are {', '.join(content) or 'no body'}")
        if body is None:
            return
        if bare == "application/x-ndjson":  # each line is what an item of the page is
            page = self._filled(content["application/json"]["schema"])
            for line in body.splitlines():
                self._validate(where + " in a line", page["properties"]["items"]["items"], json.loads(line))
        if bare != "application/json" and not bare.endswith("+json"):
            return
        key = (json.dumps(content[bare]["schema"]), body)
        if key in self._right:
            return
        try:
            value = json.loads(body)
        except ValueError as wrong:
            raise Broken(f"{where}: not JSON: {wrong}: {body!r:.600}") from None
        self._check_value(where, content[bare]["schema"], value)
        if isinstance(value, dict) and bare == "application/problem+json" and value["status"] != status:
            raise Broken(f"{where}: its problem says {value['status']}")
        if len(body) < 20_000:
            self._right.add(key)

    def _check_value(self, where, schema, value):
        """The items of a page one by one: most of them were seen in a page before."""
        whole = self._filled(schema)
        items = whole.get("properties", {}).get("items", {}).get("items")
        if items and isinstance(value, dict) and isinstance(value.get("items"), list):
            for item in value["items"]:
                key = (id(items), json.dumps(item, sort_keys=True))
                if key not in self._right:
                    self._validate(where + " in items", items, item)
                    self._right.add(key)
            value = {**value, "items": []}
        self._validate(where, whole, value)

    def _validate(self, where, schema, value):
        validator = self._validators.get(id(schema))
        if validator is None:
            validator = self._validators[id(schema)] = jsonschema.Draft202012Validator(schema)
        wrong = jsonschema.exceptions.best_match(validator.iter_errors(value))
        if wrong is not None:
            raise Broken(f"{where}: at /{'/'.join(map(str, wrong.absolute_path))}: {wrong.message:.1000}")

    def _filled(self, part):
        """The same with what its references name in their place; the document has no circles. Each part is made once."""
        reference = part.get("$ref") if isinstance(part, dict) else None
        if reference is None:
            key = ("whole", id(part))
            if key not in self._validators:
                self._validators[key] = (part, self._expand(part))  # with the part, so that its id stays its own
            return self._validators[key][1]
        key = ("reference", reference)
        if key not in self._validators:
            self._validators[key] = self._expand(part)
        return self._validators[key]

    def _expand(self, part):
        if isinstance(part, list):
            return [self._expand(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            found = self.document
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name.replace("~1", "/").replace("~0", "~")]
            return self._filled_reference(part["$ref"], found)
        return {name: self._expand(value) for name, value in part.items()}

    def _filled_reference(self, reference, found):
        key = ("reference", reference)
        if key not in self._validators:
            self._validators[key] = self._expand(found)
        return self._validators[key]


def pattern_of(template):
    """/v1/runs/{id} as a regular expression; the path of a hook may hold slashes."""
    parts = re.split(r"(\{\w+\})", template)
    anything = ".+" if template.startswith("/hooks/") else "[^/]+"
    return re.compile("".join(anything if part.startswith("{") else re.escape(part) for part in parts))
