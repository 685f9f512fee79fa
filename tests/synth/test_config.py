"""run.yaml: defaults, paths, secrets, and every mistake named at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.config import RunConfig, load_run, parse_run
from synth.errors import InvalidConfig, NotBuiltYet

Write = Callable[[str, str | bytes], Path]
FILE = Path("/srv/run.yaml")
SECRET = "hunter2 and more"
SCHEMA = "dataset: toy\ncolumns:\n  - {name: died, kind: boolean}\n"
IMAGES = """dataset: scans
kind: image
image: {height: 8, width: 8, channels: 1, bits: 8, value_range: [0, 255], resize: pad}
target: {name: label, classes: {0: normal, 1: ill}}
"""
RUN = "source: {path: rows.parquet}\nschema: schema.yaml\nprivacy: {epsilon: 1.0, delta: 1e-5}\n"


def raw(**changes: Any) -> dict[str, Any]:
    return {
        "source": {"path": "a.parquet"},
        "schema": "s.yaml",
        "privacy": {"epsilon": 1, "delta": 1e-5},
        **changes,
    }


def problems(config: dict[str, Any], **environment: str) -> tuple[str, ...]:
    with pytest.raises(InvalidConfig) as caught:
        parse_run(config, file=FILE, environment=environment)
    return caught.value.problems


class TestGoodRuns:
    def test_everything_else_has_a_default(self) -> None:
        config = parse_run(raw(), file=FILE, environment={})
        assert config.privacy.model_dump() == {"epsilon": 1.0, "delta": 1e-5}
        recipe = config.synthesizer
        assert (recipe.critic_share, recipe.steps, recipe.latent_points, recipe.accelerator) == ("auto",) * 4
        assert (config.output.rows, config.evaluation.holdout, config.ledger.url, config.name) == ("auto", 0, None, "")

    def test_relative_paths_are_relative_to_the_file(self) -> None:
        config = parse_run(
            raw(output={"directory": "../out"}, ledger={"url": "sqlite:///l.db"}, answers="/a.yaml"), file=FILE
        )
        assert config.source.path == Path("/srv/a.parquet")
        assert config.schema_file == Path("/srv/s.yaml")
        assert config.output.directory == Path("/out")
        assert config.answers == Path("/a.yaml")
        assert config.ledger.url == "sqlite:////srv/l.db"

    def test_an_absolute_ledger_stays_where_it_is(self) -> None:
        assert parse_run(raw(ledger={"url": "sqlite:////x/l.db"}), file=FILE).ledger.url == "sqlite:////x/l.db"

    @pytest.mark.parametrize("share", ["auto", 0, 0.0])
    def test_no_critic(self, share: Any) -> None:
        assert parse_run(raw(synthesizer={"critic_share": share}), file=FILE).synthesizer.share_of_critic == 0

    @pytest.mark.parametrize("share", [0.01, 0.5, 1])
    def test_a_critic_has_constants_of_its_own(self, share: Any) -> None:
        recipe = parse_run(raw(synthesizer={"critic_share": share, "critic": {"steps": 7}}), file=FILE).synthesizer
        assert recipe.share_of_critic == share
        assert (recipe.critic.steps, recipe.critic.sample_rate, recipe.critic.max_grad_norm) == (7, 0.02, 1.0)

    @pytest.mark.parametrize(
        "address", ["tls://a.internal:8786", "tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1"]
    )
    def test_schedulers_that_keep_counts_to_themselves(self, address: str) -> None:
        assert not parse_run(raw(), file=FILE).scale.asked
        assert parse_run(raw(scale={"scheduler": address}), file=FILE).scale.asked
        assert parse_run(raw(scale={"workers": 3}), file=FILE).scale.workers == 3

    def test_the_environment_fills_values(self) -> None:
        config = parse_run(
            raw(source={"path": "${FOLDER}/a.csv"}, privacy={"epsilon": "${EPS}", "delta": 1e-6}),
            file=FILE,
            environment={"FOLDER": "/data", "EPS": "0.5"},
        )
        assert (config.source.path, config.privacy.epsilon) == (Path("/data/a.csv"), 0.5)

    def test_the_name_defaults_to_the_dataset(self, write: Write) -> None:
        write("schema.yaml", SCHEMA)
        assert load_run(write("run.yaml", RUN)).name == "toy"
        assert load_run(write("run.yaml", RUN + "name: mine\n")).name == "mine"


MISTAKES = [
    (raw(sorce={"path": "b"}), "sorce: unknown key (did you mean source?)"),
    (
        raw(privacy={"epsilon": 1, "delta": 1e-5, "epsilonn": 1}),
        "privacy.epsilonn: unknown key (did you mean epsilon?)",
    ),
    ({"schema": "s", "source": {"path": "a"}}, "privacy: is required and absent"),
    ({"schema": "s", "privacy": {"epsilon": 1, "delta": 1e-5}}, "source: is required and absent"),
    (raw(schema=None), "schema: "),
    (raw(source="a.parquet"), "source: should be a mapping of keys to values"),
    (raw(source={"path": 3}), "source.path: "),
    (raw(privacy={"epsilon": 0, "delta": 1e-5}), "privacy.epsilon: should be greater than 0"),
    (raw(privacy={"epsilon": -1, "delta": 1e-5}), "privacy.epsilon: should be greater than 0"),
    (raw(privacy={"epsilon": 101, "delta": 1e-5}), "privacy.epsilon: should be less than or equal to 100"),
    (raw(privacy={"epsilon": float("nan"), "delta": 1e-5}), "privacy.epsilon: should be"),
    (raw(privacy={"epsilon": float("inf"), "delta": 1e-5}), "privacy.epsilon: should be"),
    (raw(privacy={"epsilon": "one", "delta": 1e-5}), "privacy.epsilon: should be a valid number"),
    (raw(privacy={"epsilon": True, "delta": 1e-5}), "privacy.epsilon: should be a number, not true or false"),
    (raw(privacy={"epsilon": 1, "delta": 0}), "privacy.delta: should be greater than 0"),
    (raw(privacy={"epsilon": 1, "delta": 1}), "privacy.delta: should be less than 1"),
    (raw(privacy={"epsilon": 1}), "privacy.delta: is required and absent"),
    (raw(synthesizer={"critic_share": -0.5}), "synthesizer.critic_share: should be greater than or equal to 0"),
    (raw(synthesizer={"critic_share": 2}), "synthesizer.critic_share: should be less than or equal to 1"),
    (
        raw(synthesizer={"critic": {"max_grad_norm": 1e-42}}),
        "synthesizer.critic.max_grad_norm: should be greater than or equal to 0.000001",
    ),
    (raw(synthesizer={"critic_share": True}), "synthesizer.critic_share: should be a number, not true or false"),
    (raw(synthesizer={"critic": {"steps": 0}}), "synthesizer.critic.steps: should be greater than or equal to 1"),
    (raw(synthesizer={"critic": {"sample_rate": 1.5}}), "synthesizer.critic.sample_rate: should be less than or equal"),
    (raw(synthesizer={"critic": {"batch": 5}}), "synthesizer.critic.batch: unknown key"),
    (raw(synthesizer={"steps": 0}), "synthesizer.steps: should be greater than or equal to 1"),
    (raw(synthesizer={"steps": True}), "synthesizer.steps: should be a number, not true or false"),
    (raw(synthesizer={"members": 17}), "synthesizer.members: should be less than or equal to 16"),
    (raw(synthesizer={"latent_points": 2}), "synthesizer.latent_points: should be greater than or equal to 8"),
    (raw(synthesizer={"hidden_size": 4}), "synthesizer.hidden_size: should be greater than or equal to 8"),
    (raw(synthesizer={"learning_rate": 0}), "synthesizer.learning_rate: should be greater than 0"),
    (raw(synthesizer={"threads": 0}), "synthesizer.threads: should be greater than or equal to 1"),
    (raw(synthesizer={"accelerator": "tpu"}), "synthesizer.accelerator: should be 'auto', 'cpu' or 'gpu'"),
    (raw(evaluation={"holdout": -0.1}), "evaluation.holdout: should be greater than or equal to 0"),
    (raw(evaluation={"holdout": True}), "evaluation.holdout: should be a number, not true or false"),
    (raw(evaluation={"holdout": 1}), "evaluation.holdout: should be less than 1"),
    (raw(evaluation={"holdout": "nan"}), "evaluation.holdout: should be a finite number"),
    (raw(evaluation={"holdout": ""}), "evaluation.holdout: should be a valid number"),
    (raw(evaluation={"holdout": ["a.parquet"]}), "evaluation.holdout: should be a valid number"),
    (raw(output={"rows": 0}), "output.rows: should be greater than or equal to 1"),
    (raw(output={"rows": 2.5}), "output.rows: should be a valid integer"),
    (raw(output={"rows": "all"}), "output.rows: should be 'auto'"),
    (raw(name="a/b"), "name: String should match pattern"),
    (raw(name=".."), "name: should not start with a dot"),
    (raw(scale={"workers": 0}), "scale.workers: should be greater than or equal to 1"),
    (raw(scale={"workers": 2, "scheduler": "tls://a:1"}), "scale: give either `workers` or the address of"),
    (raw(scale={"worker": 2}), "scale.worker: unknown key (did you mean workers?)"),
    *(
        (raw(scale={"scheduler": address}), "scale.scheduler: should be tls://host:port, or tcp:// with a loopback")
        for address in (
            "tcp://10.0.0.7:8786",
            "tcp://scheduler:8786",
            "10.0.0.7:8786",
            "tls://a",
            "http://127.0.0.1:1",
            "tls://u:p@a:1",
        )
    ),
    (raw(ledger={"url": 3}), "ledger.url: should be a valid string"),
    (raw(ledger={"url": "${NOT_SET}"}), "${NOT_SET}: the environment variable is not set"),
]


class TestMistakes:
    @pytest.mark.parametrize(("config", "problem"), MISTAKES, ids=[m for _, m in MISTAKES])
    def test_each(self, config: dict[str, Any], problem: str) -> None:
        found = problems(config)
        assert any(p.startswith(problem) for p in found), found

    def test_all_are_reported_together(self) -> None:
        found = problems(
            raw(
                privacy={"epsilon": -1, "delta": 2, "sigma": 3},
                synthesizer={"critic_share": -1, "members": "two"},
                ouput={"rows": 3},
                name="a b",
                answers="${NOWHERE}",
            )
        )
        assert {problem.split(":")[0] for problem in found} == {
            "privacy.epsilon",
            "privacy.delta",
            "privacy.sigma",
            "synthesizer.critic_share",
            "synthesizer.members",
            "ouput",
            "name",
            "${NOWHERE}",
        }

    def test_of_both_files_together(self, write: Write) -> None:
        write("schema.yaml", "dataset: toy\ncolumns:\n  - {name: died, kind: bool}\n")
        path = write("run.yaml", RUN.replace("1.0", "-1"))
        with pytest.raises(InvalidConfig) as caught:
            load_run(path)
        assert caught.value.file == str(path)
        assert "privacy.epsilon" in str(caught.value)
        assert "schema.yaml: column died: kind should be one of" in str(caught.value)

    def test_of_the_schema_alone_name_the_schema(self, write: Write) -> None:
        schema = write("schema.yaml", "dataset: toy\ncolumns: [\n")
        with pytest.raises(InvalidConfig, match="broken YAML, line 3") as caught:
            load_run(write("run.yaml", RUN))
        assert caught.value.file == str(schema)

    def test_no_schema_and_no_such_schema(self, write: Write, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfig, match="no such file"):
            load_run(write("run.yaml", RUN))
        with pytest.raises(InvalidConfig, match="schema: "):
            load_run(write("run.yaml", RUN.replace("schema.yaml", "''")))


class TestHoldout:
    @pytest.mark.parametrize(("asked", "share"), [(0, 0.0), (0.2, 0.2), ("0.2", 0.2), ("1e-3", 0.001)])
    def test_a_share(self, asked: object, share: float) -> None:
        """What the environment fills in is text also where it is a number."""
        evaluation = parse_run(raw(evaluation={"holdout": asked}), file=FILE).evaluation
        assert (evaluation.share, evaluation.file, evaluation.holds_out) == (share, None, share > 0)

    @pytest.mark.parametrize("asked", ["test.parquet", "more/test.csv", "/elsewhere/test.parquet"])
    def test_a_file(self, asked: str) -> None:
        evaluation = parse_run(raw(evaluation={"holdout": asked}), file=FILE).evaluation
        assert evaluation.file == FILE.resolve().parent / asked
        assert (evaluation.share, evaluation.holds_out) == (0.0, True)

    def test_of_images_is_not_built(self, write: Write) -> None:
        write("schema.yaml", IMAGES)
        for asked in ("0.2", "test.parquet"):
            with pytest.raises(NotBuiltYet, match=r"evaluation\.holdout is offered for tables alone"):
                load_run(write("run.yaml", RUN + f"evaluation: {{holdout: {asked}}}\n"))


class TestRefusals:
    def test_a_mistake_in_the_schema_is_told_first(self, write: Write) -> None:
        write("schema.yaml", "dataset: toy\ncolumns: []\n")
        source = RUN.replace("{path: rows.parquet}", "{folder: scans, labels: labels.csv}")
        with pytest.raises(InvalidConfig, match="at least one"):
            load_run(write("run.yaml", source + "evaluation: {holdout: 0.2}\n"))


PLACES = ["source", "source.path.x", "schema", "privacy.epsilon", "privacy.delta", "name", "answers.x", "ledger.url.x"]
PLACES += ["synthesizer.steps", "synthesizer.critic_share", "synthesizer.accelerator", "evaluation.holdout.x"]
PLACES += ["output.rows", "output.directory.x", "output", "source.url", "source.query"]


class TestSecrets:
    @pytest.mark.parametrize("place", PLACES)
    def test_a_filled_value_is_in_no_error(self, place: str, caplog: pytest.LogCaptureFixture) -> None:
        config = raw(broken=True)
        *path, last = place.split(".")
        at = config
        for key in path:
            at = at.setdefault(key, {}) if isinstance(at.get(key, {}), dict) else at
        at[last] = "${SECRET}"
        with caplog.at_level(logging.DEBUG), pytest.raises((InvalidConfig, NotBuiltYet)) as caught:
            parse_run(config, file=FILE, environment={"SECRET": SECRET})
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in str(error)
            error = None if error.__suppress_context__ else error.__context__
        assert SECRET not in caplog.text

    def test_nor_is_a_schema_path(self, write: Write) -> None:
        path = write("run.yaml", RUN.replace("schema.yaml", "'${SECRET}/s.yaml'"))
        for text in (path.read_text(), path.read_text().replace("1.0", "-1")):
            path.write_text(text)
            with pytest.raises(InvalidConfig, match="no such file") as caught:
                load_run(path, {"SECRET": SECRET})
            assert SECRET not in str(caught.value)
            assert "${SECRET}/s.yaml" in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from([f.alias or n for n, f in RunConfig.model_fields.items()] + ["url", "path", "query"]),
                inner,
            )
        ),
        max_leaves=8,
    )
)
def test_any_mapping_is_a_run_or_a_plain_mistake(value: Any) -> None:
    config = value if isinstance(value, dict) else raw(synthesizer=value)
    try:
        parse_run(config, file=FILE, environment={})
    except (InvalidConfig, NotBuiltYet) as error:
        assert str(error).startswith(f"{FILE}: ")


def test_a_config_cannot_be_changed() -> None:
    config = parse_run(raw(), file=FILE)
    with pytest.raises(ValueError, match="frozen"):
        config.privacy.epsilon = 9
