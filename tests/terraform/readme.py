"""Compares the tables of inputs and outputs in deploy/terraform/README.md with the code; with --write, writes them.

Tables stand between `<!-- inputs -->` and `<!-- outputs -->` and an `<!-- end -->`.
"""

import difflib
import pathlib
import re
import sys

import hcl2

MODULE = pathlib.Path(__file__).parents[2] / "deploy/terraform"


def declared(file, kind):
    """What a file declares, in its order: names and bodies."""
    with (MODULE / file).open(encoding="utf-8") as text:
        for entry in hcl2.load(text).get(kind, []):
            yield from entry.items()


def first(value):
    return value[0] if isinstance(value, list) and value else value


def default_of(name):
    """As it is written, without the line breaks."""
    text = (MODULE / "variables.tf").read_text(encoding="utf-8")
    body = re.search(rf'^variable "{name}" \{{\n(.*?)^\}}', text, re.M | re.S)[1]
    found = re.search(r"^  default +=\s*(.*?)$", body, re.M)
    return f"`{found[1]}`" if found else "required"


def described(name, body):
    description = first(body.get("description"))
    if not description:
        sys.exit(f"{name} has no description")
    # The parser keeps quotes escaped.
    return description.replace('\\"', '"').replace("|", "\\|")


def tables():
    inputs = ["| input | default | |", "|---|---|---|"]
    for name, body in declared("variables.tf", "variable"):
        if "type" not in body:
            sys.exit(f"{name} has no type")
        inputs.append(f"| `{name}` | {default_of(name)} | {described(name, body)} |")
    outputs = ["| output | |", "|---|---|"]
    for name, body in declared("outputs.tf", "output"):
        outputs.append(f"| `{name}` | {described(name, body)} |")
    return {"inputs": inputs, "outputs": outputs}


def main():
    path = MODULE / "README.md"
    old = new = path.read_text(encoding="utf-8")
    for name, table in tables().items():
        text = "\n".join(table)
        new, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}{text}\n{found[2]}", new, flags=re.S
        )
        if count != 1:
            sys.exit(f"README.md has {count} places for {name}")
    if "--write" in sys.argv:
        path.write_text(new, encoding="utf-8")
    elif old != new:
        print("\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), "README.md", "the code", lineterm="")))
        sys.exit("deploy/terraform/README.md and the code differ: tests/terraform/run --write")


main()
