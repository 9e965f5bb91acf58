"""Sizes by NeMo's names, and the prompt template of each way to write rows."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from skills_pipe.training.config import load_config, to_tree
from skills_pipe.training.release.archive.model_config import prompt_template, sizes
from tests.training.tiny import ARCHITECTURES, save_tiny_model, tiny_config, tiny_tokenizer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_are_those_of_the_weights(tmp_path, architecture):
    folder = save_tiny_model(tmp_path / architecture, architecture)
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = sizes(model.config)
    assert found["num_layers"] * found["hidden_size"] == 2 * model.get_input_embeddings().weight.shape[1]
    assert found["vocab_size"] == model.get_input_embeddings().weight.shape[0]
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if "mlp" in name and value.dim() > 1}
    experts = {name: shape for name, shape in shapes.items() if "expert" in name}
    dense = {name: shape for name, shape in shapes.items() if name.endswith(("down_proj.weight", "c_proj.weight"))}
    assert experts or dense
    assert all(found["ffn_hidden_size"] in shape for name, shape in dense.items() if name not in experts)
    assert all(found["num_moe_experts"] == shape[0] for shape in experts.values() if len(shape) == 3)
    down = [shape for name, shape in experts.items() if name.endswith("down_proj")]
    assert all(found["moe_ffn_hidden_size"] in shape[1:] for shape in down)
    rows = sum(len(value) for name, value in model.named_parameters() if name.endswith(("k_proj.weight",)))
    if rows:
        assert rows == 2 * found["num_query_groups"] * found["kv_channels"]
    learnt = any("wpe" in name for name, _ in model.named_parameters())
    assert found["position_embedding_type"] == ("learned_absolute" if learnt else "rope")


def test_precision_is_nemos_word():
    config = tiny_config(architectures=["LlamaForCausalLM"], dtype="bfloat16")
    assert (sizes(config)["precision"], sizes(config)["activation"]) == ("bf16", "fast-swiglu")


def trained_on(tmp_path, *keys):
    overrides = [f"policy.model_name={tmp_path}", "data.train_data_path=rows.jsonl", *keys]
    return to_tree(load_config(None, overrides))


def test_rows_of_aligners_chat_show_their_turns(tmp_path):
    tree = trained_on(tmp_path, "data.dataset_name=aligner_chat")
    assert prompt_template(tiny_tokenizer(), tree) == (
        "\x00System\n{system message}\n\x11User\n{turn 1 user message}\n"
        "\x11Assistant\n\x12{turn 1 assistant label}\n{turn 1 assistant message}\n\x11"
    )


def test_rows_of_aligners_prompts_have_their_own(tmp_path):
    tree = trained_on(tmp_path, "data.dataset_name=aligner_prompt_response")
    assert prompt_template(tiny_tokenizer(), tree) == "{input} {output}"


def test_pairs_stand_one_after_the_other(tmp_path):
    tree = trained_on(tmp_path, "policy.tokenizer.chat_template=null", "data.output_key=answer")
    assert prompt_template(tiny_tokenizer(), tree) == "{input}{answer}"
    assert prompt_template(tiny_tokenizer(chat_template=None), {}) == "{input}{output}"


def test_templates_that_know_no_system_message_are_shown_without():
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m['content'] }}]{% endfor %}"
    )
    shown = prompt_template(tiny_tokenizer(chat_template=template), {})
    assert shown.startswith("[{turn 1 user message}][{turn 1 assistant message}]")


def test_a_saved_tokenizer_shows_the_same(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    assert prompt_template(AutoTokenizer.from_pretrained(tmp_path), {}) == prompt_template(tiny_tokenizer(), {})
