#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks the structure of rust/ from its `use` lines and paths: no import circle between files, no
file that names a layer above its own, no type name twice, no long file, line or argument list.

Run in the root of the clone. Tests are left out, but for their length.
"""

import pathlib
import re
import sys

# From the lowest layer up. A file may name files of its own layer and of lower ones.
LAYERS = ["bindings", "kapi/sync", "kapi/mem", "kapi/net", "kapi/fs", "kapi/nf", "kapi/entry", "kapi",
          "named_enum", "refs", "track", "route", "flow", "state", "path", "netns", "nf_zoneroute_main"]
MAX_LINES = 400
MAX_COLUMNS = 100
MAX_ARGUMENTS = 5

ROOT = pathlib.Path("rust")


def module_of(path):
    """Returns a file's module as a tuple: ("kapi", "nf", "hook")."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "mod" else parts


def layer_of(module):
    """Returns the index of the layer with the longest name that is a prefix of the module."""
    name = "/".join(module)
    fits = [layer for layer in LAYERS if name == layer or name.startswith(layer + "/")]
    return LAYERS.index(max(fits, key=len)) if fits else None


def expand(tree, prefix=()):
    """Yields the paths of a use tree."""
    head, brace, rest = tree.partition("{")
    parts = prefix + tuple(part for part in head.strip().split("::") if part)
    if not brace:
        yield parts
        return
    depth, item = 0, ""
    for char in rest.rstrip()[:-1] + ",":
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            if item.strip():
                yield from expand(item.strip(), parts)
            item = ""
        else:
            item += char


def imports(text, module, is_folder):
    """Yields the modules and items of the crate that a file names."""
    here = module if is_folder else module[:-1]
    trees = re.findall(r"^(?:pub\(crate\) )?use ((?:crate|super)::[^;]*);", text, re.M)
    trees += re.findall(r"\b((?:crate|super)(?:::\w+)+)", re.sub(r"^(?:pub\(crate\) )?use [^;]*;", "",
                                                                 text, flags=re.M))
    for tree in trees:
        for path in expand(tree):
            yield path[1:] if path[0] == "crate" else here[:len(here) - is_folder] + path[1:]


def circles(graph):
    """Returns the sets of files that import each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node):]
            del stack[stack.index(node):]
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def argument_lists(text):
    """Yields the name and the number of arguments of each function."""
    for match in re.finditer(r"\bfn (\w+)(?:<[^(]*>)?\(", text):
        depth, count, last = 1, 0, ""
        for char in text[match.end():]:
            depth += {"(": 1, "<": 1, "[": 1, ")": -1, ">": -1, "]": -1}.get(char, 0)
            if depth == 0:
                break
            if char == "," and depth == 1:
                count, last = count + 1, ""
            else:
                last += char
        yield match[1], count + bool(last.strip())


def main():
    files = sorted(path for path in ROOT.rglob("*.rs") if not path.name.endswith("_generated.rs"))
    bad, types, graph = [], {}, {}
    tests = [path for path in files if "tests" in path.parts or path.name == "tests.rs"]
    modules = {module_of(path): path for path in files if path not in tests}
    for path in files:
        lines = path.read_text().splitlines()
        if len(lines) > MAX_LINES:
            bad.append(f"{path}: {len(lines)} lines")
        bad += [f"{path}:{number}: {len(line)} columns"
                for number, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]
    for module, path in modules.items():
        text = "\n".join(line for line in path.read_text().splitlines()
                         if not line.lstrip().startswith("//"))
        text = re.sub(r" //$|\(in crate::\w+\)", "", text, flags=re.M)
        if layer_of(module) is None:
            bad.append(f"{path}: in no layer of {sys.argv[0]}")
            continue
        graph[path] = set()
        for name in imports(text, module, path.name == "mod.rs"):
            target = next((name[:end] for end in range(len(name), 0, -1) if name[:end] in modules), None)
            if target is None or target == module:
                continue
            graph[path].add(modules[target])
            if layer_of(target) > layer_of(module):
                bad.append(f"{path}: names {'::'.join(name)}, which is of a higher layer")
        for name in re.findall(r"^\s*pub(?:\([\w: ]+\))? (?:struct|enum|trait) (\w+)", text, re.M):
            if path.parts[1] != "bindings" and types.setdefault(name, path) != path:
                bad.append(f"{path}: the type {name} is also in {types[name]}")
        bad += [f"{path}: {name}() has {count} arguments"
                for name, count in argument_lists(text) if count > MAX_ARGUMENTS]
    bad += ["import circle: " + " -> ".join(map(str, group)) for group in circles(graph)]
    print("\n".join(sorted(set(bad))))
    print(f"{len(graph)} files, {sum(map(len, graph.values()))} imports between them")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
