"""Values made of JSON Schemas, right ones and wrong ones, from a random.Random: what test_fuzz.py sends. Knows the keywords that
/openapi.json uses and fails on others, so that none is passed over in silence."""
import json
import string

NASTY = ["", " ", "\0", "\n", "'", '"', "\\", "/", "..", "../../etc/passwd", "%", "%zz", "%00", "*", "null", "-1", "1e999", "0x1",
         "9" * 40, "a" * 300, "ü€😀", "\ud7ff", "\u202e", "\x7f", "\x1b[31m", "<script>", "{}", "${env:HOME}", "nan", "é" * 80]
KNOWN = {"type", "enum", "const", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items", "minItems", "minimum",
         "maximum", "minLength", "maxLength", "maxItems", "pattern", "format", "description", "propertyNames", "examples", "contentEncoding", "$ref"}


def text(random):
    if random.random() < 0.5:
        return random.choice(NASTY)
    return "".join(random.choice(string.printable) for _ in range(random.randint(0, 12)))


def anything(random, depth=0):
    kind = random.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return None
    if kind == 1:
        return random.random() < 0.5
    if kind == 2:
        return random.choice([0, -1, 1, 2**31, 2**53 + 1, -2**63, 2**63, 2**64, 10**30])
    if kind == 3:
        return random.choice([0.5, -0.0, 1e-300, 1e300])
    if kind in (4, 5):
        return text(random)
    if kind == 6:
        return [anything(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 7:
        return {text(random): anything(random, depth + 1) for _ in range(random.randrange(4))}
    nested = 1
    for _ in range(random.choice([5, 70, 200])):
        nested = [nested]
    return nested


def right(schema, random):
    unknown = set(schema) - KNOWN
    assert not unknown, f"this generator does not know {unknown}"
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return random.choice(schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return right(random.choice(schema[several]), random)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = random.choice(kind)
    if kind == "object":
        names = [name for name in schema.get("properties", {}) if name in schema.get("required", []) or random.random() < 0.5]
        made = {name: right(schema["properties"][name], random) for name in names}
        if not schema.get("properties"):
            made = {f"m{n}": anything(random) for n in range(random.randrange(3))}
        return made
    if kind == "array":
        return [right(schema.get("items", {}), random) for _ in range(random.randint(schema.get("minItems", 0), 4))]
    if kind == "string":
        return right_text(schema, random)
    if kind == "integer":
        least, most = schema.get("minimum", -2**63), schema.get("maximum", 2**63 - 1)
        return random.choice([least, most, min(most, least + 1), random.randint(least, most), min(most, max(least, random.randint(0, 20)))])
    if kind == "number":
        return random.uniform(schema.get("minimum", -1e6), schema.get("maximum", 1e6))
    if kind == "boolean":
        return random.random() < 0.5
    if kind == "null":
        return None
    return anything(random)


def right_text(schema, random):
    if schema.get("format") == "date-time":
        return random.choice(["2018-02-07T00:00:00Z", "2026-11-01T00:00:00.123456Z", "1969-12-31T23:59:59-23:59", "2018-02-07T00:00:00+01:00",
                              "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"])
    if "examples" in schema:
        return random.choice(schema["examples"])
    if "pattern" in schema or schema.get("contentEncoding") == "base64":
        return "AAAA"
    return text(random) or "a" * schema.get("minLength", 0)


def wrong(schema, random):
    """A right value with one thing changed somewhere, or something else altogether."""
    if random.random() < 0.2:
        return anything(random)
    return changed(right(schema, random), random)


def changed(value, random):
    if isinstance(value, dict) and value and random.random() < 0.7:
        name = random.choice(sorted(value))
        rest = {key: item for key, item in value.items() if key != name}
        return random.choice([rest, {**value, text(random): anything(random)}, {**value, name: changed(value[name], random)},
                              {**value, name: anything(random)}])
    if isinstance(value, list) and value and random.random() < 0.7:
        return [*value[:-1], changed(value[-1], random)]
    return anything(random)


def damaged(data, random):
    """Bytes with a few of them changed, cut off or doubled."""
    data = bytearray(data)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(data) + 1)
        how = random.randrange(4)
        if how == 0:
            data[at:at + 1] = bytes([random.choice(b"\x00\xff\"'{}[]:,\\-& \n\t#!*%") if random.random() < 0.8 else random.randrange(256)])
        elif how == 1:
            del data[at:at + random.randint(1, 5)]
        elif how == 2:
            data[at:at] = data[max(0, at - random.randint(1, 20)):at]
        else:
            del data[at:]
    return bytes(data)


def as_json(value):
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
