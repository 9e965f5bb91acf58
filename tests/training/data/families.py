"""Chat templates in the styles of well-known model families, and a tokenizer that splits text as theirs do.

Each marks what the assistant writes by ``{% generation %}``; :func:`unmarked` takes the marks out again.
"""

from __future__ import annotations

import re
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_CHATML = """
{%- for message in messages -%}
<|im_start|>{{ message.role }}{{ '\n' }}
{%- if message.role == 'assistant' -%}
{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}
{%- else -%}
{{ message.content + '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
"""

_LLAMA3 = """
{{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}
{%- if message.role == 'assistant' -%}
{% generation %}{{ message.content | trim + '<|eot_id|>' }}{% endgeneration %}
{%- else -%}
{{ message.content | trim + '<|eot_id|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif -%}
"""

_GEMMA = """
{{- bos_token -}}
{%- if messages[0].role == 'system' %}{{ raise_exception('there is no system role') }}{% endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<start_of_turn>model\n' }}
{%- generation %}{{ message.content | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}
{%- else -%}
{{ '<start_of_turn>' + message.role + '\n' + message.content | trim + '<end_of_turn>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif -%}
"""

_MISTRAL = """
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{% generation %}{{ ' ' + message.content | trim + eos_token }}{% endgeneration %}
{%- elif message.role == 'system' -%}
{{ '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
{%- else -%}
{{ '[INST] ' + message.content + ' [/INST]' }}
{%- endif -%}
{%- endfor -%}
"""

_DEEPSEEK = """
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<|Assistant|>' }}
{%- generation %}{{ message.content.split('</think>')[-1] + eos_token }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{{ '<|User|>' + message.content }}
{%- else -%}
{{ message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif -%}
"""

_QWEN3 = """
{%- set ns = namespace(last=-1) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- if tools -%}
{{ '<|im_start|>system\n# Tools\n<tools>' }}
{%- for tool in tools %}{{ '\n' + tool | tojson }}{% endfor -%}
{{ '\n</tools><|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set answer = message.content.split('</think>')[-1].lstrip('\n') -%}
{%- set before = message.content.split('</think>')[0] if '</think>' in message.content else '' -%}
{%- set thought = before.split('<think>')[-1].strip('\n') -%}
{{ '<|im_start|>assistant\n' }}
{%- generation -%}
{%- if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif -%}
{{ answer }}
{%- for call in message.tool_calls or [] -%}
{{ ('\n' if answer or not loop.first else '') + '<tool_call>\n' + (call.function or call) | tojson + '\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>' }}
{%- endgeneration -%}
{{ '\n' }}
{%- elif message.role == 'tool' -%}
{{ '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
"""

TEMPLATES = {
    "chatml": _CHATML.strip(),
    "llama3": _LLAMA3.strip(),
    "gemma": _GEMMA.strip(),
    "mistral": _MISTRAL.strip(),
    "deepseek": _DEEPSEEK.strip(),
    "qwen3": _QWEN3.strip(),
}

STOPS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "deepseek": "</s>",
    "qwen3": "<|im_end|>",
}

_SPECIAL = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|User|>",
    "<|Assistant|>",
)

_TEXT = (
    "user assistant system model",
    "It is 4.\n\nThat is 21.\n",
    "one and one",
    "[INST] What is it? [/INST]",
    "\n\n\n",
)

_SPLIT = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
"""How the tokenizers of these families part text: line breaks in a row are one token."""


def unmarked(template: str) -> str:
    """The template without marks."""
    return re.sub(r"\{%(-?)\s*(end)?generation\s*(-?)%\}", r"{%\1 if true \3%}{%\1 endif \3%}", template)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A small byte-level BPE with the special tokens of all families."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
