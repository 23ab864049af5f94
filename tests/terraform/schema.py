"""The schema of Terraform's AWS provider, for the types that some files use, out of the npm package @cdktf/provider-aws.

    schema.py PACKAGE.tgz OUT.json TYPE…      TYPE: aws_vpc_endpoint, data.aws_region

The package is generated from the provider, and has every argument and block by name, with its type and whether it is required.
What it doesn't have: which optional arguments the provider fills in itself (taken to be: id, and all of data sources), how often a
block may stand beyond once or often, and what values are right.
"""

import json
import re
import sys
import tarfile

SIMPLE = {"string": "string", "boolean": "bool", "number": "number", "any": "dynamic"}
GETTERS = {
    "String": "string",
    "Boolean": "bool",
    "Number": "number",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "BooleanMap": ["map", "bool"],
    "NumberMap": ["map", "number"],
    "AnyMap": ["map", "string"],
}
ARGUMENT = re.compile(
    r"^\s+(\w+): \{\n\s+value: (.*),\n\s+isBlock: (true|false),\n\s+type: \"(\w+)\",\n\s+storageClassType: \"(\w+)\",\n", re.M
)
COMPUTED = re.compile(
    r"// (\w+) - computed: true, optional: false, required: false\n"
    r"(?:\s+this\._\w+ = new (?:\w+\.)?(\w+)\(this, \"\w+\", (true|false).*\n|\s+get \w+\(\) \{\n\s+return (.*);\n)"
)


def type_of(kind, stored):
    if stored in SIMPLE:
        return SIMPLE[stored]
    for word in ("string", "number", "boolean"):
        if stored == f"{word}Map":
            return ["map", SIMPLE[word]]
        if stored == f"{word}List":
            return ["set" if kind == "set" else "list", SIMPLE[word]]
        if stored == f"{word}ListMap":
            return ["map", ["list", SIMPLE[word]]]
        if stored == f"{word}ListList":
            return ["list", ["list", SIMPLE[word]]]
    return None


class Source:
    """One type's JavaScript and the declarations to it."""

    def __init__(self, code, declared):
        self.code, self.declared = code, declared

    def required(self, interface):
        found = re.search(rf"^export interface {interface}(?: extends \S+)? \{{\n(.*?)^\}}", self.declared, re.M | re.S)
        names = set()
        for line in found[1].splitlines() if found else ():
            if linked := re.search(r"\{@link \S+#(\w+) ", line):
                name = linked[1]
            elif re.match(r"\s+readonly \w+: ", line):
                names.add(name)
        return names

    def function(self, name):
        found = re.search(rf"^function {name}\(.*?^\}}", self.code, re.M | re.S)
        if not found:
            raise SystemExit(f"no {name} in the package")
        return found[0]

    def class_(self, name):
        found = re.search(rf"^class {name} .*?^\}}", self.code, re.M | re.S)
        if not found:
            raise SystemExit(f"no class {name} in the package")
        return found[0]

    def block(self, text, interface, class_text):
        required = self.required(interface)
        block = {"attributes": {}, "blocks": {}}
        for name, value, is_block, kind, stored in ARGUMENT.findall(text):
            nested = re.search(r"(\w+)ToHclTerraform\b", value)
            type_ = type_of(kind, stored)
            if is_block == "true" and nested and type_ is None:
                inner = nested[1][0].upper() + nested[1][1:]
                is_many = "listMapperHcl" in value
                block["blocks"][name] = {
                    "nesting": {"struct": "single"}.get(kind, kind),
                    "min": 1 if name in required else 0,
                    "max": 0 if is_many or kind == "struct" else 1,
                    "block": self.block(self.function(f"{nested[1]}ToHclTerraform"), inner, self.class_of(inner)),
                }
            else:
                block["attributes"][name] = {
                    "type": type_ or "dynamic",
                    "required": name in required,
                    "optional": name not in required,
                    "computed": name == "id",
                }
        for name, type_ in self.computed(class_text).items():
            if name not in block["blocks"]:
                block["attributes"].setdefault(name, {"type": type_, "required": False, "optional": False, "computed": True})
        return block

    def class_of(self, inner):
        """The class that an inner block's results are of, if there is one."""
        found = re.search(rf"^class {inner}OutputReference .*?^\}}", self.code, re.M | re.S)
        return found[0] if found else ""

    def computed(self, text):
        found = {}
        for name, class_, is_set, getter in COMPUTED.findall(text):
            if class_.endswith("List"):
                item = self.computed(self.class_(class_.removesuffix("List") + "OutputReference"))
                found[name] = ["set" if is_set == "true" else "list", ["object", item]]
            elif class_:
                found[name] = ["map", "string"]
            else:
                kind = re.search(r"this\.get(\w+)Attribute\(", getter)
                type_ = GETTERS.get(kind[1], "dynamic") if kind else "dynamic"
                found[name] = ["set", *type_[1:]] if "tolist" in getter and isinstance(type_, list) else type_
        return found


def directory_of(type_):
    name = type_.removeprefix("data.").removeprefix("aws_").replace("_", "-")
    return f"package/lib/{'data-aws-' if type_.startswith('data.') else ''}{name}"


def main(package, out, *types):
    schemas, unknown = {}, []
    directories = {type_: directory_of(type_) for type_ in ("provider", *types)}
    wanted = {f"{directory}/index.{end}" for directory in directories.values() for end in ("js", "d.ts")}
    # In the order in which they stand: to go back means to unpack all of it again.
    with tarfile.open(package, "r|gz") as archive:
        texts = {member.name: archive.extractfile(member).read().decode() for member in archive if member.name in wanted}
    for type_, directory in directories.items():
        if f"{directory}/index.js" not in texts:
            unknown.append(type_)
            continue
        source = Source(texts[f"{directory}/index.js"], texts[f"{directory}/index.d.ts"])
        interface = re.search(r"^export interface (\w+Config)\b", source.declared, re.M)[1]
        classes = re.findall(r"^class (\w+) extends cdktf\.Terraform(?:Resource|DataSource|Provider) ", source.code, re.M)
        class_text = source.class_(classes[-1])
        hcl = class_text[class_text.index("synthesizeHclAttributes()") :]
        schemas[type_] = source.block(hcl, interface, class_text)
        if type_.startswith("data."):
            for attribute in schemas[type_]["attributes"].values():
                attribute["computed"] = not attribute["required"]
    for type_ in unknown:
        print(f"the provider has no {type_}", file=sys.stderr)
    if unknown:
        sys.exit(1)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(schemas, file)


main(*sys.argv[1:])
