#!/usr/bin/env python3
# Renders the templates of tests/stored/chat_templates and coca's named ones with the jinja2 package, set up as transformers
# does, and stores the results for coca's tests.   build/parity-venv/bin/python tests/parity/make_chats.py
# SPDX-License-Identifier: Apache-2.0
import json
import pathlib
import re

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "tests" / "stored" / "chat_templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class Refused(Exception):
    pass


def raise_exception(message):
    raise Refused(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    return made


def render(source, tokens, messages, prompt):
    source = re.sub(r"\{%-? (end)?generation -?%\}", lambda m: m.group(0).replace("endgeneration", "endif").replace("generation", "if true"), source)
    try:
        return environment().from_string(source).render(messages=messages, add_generation_prompt=prompt, tools=None, documents=None, **tokens)
    except Refused as error:
        return {"refused": str(error)}
    except jinja2.TemplateError as error:
        return {"error": type(error).__name__}


def named_templates():
    """[(name, tokens, source)] from the C++ source."""
    text = (ROOT / "src/coca/text/named_templates.cc").read_text()
    sources = dict(re.findall(r'std::string_view (k\w+) = R"\((.*?)\)";', text, re.S))
    rows = re.findall(r'\{"([\w-]+)", "([^"]*)", "([^"]*)", (k\w+)\}', text)
    return [(name, {"bos_token": bos, "eos_token": eos}, sources[key]) for name, bos, eos, key in rows]


def main():
    conversations = json.loads((DATA / "messages.json").read_text())
    templates = [(path.name, TOKENS, path.read_text()) for path in sorted(DATA.glob("*.jinja"))] + named_templates()
    rows = []
    for name, tokens, source in templates:
        for i, messages in enumerate(conversations):
            for prompt in (False, True):
                rows.append([name, i, prompt, render(source, tokens, messages, prompt)])
    (DATA / "golden.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    constructs = [source for source, _ in json.loads((DATA / "constructs.json").read_text())]
    talk = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Yo"}]
    made = [[source, environment().from_string(source).render(messages=talk)] for source in constructs]
    (DATA / "constructs.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in made) + "\n]\n")
    print(f"{len(rows)} renderings, {sum(isinstance(row[3], dict) and 'error' in row[3] for row in rows)} of them errors")


main()
