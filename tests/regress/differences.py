"""What differs between two outputs of a test, and which of it is known and why it can't be otherwise.

The file `known` lists such differences; its head tells how. One is only recognised by all of its changed lines, at its place,
so that it hides nothing else. What no list could foresee is left out of the comparison, up to a whole test.
"""

import difflib
import os
import pathlib
import re

LINES_AFTER_PLACE = 6
EVERYTHING = "(?s).*"


class Known:
    """Changes that have one reason, each as the line that it comes shortly after, and its lines."""

    def __init__(self, tests, modes):
        self.tests = tests
        self.modes = modes
        self.reason = []
        self.changes = []
        self.ignored = []

    def is_about(self, test, mode):
        return (test in self.tests or self.tests == ["*"]) and mode in self.modes

    def covers(self, before, lines):
        near = [line.rstrip() for line in before[-LINES_AFTER_PLACE:]]
        return any(place in near and changed == lines for place, changed in self.changes)


def read_known(file):
    known = []
    for line in pathlib.Path(file).read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            tests, _, modes = line[1:-1].partition(" in ")
            known.append(Known(tests.split(), modes.split()))
        elif line.startswith("@ "):
            known[-1].changes.append((line[2:], []))
        elif line.startswith("~ "):
            known[-1].ignored.append(line[2:])
        elif line.startswith(("-", "+")):
            known[-1].changes[-1][1].append(line)
        elif line and not line.startswith("#"):
            known[-1].reason.append(line)
    return known


def incomparable(known, mode):
    """The tests of which nothing can be compared."""
    return {test for entry in known if EVERYTHING in entry.ignored and mode in entry.modes for test in entry.tests}


def lines_of(file):
    if not os.path.exists(file):
        return []
    return pathlib.Path(file).read_text(errors="replace").splitlines()


def unified(file, other):
    return "".join(f"{line}\n" for line in
                   difflib.unified_diff(lines_of(file), lines_of(other), file, other, n=5, lineterm=""))


def reasons(known, test, mode, file, other):
    """The reasons of all differences, or None if there is one that isn't known."""
    known = [entry for entry in known if entry.is_about(test, mode)]
    one, two = lines_of(file), lines_of(other)
    found = []
    for entry in known:
        for ignored in entry.ignored:
            rest = [re.sub(ignored, "", "\n".join(lines), flags=re.MULTILINE).split("\n") for lines in (one, two)]
            if rest != [one, two]:
                found.append(" ".join(entry.reason))
            one, two = rest
    for kind, start, end, other_start, other_end in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        changes = [f"-{line}" for line in one[start:end]] + [f"+{line}" for line in two[other_start:other_end]]
        match = next((entry for entry in known if entry.covers(one[:start], changes)), None)
        if match is None:
            return None
        found.append(" ".join(match.reason))
    return list(dict.fromkeys(found))
