"""Chat templates of the kinds that models ship, written for these tests."""

_ALTERNATE = (
    "{%- for m in turns -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('roles must alternate, the user first') }}{%- endif -%}{%- endfor -%}"
)
_SPLIT_SYSTEM = (
    "{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content -%}"
    "{%- set turns = messages[1:] -%}"
    "{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}"
)

CHATML = (
    "{%- for m in messages -%}{{ '<im_start>' + m.role + '\n' + m.content + '<im_end>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<im_start>assistant\n' }}{%- endif -%}"
)
HEADED = (
    "{{- bos_token -}}"
    "{%- for m in messages -%}{{ '<head>' + m.role + '</head>\n\n' + m.content|trim + '<eot>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<head>assistant</head>\n\n' }}{%- endif -%}"
)
# The date stands in every system message, from a variable or else from the clock.
DATED = (
    "{%- if date_string is not defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}"
    + "{{ 'Today is ' + date_string + '. ' }}"
    + HEADED.replace("{{- bos_token -}}", "")
)
CLOCKED = "{{ 'Today is ' + strftime_now('%A, %d %B %Y') + '. ' }}" + HEADED.replace("{{- bos_token -}}", "")
# Only the last answer keeps its (empty) thoughts.
REASONING = (
    "{%- set found = namespace(last=-1) -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set found.last = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if found.last < 0 -%}{{ raise_exception('nobody asked') }}{%- endif -%}"
    "{%- for m in messages -%}{{ '<im_start>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.index0 > found.last -%}{{ '<think>\n\n</think>\n\n' }}"
    "{%- endif -%}{{ m.content + '<im_end>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<im_start>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think>\n\n</think>\n\n' }}"
    "{%- endif -%}{%- endif -%}"
)
_BRACKETS = (
    "{{ bos_token }}{%- for m in turns -%}{%- if m.role == 'user' -%}"
    "{{ '<head> ' + (system + '\n\n' if system and WHERE else '') + m.content + ' </head>' }}"
    "{%- else -%}{{ ' ' + m.content + '<end>' }}{%- endif -%}{%- endfor -%}"
)
# The system text is written into the first, or into the last, message of the user.
MOVED_FIRST = _SPLIT_SYSTEM + _ALTERNATE + _BRACKETS.replace("WHERE", "loop.first")
MOVED_LAST = _SPLIT_SYSTEM + _ALTERNATE + _BRACKETS.replace("WHERE", "loop.index0 >= turns|length - 2")
NO_SYSTEM = (
    "{%- set turns = messages -%}{{ bos_token }}"
    "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}"
    + _ALTERNATE
    + "{%- for m in messages -%}"
    "{{ '<im_start>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content|trim + '<im_end>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<im_start>model\n' }}{%- endif -%}"
)
# Leaves the system message out without a word.
DEAF_TO_SYSTEM = CHATML.replace("for m in messages", "for m in messages if m.role != 'system'")
# No special token ends an answer.
ENDLESS = (
    "{%- for m in messages -%}{{ m.role + ': ' + m.content + '\n' }}{%- endfor -%}"
    "{{ 'assistant: ' if add_generation_prompt }}"
)

LAST_ONLY = "{{ '<im_start>' + messages[-1].content + '<im_end>' }}"
REFUSING = "{{ raise_exception('not for chat') }}"

SERVING = {
    "chatml": CHATML,
    "headed": HEADED,
    "dated": DATED,
    "clocked": CLOCKED,
    "reasoning": REASONING,
    "moved-first": MOVED_FIRST,
    "moved-last": MOVED_LAST,
    "no-system": NO_SYSTEM,
    "deaf": DEAF_TO_SYSTEM,
    "endless": ENDLESS,
}
