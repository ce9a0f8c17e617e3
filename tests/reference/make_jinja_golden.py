# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/text/jinja_cases.jsonl: templates, and what the reference renders from them.

    python3 tests/reference/make_jinja_golden.py [--out tests/data/text] [--template CHAT_TEMPLATE.jinja]

With --template, which is chat_template.jinja of a Gemma 4 instruction-tuned checkpoint, that template and changes of
it are rendered too. They are not ours to keep: write them elsewhere (--out FOLDER/text), and build the test with
-DPLE_TEST_DATA="FOLDER".

Made with transformers 5.24.0, jinja2 3.1.6, Python 3.11. Seeded: the same versions give the same file.
"""

import argparse
import json
import pathlib
import random

import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

SEED = 20261

VARIABLES = {
    "s": "Hello World",
    "u": "é日本x",
    "n": 7,
    "z": 0,
    "l": [3, 1, 2],
    "d": {"b": 1, "A": {"k": "v"}, "items": 3, "get": 4},
    "t": True,
    "f": False,
    "no": None,
    "e": "",
    "m": [{"role": "a", "x": 1}, {"role": "b"}],
}

EXPRESSIONS = """
s; n; z; t; f; no; true; True; none; q; e; 'a'; "a"; 'it\\'s'; "q\\"q"; 'a\\nb\\tc\\\\d'; '%}'; "}}"; '{{'; '{#'
l[0]; l[-1]; l[5]; l['x']; l.x; s[0]; s['x']; s.foo; u[1]; d[0]; n.foo; n['x']; no.x; no['x']; no[0]; q[0]; l[q]
l[1:] | join; l[::-1] | join; l[1:none] | join; l[-2:] | join; l[5:] | join; l[:-1] | join; l[2:0:-1] | join
u[1:3]; u[::-1]; s[-3:]; s[20:]; s[:-20]; s[2:8:3]; s[n-1]; s[n - 1:]; q[1:]; n[1:]
d['b']; d.b; d['items']; d['get']; d.get('b'); d.get('q'); d.get('q', 5); d['q']; d.q; d.q.r; q.r; d['A']['k']
q is defined; q.r is defined; not q; q or 'x'; q and 'x'; s | default('x'); q | default('x'); q | d; no | d('x')
e | default('x'); e | default('x', true); no | default('x', boolean=true)
n + 1; n+1; n - 10; n * 3; n // 2; -n // 2; n % 4; -n % 4; n % -4; -7 // -2; n // 0; n % 0; -n; - n | string
s + 'x'; s + 1; q + 'x'; 'x' + q; none + 'x'; s ~ q; s ~ 1 ~ none ~ true; l[0]+l[1]; ([1, 2] + [3]) | join
1 < 2 < 3; 1 < 2 > 3; n == 7 == 7; n < 's'; 'a' < 'b'; 'a' < q; n >= 7; n <= 6; n != 7; n > z
'H' in s; 'h' in s; 'H' not in s; not 'H' in s; 3 in l; 9 in l; 'b' in d; 'q' in d; 'x' in q; n in [1, 7]; 'é' in u
s == 'Hello World'; t == 1; f == 0; l == [3, 1, 2]; d == {'b': 1}; no == none; no == q; q == q2; '1' == 1
s is string; l is string; s is iterable; l is iterable; n is iterable; q is iterable; d is mapping; l is mapping
d is sequence; q is sequence; n is number; t is number; t is integer; n is integer; t is boolean; n is boolean
no is none; q is none; q is undefined; n is odd; n is even; n is divisibleby 7; n is divisibleby(3); n is eq 7
n is ne 7; n is in [7]; s is not string; s is string and n is number; t is true; f is false; n is true
range is callable; s is callable
s if t; s if f; s if f else n; s if f else n if f else z; (s if t else n); t and s or n; true and false or true
1 or 0; 0 or ''; '' or none; not t; not not t; n == 7 and s or 'x'
s | upper; s | lower; s | length; u | length; l | length; d | length; q | length; n | length; (l | length) - 1
l|length-1; l | length > 2; ' x ' | trim; 'xxhixx' | trim('x'); n | trim; no | trim; no | upper; n | string; s | safe
l | first; l | last; e | first; l | join(', '); q | join; d | join(','); s | join('-'); s | reverse
l | reverse | join; l | list | length; s | replace('l', 'L'); s | replace('o', ''); d['A']['k'] | upper ~ 'x'
m | map(attribute='role') | join(','); m | map(attribute='x') | join(','); ['a', 'b'] | map('upper') | join
m | selectattr('x') | list | length; m | rejectattr('x') | list | length
m | selectattr('role', 'equalto', 'a') | list | length; m | selectattr('x', 'defined') | list | length
[0, 1, 2] | select | join; [0, 1, 2] | select('odd') | join; [0, 1, 2] | reject('odd') | join
d | dictsort | length; (d | dictsort)[0][0]; (d | items | list)[0][0]; d | nofilter; s is notest
s.upper(); s.lower(); s.split(' ')[1]; s.split('o') | join('0'); s.split('x') | length; s.startswith('He')
s.endswith('x'); ' a '.strip() ~ '.'; ' a '.lstrip() ~ '.'; ' a '.rstrip() ~ '.'; 'xay'.strip('xy')
s.replace('l', ''); d.items() | list | length; d.keys() | join(','); d.values() | list | length
range(3) | join; range(1, 4) | join; range(5, 0, -2) | join; range(n) | list | length; range() | join
raise_exception('no'); nothing(); s(); s.foo(); {'a': 1}['a']; {'a': {'b': 2}}.a.b; {'a': 1, 'a': 2}['a']; (1); ((n))
1 +; ); s s; s.; s[; [1; {'a'}; s is; s is not; not; s if; if; {{; loop.index; s |; messages; $
"""

NOT_SUPPORTED = """
1.5; 1_000; '\\x41'; 'a' 'b'; 2 ** 3; n / 2; 'a' * 3; 3 * 'a'; '%s' % s; l; d; u | upper; strftime_now('%Y')
s | title; s | tojson; l | sort | join; s.title(); s.split() | join; n is sameas(7); 2147483647 + 1; dict(a=1)
"""

STATEMENTS = [
    "a\n{% if t %}\nb\n{% endif %}\nc\n",
    "a\n  {% if t %}  \n  b\n  {% endif %}  \nc\n\n",
    "  {%- if t -%}  x  {%- endif -%}  ",
    "a {{- s -}} b",
    "a {{ s }}\n b",
    "{{ s }}\n",
    "{{ s }}\n\n",
    "a {#- c -#} b",
    "a {# c #}\nb",
    "  {# c #}\n  b",
    "x  {# c #}\n  b",
    "{#-#}x",
    "{#+ c +#}\nx",
    "a\n  {%+ if t %}b{% endif +%}\nc",
    "{% if t -%}\n\n x{% endif %}",
    "\n\n{% if t %}x{% endif %}",
    "  {% if t %}  {% if t %}x{% endif %}{% endif %}",
    "a{%- if t %} b{% endif -%} c",
    "{% if t %}\r\nx\r{% endif %}\r\n\r\n",
    "x {%- set y = 1 %}\n y",
    "{%if t%}x{%endif%}{{s}}{{n}} {{ s }} {{ n }}",
    "{ { } } {% if t %}{ {% endif %}",
    "",
    "\n",
    "\n\n",
    "plain",
    "{{ 1 }}{# a #}{{ 2 }}",
    "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "{% for i in l %}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ i }}{% endfor %}",
    "{% for i in l if i > 1 %}{{ loop.length }}{{ i }}{% else %}no{% endfor %}",
    "{% for i in [] %}x{% else %}no{% endfor %}",
    "{% for i in q %}x{% else %}no{% endfor %}",
    "{% for i in n %}x{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v is mapping }};{% endfor %}",
    "{% for k, v in d | dictsort %}{{ k }}={{ v is mapping }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for c in u %}{{ c }}.{% endfor %}",
    "{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for i in (1, 2) %}{{ i }}{% endfor %}{% for i in 1, 2 %}{{ i }}{% endfor %}",
    "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% for m1 in m %}{{ m1.role }}{{ m1.x }}{% endfor %}",
    "{{ loop }}{% if not loop %}x{% endif %}",
    "{% set x = 1 %}{% for i in l %}{% set x = i %}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a.a is defined }}",
    "{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns is mapping }}{{ ns is sequence }}{{ ns.b is defined }}",
    "{% set s.x = 1 %}",
    "{% if f %}1{% elif n == 7 %}2{% else %}3{% endif %}",
    "{% if f %}1{% elif f %}2{% endif %}",
    "{% set x %}a{{ s }}b{% endset %}{{ x }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = l %}",
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ s }}{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=4, a=5) }}{{ f() }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(c=2) }}",
    "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% set x = 1 %}{% macro f() %}{{ x }}{% set x = 2 %}{{ x }}{% endmacro %}{{ f() }}{{ x }}",
    "{% for i in l %}{% macro f() %}m{% endmacro %}{{ f() }}{% endfor %}",
    "{% macro f(x) %}{{ x | upper }}{% endmacro %}{{ f('a') ~ f('b') }}",
    "{% generation %}{{ s }}{% set y = 1 %}{% endgeneration %}{{ y }}",
    # What is not run, in branches that are not taken.
    "{% if f %}{{ s | tojson }}{{ strftime_now('%Y') }}{{ 1.5 }}{{ l | sort }}{{ 'a' * 3 }}{% endif %}x",
    "{% if f %}{% filter upper %}a{% endfilter %}{% call s() %}x{% endcall %}{% include 'x' %}{% endif %}x",
    "{% if f %}{% with a = 1 %}{{ a }}{% endwith %}{% for i in l recursive %}{% endfor %}{% endif %}x",
    *["{% bogus %}", "{% if t %}", "{% endif %}", "{{ s", "{% if t", "{# x", "{% for i in %}{% endfor %}", "{% set %}"],
    *["{% macro %}{% endmacro %}", "{% if t %}x{% endfor %}", "{% do 1 %}", "{{ 'a }}"],
]

# A chat template of our own with what the published ones have: macros, namespaces, loops that look ahead, tools.
CHAT = """
{%- macro value_of(x, quoted=True) -%}
    {%- if x is string -%}
        {{- '<|"|>' + x + '<|"|>' if quoted else x -}}
    {%- elif x is boolean -%}
        {{- 'true' if x else 'false' -}}
    {%- elif x is mapping -%}
        { {%- for k, v in x | dictsort -%}
            {{- k }}:{{ value_of(v) -}}
            {%- if not loop.last %},{% endif -%}
        {%- endfor -%} }
    {%- elif x is sequence -%}
        [{%- for v in x -%}{{ value_of(v) }}{%- if not loop.last -%},{%- endif -%}{%- endfor -%}]
    {%- else -%}
        {{- x -}}
    {%- endif -%}
{%- endmacro -%}
{%- macro without_thoughts(text) -%}
    {%- set ns = namespace(kept='') -%}
    {%- for part in text.split('<channel|>') -%}
        {%- set ns.kept = ns.kept + (part.split('<|channel>')[0] if '<|channel>' in part else part) -%}
    {%- endfor -%}
    {{- ns.kept | trim -}}
{%- endmacro -%}
{#- <|channel>thought\\n<channel|> in a comment is nothing. -#}
{{- bos_token -}}
{%- set state = namespace(last=none) -%}
{%- set turns = messages[1:] if messages[0]['role'] in ['system', 'developer'] else messages -%}
{%- if enable_thinking | default(false) or tools or messages[0]['role'] in ['system', 'developer'] -%}
    {{- '<|turn>system\\n' -}}
    {%- if enable_thinking is defined and enable_thinking -%}{{- '<|think|>\\n' -}}{%- endif -%}
    {%- if messages[0]['role'] in ['system', 'developer'] %}{{ messages[0]['content'] | trim }}{% endif -%}
    {%- for tool in tools or [] %}<|tool>{{ value_of(tool.function) }}<tool|>{% endfor -%}
    {{- '<turn|>\\n' -}}
{%- endif -%}
{%- for message in turns -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {%- set before = namespace(role=none) -%}
    {%- for j in range(loop.index0 - 1, -1, -1) -%}
        {%- if before.role is none and turns[j]['role'] != 'tool' -%}
            {%- set before.role = turns[j]['role'] -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if not (role == 'model' and before.role == 'assistant') -%}{{- '<|turn>' + role + '\\n' -}}{%- endif -%}
    {%- for call in message.get('tool_calls') or [] -%}
        {{- '<|tool_call>call:' + call.function.name ~ value_of(call['function']['arguments']) -}}<tool_call|>
        {%- set state.last = 'call' -%}
    {%- endfor -%}
    {%- if message['content'] is string -%}
        {{- without_thoughts(message['content']) if role == 'model' else message['content'] | trim -}}
    {%- elif message['content'] is iterable -%}
        {%- for part in message['content'] if part.type == 'text' -%}{{- part['text'] | trim -}}{%- endfor -%}
    {%- endif -%}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt and state.last != 'call' -%}
    {{- '<|turn>model\\n' -}}
    {%- if not enable_thinking | default(false) -%}
        {{- '<|channel>thought\\n<channel|>' -}}
    {%- endif -%}
{%- endif -%}
"""

ALTERNATING = """{{ bos_token }}
{%- if messages[0].role == 'system' -%}
    {%- set prefix = messages[0].content + '

' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix, turns = '', messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('user and assistant by turns') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '
' + (prefix if loop.first else '') }}
    {%- set content = message.content if message.content is string else message.content[0].text %}
    {{- content | trim }}<end_of_turn>{{ '
' }}
{%- endfor -%}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif -%}
"""

CONTENTS = ["Hello", "  padded \n", "", "a<|channel>thought\nx<channel|>b", "<channel|>", "日本 😀\u3000", "{{ x }}"]
ARGUMENTS = [{"b": 1, "A": "x", "c": [1, True, {"k": "v"}]}, {}, "raw"]
TOOLS = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object", "required": ["a"]}}}]


def conversation(rng):
    if rng.random() < 0.5:
        roles = ["user", "assistant"] * 2
    else:
        roles = rng.choices(["user", "assistant", "tool", "system"], k=4)
    turns = [{"role": role, "content": rng.choice(CONTENTS)} for role in roles[: rng.randint(1, 4)]]
    for turn in turns:
        if rng.random() < 0.1:
            turn["content"] = [{"type": "text", "text": " x "}, {"type": "image"}, {"type": "text", "text": "y"}]
        if turn["role"] == "assistant" and rng.random() < 0.3:
            turn["tool_calls"] = [{"function": {"name": "f", "arguments": rng.choice(ARGUMENTS)}}]
    if rng.random() < 0.3:
        turns.insert(0, {"role": "system", "content": " Be kind. "})
    return turns


def chat_variables(rng):
    variables = {"messages": conversation(rng), "bos_token": "<bos>", "add_generation_prompt": rng.random() < 0.5}
    variables["tools"] = rng.choice([None, None, TOOLS])
    if rng.random() < 0.6:
        variables["enable_thinking"] = rng.random() < 0.5
    return variables


def case(template, variables, supported=True):
    try:
        text = _compile_jinja_template(template).render(**variables)
    except Exception:
        text = None
    return {"template": template, "text": text} | ({} if supported else {"supported": False})


def expressions(text):
    return [e.strip() for line in text.strip().splitlines() for e in line.split("; ")]


def language_cases():
    for e in expressions(EXPRESSIONS):
        yield case("<{{ " + e + " }}>", VARIABLES)
        yield case("{% if " + e + " %}y{% else %}n{% endif %}", VARIABLES)
        yield case("{% set v = " + e + " %}{{ v is defined }}", VARIABLES)
    yield from (case(statement, VARIABLES) for statement in STATEMENTS)
    yield from (case("{{ " + e + " }}", VARIABLES, supported=False) for e in expressions(NOT_SUPPORTED))


def changed(published):
    """A published template, and what people make of it."""
    condition = "{%- if not enable_thinking | default(false) -%}"
    assert condition in published
    yield published
    yield published.replace(condition, "{%- if false -%}")
    yield published.replace(condition, "{%- if enable_thinking is defined and not enable_thinking -%}")
    yield "{#- <|channel>thought\\n<channel|> -#}\n" + published
    yield published.replace("{%- ", "{% ").replace(" -%}", " %}")
    yield published.replace("\n", "\r\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "data" / "text")
    arguments = parser.parse_args()
    print(f"transformers {transformers.__version__}")
    rng = random.Random(SEED)
    groups = [{"variables": VARIABLES, "cases": list(language_cases())}]
    templates = [CHAT, ALTERNATING]
    if arguments.template:
        templates += changed(arguments.template.read_text(encoding="utf-8"))
    for _ in range(40):
        variables = chat_variables(rng)
        groups.append({"variables": variables, "cases": [case(template, variables) for template in templates]})
    # The templates of chats stand in the file once.
    numbers = {template: i for i, template in enumerate(templates)}
    for group in groups[1:]:
        for one in group["cases"]:
            one["template"] = numbers[one["template"]]
    groups.insert(0, {"templates": templates})
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "jinja_cases.jsonl"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for group in groups:
            file.write(json.dumps(group, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{path}: {sum(len(g.get('cases', [])) for g in groups)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
