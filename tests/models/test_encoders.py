"""What encoders share and where they differ: names of parameters, positions, types, groups.

The models are golden variants, whose weights need no transformers.
"""

from __future__ import annotations

import numpy as np
import pytest
from checkpoint_writers import write_safetensors
from models.comparison import golden_weights, load, results, write_config
from models.variants import GOLDEN, piece_ids

from curated_transformers.layers import AttentionMask
from curated_transformers.models import (
    ALBERTConfig,
    ALBERTEncoder,
    BERTConfig,
    BERTEncoder,
    albert,
)
from curated_transformers.registry import registry

PADDING = 1


def variant_of(architecture, name="base"):
    return next(v for v in GOLDEN if (v.architecture, v.name) == (architecture, name))


def write(folder, variant, weights=None):
    write_safetensors(folder / "model.safetensors", weights or golden_weights(variant))
    write_config(variant, folder)
    return folder


def hidden(model, ids, mask=None, **options):
    return results(model(ids, mask, **options))[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Our model of a golden variant, made when it is first asked for."""
    made = {}

    def model(architecture, name="base"):
        key = (architecture, name)
        if key not in made:
            variant = variant_of(*key)
            made[key] = load(variant, write(tmp_path_factory.mktemp(architecture), variant))
        return made[key]

    return model


ROBERTA_LIKE = ("roberta", "camembert", "xlm-roberta", "mpnet")
NAMES = {
    "albert": "one-group",
    "electra": "narrow-embeddings",
    **dict.fromkeys(("bert", "distilbert", "modernbert", *ROBERTA_LIKE), "base"),
}
EACH = pytest.mark.parametrize(("architecture", "name"), NAMES.items(), ids=list(NAMES))
BY_PADDING = pytest.mark.parametrize("architecture", ROBERTA_LIKE)

# Names of parameters, as documented.

EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "embeddings.piece_embeddings.weight",
    "embeddings.position_embeddings.weight": "embeddings.position_embeddings.weight",
    "embeddings.LayerNorm.weight": "embeddings.embed_output_layer_norm.weight",
    "embeddings.LayerNorm.bias": "embeddings.embed_output_layer_norm.bias",
}
TYPES = {"embeddings.token_type_embeddings.weight": "embeddings.type_embeddings.weight"}


def with_biases(modules):
    return {f"{a}.{p}": f"{b}.{p}" for a, b in modules.items() for p in ("weight", "bias")}


BERT_LAYER = with_biases(
    {
        "encoder.layer.1.attention.self.query": "layers.1.mha.query",
        "encoder.layer.1.attention.self.key": "layers.1.mha.key",
        "encoder.layer.1.attention.self.value": "layers.1.mha.value",
        "encoder.layer.1.attention.output.dense": "layers.1.mha.output",
        "encoder.layer.1.attention.output.LayerNorm": "layers.1.attn_residual_layer_norm",
        "encoder.layer.1.intermediate.dense": "layers.1.ffn.intermediate",
        "encoder.layer.1.output.dense": "layers.1.ffn.output",
        "encoder.layer.1.output.LayerNorm": "layers.1.ffn_residual_layer_norm",
    }
)
ALBERT_LAYER = "encoder.albert_layer_groups.1.albert_layers.2."
DOCUMENTED = {
    ("bert", "base"): EMBEDDINGS | TYPES | BERT_LAYER,
    ("roberta", "base"): EMBEDDINGS | TYPES | BERT_LAYER,
    ("camembert", "base"): EMBEDDINGS | TYPES | BERT_LAYER,
    ("xlm-roberta", "base"): EMBEDDINGS | TYPES | BERT_LAYER,
    ("electra", "equal-widths"): EMBEDDINGS | TYPES | BERT_LAYER,
    ("electra", "narrow-embeddings"): EMBEDDINGS
    | TYPES
    | BERT_LAYER
    | with_biases({"embeddings_project": "embeddings.projection"}),
    ("albert", "groups-of-layers"): EMBEDDINGS
    | TYPES
    | with_biases(
        {
            "encoder.embedding_hidden_mapping_in": "embeddings.projection",
            ALBERT_LAYER + "attention.query": "groups.1.group_layers.2.mha.query",
            ALBERT_LAYER + "attention.key": "groups.1.group_layers.2.mha.key",
            ALBERT_LAYER + "attention.value": "groups.1.group_layers.2.mha.value",
            ALBERT_LAYER + "attention.dense": "groups.1.group_layers.2.mha.output",
            ALBERT_LAYER
            + "attention.LayerNorm": "groups.1.group_layers.2.attn_residual_layer_norm",
            ALBERT_LAYER + "ffn": "groups.1.group_layers.2.ffn.intermediate",
            ALBERT_LAYER + "ffn_output": "groups.1.group_layers.2.ffn.output",
            ALBERT_LAYER
            + "full_layer_layer_norm": "groups.1.group_layers.2.ffn_residual_layer_norm",
        }
    ),
    # Beyond the original package: the same words for the same parts.
    ("distilbert", "base"): EMBEDDINGS
    | with_biases(
        {
            "transformer.layer.1.attention.q_lin": "layers.1.mha.query",
            "transformer.layer.1.attention.k_lin": "layers.1.mha.key",
            "transformer.layer.1.attention.v_lin": "layers.1.mha.value",
            "transformer.layer.1.attention.out_lin": "layers.1.mha.output",
            "transformer.layer.1.sa_layer_norm": "layers.1.attn_residual_layer_norm",
            "transformer.layer.1.ffn.lin1": "layers.1.ffn.intermediate",
            "transformer.layer.1.ffn.lin2": "layers.1.ffn.output",
            "transformer.layer.1.output_layer_norm": "layers.1.ffn_residual_layer_norm",
        }
    ),
    ("mpnet", "base"): EMBEDDINGS
    | {"encoder.relative_attention_bias.weight": "relative_attention_bias.weight"}
    | with_biases(
        {
            "encoder.layer.1.attention.attn.q": "layers.1.mha.query",
            "encoder.layer.1.attention.attn.k": "layers.1.mha.key",
            "encoder.layer.1.attention.attn.v": "layers.1.mha.value",
            "encoder.layer.1.attention.attn.o": "layers.1.mha.output",
            "encoder.layer.1.attention.LayerNorm": "layers.1.attn_residual_layer_norm",
            "encoder.layer.1.intermediate.dense": "layers.1.ffn.intermediate",
            "encoder.layer.1.output.dense": "layers.1.ffn.output",
            "encoder.layer.1.output.LayerNorm": "layers.1.ffn_residual_layer_norm",
        }
    ),
    ("modernbert", "base"): {
        "embeddings.tok_embeddings.weight": "embeddings.piece_embeddings.weight",
        "embeddings.norm.weight": "embeddings.embed_output_layer_norm.weight",
        "final_norm.weight": "output_layer_norm.weight",
        "layers.1.attn_norm.weight": "layers.1.attn_input_layer_norm.weight",
        "layers.1.attn.Wqkv.weight": "layers.1.mha.input.weight",
        "layers.1.attn.Wo.weight": "layers.1.mha.output.weight",
        "layers.1.mlp_norm.weight": "layers.1.ffn_input_layer_norm.weight",
        "layers.1.mlp.Wi.weight": "layers.1.ffn.gate_intermediate.weight",
        "layers.1.mlp.Wo.weight": "layers.1.ffn.output.weight",
    },
}


@pytest.mark.parametrize(("architecture", "name"), DOCUMENTED)
def test_parameters_have_their_documented_names(models, architecture, name):
    model, names = models(architecture, name), DOCUMENTED[architecture, name]
    weights = golden_weights(variant_of(architecture, name))
    weights = {k: v for k, v in weights.items() if not k.startswith("pooler.")}
    state = model.state_dict()
    assert len(state) == len(weights)
    for theirs, ours in names.items():
        np.testing.assert_array_equal(np.asarray(state[ours]), weights[theirs])
    kind = type(model)
    assert kind.state_dict_from_hf(dict.fromkeys(names)) == dict.fromkeys(names.values())
    assert kind.state_dict_to_hf(dict.fromkeys(names.values())) == dict.fromkeys(names)
    prefixed = {kind.parameter_names.prefix + key: None for key in names}
    assert kind.state_dict_from_hf(prefixed) == dict.fromkeys(names.values())
    back = kind.state_dict_to_hf(state)
    assert sorted(back) == sorted(weights)


@EACH
def test_a_state_makes_the_same_model_again(models, architecture, name):
    model = models(architecture, name)
    other = type(model)(model.config)
    other.load_state_dict(model.state_dict())
    ids = piece_ids(4, 1, 40)
    np.testing.assert_array_equal(hidden(other, ids), hidden(model, ids))


@pytest.mark.parametrize("base", ["bert", "electra"])
def test_norms_under_their_first_names(base):
    kind = dict(registry.encoders.classes())[f"curated-transformers.{base.upper()}Encoder"]
    first = {
        "embeddings.LayerNorm.gamma": 1,
        "encoder.layer.0.attention.output.LayerNorm.beta": 2,
    }
    assert kind.state_dict_from_hf(first) == {
        "embeddings.embed_output_layer_norm.weight": 1,
        "layers.0.attn_residual_layer_norm.bias": 2,
    }


def test_all_encoders_are_registered():
    names = {name.removeprefix("curated-transformers.") for name in registry.encoders.names()}
    assert names >= {
        *("ALBERTEncoder", "BERTEncoder", "CamemBERTEncoder", "DistilBERTEncoder"),
        *("ELECTRAEncoder", "ModernBERTEncoder", "MPNetEncoder", "RoBERTaEncoder", "XLMREncoder"),
    }


@EACH
@pytest.mark.parametrize(
    "extra",
    [
        ("lm_head.bias", ("roberta", "camembert", "xlm-roberta", "mpnet")),
        ("cls.predictions.bias", ("bert",)),
        ("discriminator_predictions.dense.weight", ("electra",)),
        ("generator_lm_head.bias", ("electra",)),
        ("predictions.bias", ("albert",)),
        ("sop_classifier.classifier.bias", ("albert",)),
        ("vocab_projector.bias", ("distilbert",)),
        ("decoder.bias", ("modernbert",)),
        ("classifier.weight", tuple(NAMES)),
    ],
    ids=lambda extra: extra[0],
)
def test_heads_are_left_out_and_strangers_refused(tmp_path, architecture, name, extra):
    variant = variant_of(architecture, name)
    key, known = extra
    write(tmp_path, variant, golden_weights(variant) | {key: np.ones((3, 3), np.float32)})
    if architecture in known:
        load(variant, tmp_path)
    else:
        with pytest.raises(ValueError, match=f"the checkpoint holds `{key}`"):
            load(variant, tmp_path)


# Positions.


@EACH
def test_the_longest_sequence_and_one_piece_more(models, architecture, name):
    longest = 318 if architecture in ROBERTA_LIKE else 320
    model = models(architecture, name)
    assert model.max_seq_len == longest
    ids = np.full((1, longest + 1), 7)
    assert np.isfinite(hidden(model, ids[:, :-1])).all()
    with pytest.raises((IndexError, ValueError), match="320 positions of the model"):
        model(ids)
    # Padding does not count, wherever its columns are.
    mask = np.arange(longest + 1)[None] < longest
    np.testing.assert_array_equal(hidden(model, ids, mask)[:, :, :-1], hidden(model, ids[:, :-1]))


@pytest.mark.parametrize("architecture", [name for name in NAMES if name != "modernbert"])
def test_given_positions_may_serve_a_longer_sequence(models, architecture):
    """Where there is a table, it alone is the limit."""
    model = models(architecture, NAMES[architecture])
    positions = np.arange(400)[None] % 300
    assert np.isfinite(hidden(model, np.full((1, 400), 7), positions=positions)).all()


@BY_PADDING
def test_positions_count_pieces_that_are_not_padding(models, architecture):
    model, ids = models(architecture), piece_ids(2, 2, 30)
    ids[ids == PADDING] = 5
    ids[0, [0, 7, 8]] = PADDING
    counted = ids != PADDING
    positions = np.cumsum(counted, axis=1) * counted + PADDING
    assert positions[0, :10].tolist() == [1, 2, 3, 4, 5, 6, 7, 1, 1, 8]
    expected = hidden(model, ids, positions=positions)
    np.testing.assert_array_equal(hidden(model, ids), expected)
    shifted = np.arange(2, 32)[None].repeat(2, axis=0)
    assert not np.allclose(hidden(model, ids)[:, 0], hidden(model, ids, positions=shifted)[:, 0])
    np.testing.assert_array_equal(
        hidden(model, ids)[:, 1], hidden(model, ids, positions=shifted)[:, 1]
    )


@BY_PADDING
def test_given_positions_are_used_as_they_are(models, architecture):
    """They index the table: 0 is its first row, not the first piece's."""
    model, ids = models(architecture), np.array([[5, 6, 7]])
    own = hidden(model, ids)
    np.testing.assert_array_equal(hidden(model, ids, positions=[[2, 3, 4]]), own)
    assert not np.allclose(hidden(model, ids, positions=[[0, 1, 2]]), own)
    with pytest.raises(IndexError, match=r"position 320 at \[0, 1\] is outside the 320 positions"):
        model(ids, positions=[[2, 320, 4]])


@BY_PADDING
def test_it_is_the_ids_that_count_and_not_the_mask(models, architecture):
    model, row = models(architecture), np.array([[5, 6, 7, 8]])
    alone = hidden(model, row)
    for padding, same in ((PADDING, True), (0, False)):
        left = np.concatenate([np.full((1, 3), padding), row], axis=1)
        right = np.concatenate([row, np.full((1, 3), padding)], axis=1)
        behind, before = np.arange(7)[None] >= 3, np.arange(7)[None] < 4
        np.testing.assert_allclose(hidden(model, right, before)[:, :, :4], alone, atol=1e-5)
        padded = hidden(model, left, behind)[:, :, 3:]
        assert np.allclose(padded, alone, atol=1e-5) == same
        # Its own positions undo what another padding does.
        positions = np.array([[0, 0, 0, 2, 3, 4, 5]])
        undone = hidden(model, left, behind, positions=positions)[:, :, 3:]
        np.testing.assert_allclose(undone, alone, atol=1e-5)


@BY_PADDING
def test_padding_within_a_sequence(models, architecture):
    """Unmasked it is a piece with the position of padding; masked it only leaves a gap."""
    model = models(architecture)
    ids, mask = np.array([[5, PADDING, 6]]), np.array([[True, False, True]])
    unmasked = hidden(model, ids)
    assert np.isfinite(unmasked).all()
    masked = hidden(model, ids, mask)
    assert not masked[:, :, 1].any()
    assert not np.allclose(masked[1:, :, 0], unmasked[1:, :, 0])
    without = hidden(model, ids[:, [0, 2]])
    if architecture == "mpnet":  # the pieces are further apart than without the gap
        assert not np.allclose(masked[1:, :, [0, 2]], without[1:], atol=1e-3)
        np.testing.assert_allclose(masked[0, :, [0, 2]], without[0].swapaxes(0, 1), atol=1e-5)
    else:
        np.testing.assert_allclose(masked[:, :, [0, 2]], without, atol=1e-5)


@EACH
def test_left_padding_by_its_own_id_changes_nothing_where_positions_are_counted(
    models, architecture, name
):
    model, row = models(architecture, name), np.array([[5, 6, 7, 8]])
    left = np.concatenate([np.full((1, 3), PADDING), row], axis=1)
    padded = hidden(model, left, AttentionMask(np.arange(7)[None] >= 3))[:, :, 3:]
    relative = architecture in (*ROBERTA_LIKE, "modernbert")
    assert np.allclose(padded, hidden(model, row), atol=1e-5) == relative


# Types.


@EACH
def test_types_where_there_are_some(models, architecture, name):
    model, ids = models(architecture, name), np.array([[5, 6, 7]])
    if architecture in ("distilbert", "modernbert", "mpnet"):
        with pytest.raises(ValueError, match="this model has no type embeddings, but type ids"):
            model(ids, type_ids=np.zeros_like(ids))
        return
    np.testing.assert_array_equal(hidden(model, ids, type_ids=[[0, 0, 0]]), hidden(model, ids))
    n_types = model.config.embedding.n_types
    with pytest.raises(IndexError, match=rf"type id {n_types} at \[0, 1\] is outside the"):
        model(ids, type_ids=[[0, n_types, 0]])


# Groups and projections.


@pytest.mark.parametrize(("layers", "groups"), [(4, 3), (4, 8), (4, 0), (4, -2), (3, 2)])
def test_groups_that_layers_cannot_be_divided_by(layers, groups):
    with pytest.raises(ValueError, match="must be divisable by number of hidden groups"):
        ALBERTEncoder(ALBERTConfig(n_hidden_layers=layers, n_hidden_groups=groups))


def test_a_group_is_no_module_of_its_own():
    with pytest.raises(ImportError, match=r"ALBERTLayerGroup.*torch building blocks are not part"):
        from curated_transformers.models.albert import ALBERTLayerGroup  # noqa: F401
    assert not hasattr(albert, "ALBERTGroup")


def test_there_is_an_output_for_each_application_of_a_group(models):
    outputs = models("albert", "groups-of-layers")(np.array([[5, 6]]))
    assert len(outputs.all_outputs) == 7
    with pytest.raises(ValueError, match=r"invalid layer index \(6\)"):
        outputs.hidden_layer_states(6)


def test_a_projection_between_equal_widths_is_used_where_the_checkpoint_has_it(tmp_path, models):
    variant = variant_of("albert", "equal-widths")
    projection = "encoder.embedding_hidden_mapping_in."
    weights = golden_weights(variant)
    assert weights[projection + "weight"].shape == (64, 64)
    ids = piece_ids(4, 1, 20)
    with_it = hidden(models("albert", "equal-widths"), ids)
    (tmp_path / "without").mkdir()
    rest = {key: value for key, value in weights.items() if not key.startswith(projection)}
    without = load(variant, write(tmp_path / "without", variant, rest))
    assert not np.allclose(hidden(without, ids), with_it)
    (tmp_path / "identity").mkdir()
    weights[projection + "weight"] = np.eye(64, dtype=np.float32)
    weights[projection + "bias"] = np.zeros(64, dtype=np.float32)
    identity = load(variant, write(tmp_path / "identity", variant, weights))
    np.testing.assert_allclose(hidden(identity, ids), hidden(without, ids), atol=1e-5)
    (tmp_path / "half").mkdir()
    del weights[projection + "bias"]
    with pytest.raises(ValueError, match=r"not updated/replaced: embeddings\.projection\.bias"):
        load(variant, write(tmp_path / "half", variant, weights))


def test_a_missing_projection_between_other_widths_is_named(tmp_path):
    for architecture, name, projection in (
        ("albert", "one-group", "encoder.embedding_hidden_mapping_in."),
        ("electra", "narrow-embeddings", "embeddings_project."),
    ):
        variant = variant_of(architecture, name)
        weights = golden_weights(variant)
        rest = {key: value for key, value in weights.items() if not key.startswith(projection)}
        with pytest.raises(ValueError, match=r"not updated/replaced: embeddings\.projection"):
            load(variant, write(tmp_path, variant, rest))


def test_embeddings_of_another_width_without_a_projection():
    with pytest.raises(ValueError, match=r"embedding width \(32\) differs from hidden width"):
        BERTEncoder(BERTConfig(embedding_width=32, hidden_width=64, n_attention_heads=4))


# Layers that see what is near.


def test_a_local_layer_does_not_see_what_is_far(models):
    """A piece changes only those up to its reach away, layer after layer, until a global one."""
    model, ids = models("modernbert"), piece_ids(3, 1, 120)
    assert model.config.local_layers == (False, True, True, False, True)
    assert model.config.local_reach == 12
    variant = variant_of("modernbert", "layer-types")
    assert [kind[:7] for kind in variant.config["layer_types"]][:3] == ["sliding"] * 2 + ["full_at"]
    model = models("modernbert", "layer-types")
    other = ids.copy()
    other[0, 50] = 1 + ids[0, 50] % 100
    differs = (hidden(model, ids) != hidden(model, other)).any(axis=-1)[:, 0]
    for state, reach in enumerate((0, 12, 24)):
        changed = np.flatnonzero(differs[state])
        assert (changed.min(), changed.max()) == (50 - reach, 50 + reach)
    assert differs[3].all()


def test_pieces_behind_a_hole_stay_as_far_away(models):
    for architecture, name in (("mpnet", "base"), ("modernbert", "base")):
        model, ids = models(architecture, name), piece_ids(3, 1, 40)
        ids[ids == PADDING] = 5
        mask = np.ones(ids.shape, dtype=bool)
        mask[0, 10:25] = False
        states = hidden(model, ids, mask)
        assert not states[:, ~mask].any()
        together = hidden(model, ids[mask][None])
        assert not np.allclose(states[-1][mask], together[-1, 0], atol=1e-2)
        # What is masked is not looked at.
        other = ids.copy()
        other[~mask] = 9
        np.testing.assert_array_equal(hidden(model, other, mask), states)
