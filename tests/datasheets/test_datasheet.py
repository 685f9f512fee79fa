"""The combined datasheet: traced, honest about gaps, and clear about its subject."""

from __future__ import annotations

import re

import pytest

from datasheets import Answers, build_datasheet
from datasheets.datasheet import Part
from datasheets.questions import steward_questions
from datasheets.reading import exact, number, resolve
from synth.facts import PublicFacts
from synth.privacy.budget import FINE, plan_table


def parts(facts: PublicFacts, answers: Answers | None = None) -> dict[str, tuple[Part, ...]]:
    sheet = build_datasheet(facts, answers or Answers())
    return {entry.question.id: entry.parts for section in sheet.sections for entry in section.entries}


def changed(facts: PublicFacts, group: str, **values: object) -> PublicFacts:
    return facts.model_copy(update={group: getattr(facts, group).model_copy(update=values)})


def test_every_automatic_answer_is_traced_to_facts_that_exist(facts: PublicFacts) -> None:
    automatic = [part for found in parts(facts).values() for part in found if part.origin == "automatic"]
    assert automatic
    for part in automatic:
        assert part.text
        assert part.trace or not re.search(r"\d", part.text)
        for path in part.trace:
            resolve(facts, path)


def test_a_path_without_a_fact_is_an_error(facts: PublicFacts) -> None:
    with pytest.raises(AttributeError):
        resolve(facts, "privacy.rows")


def test_without_answers_every_steward_question_is_a_gap(facts: PublicFacts) -> None:
    assert build_datasheet(facts, Answers()).gaps == tuple(
        question for question in steward_questions() if not question.endswith(".comments")
    )


def test_silence_is_a_complete_answer_to_a_call_for_comments(facts: PublicFacts) -> None:
    assert parts(facts)["motivation.comments"][0].text == "None."
    said = Answers(texts={"motivation.comments": "Begun in 1989."}, others={"motivation": "See the study's page."})
    assert parts(facts, said)["motivation.comments"][0].text == "Begun in 1989."


def test_a_text_for_a_section_answers_what_has_none_of_its_own_and_says_so(facts: PublicFacts) -> None:
    given = Answers(texts={"collection.ethics": "Approved by a board."}, others={"collection": "Routine care records."})
    found, sheet = parts(facts, given), build_datasheet(facts, given)
    own, shared, consent, comments = (
        found[f"collection.{name}"][-1] for name in ("ethics", "workforce", "consent", "comments")
    )
    assert (own.text, own.for_section, own.source) == ("Approved by a board.", False, "from the steward")
    assert (shared.text, shared.for_section) == ("Routine care records.", True)
    assert shared.source == "from the steward: one text for this whole section, not for this question alone"
    assert consent.is_gap and comments.text == "None."
    assert [gap for gap in sheet.gaps if gap.startswith("collection.")] == ["collection.consent"]
    assert "motivation.funding" in sheet.gaps  # another section's
    assert sheet.answered_for_section == tuple(
        q.id
        for q in steward_questions().values()
        if q.section == "collection" and q.in_others and q.id not in given.texts
    )
    assert str(sheet.text("collection.workforce", "source")).startswith("(One text for this whole section, not for")


def test_own_answers_and_a_text_a_section_leave_no_gap(facts: PublicFacts) -> None:
    own = {question.id: "Said." for question in steward_questions().values() if question.own_answer}
    others = {question.section: "Said for all." for question in steward_questions().values()}
    assert build_datasheet(facts, Answers(texts=own, others=others)).gaps == ()
    assert build_datasheet(facts, Answers(others=others)).gaps == tuple(own)  # in the paper's order


def test_an_answer_closes_its_gap_and_keeps_the_stewards_words(facts: PublicFacts) -> None:
    answers = Answers(texts={"motivation.purpose": "To study survival."})
    sheet = build_datasheet(facts, answers)
    assert "motivation.purpose" not in sheet.gaps
    assert sheet.text("motivation.purpose", "source") == "To study survival."


def test_full_answers_leave_no_gap(facts: PublicFacts) -> None:
    assert build_datasheet(facts, Answers(texts=dict.fromkeys(steward_questions(), "None."))).gaps == ()


def test_nothing_is_said_about_the_source_that_the_run_does_not_know(facts: PublicFacts) -> None:
    about_source = {
        identifier
        for identifier, found in parts(facts).items()
        for part in found
        if part.origin == "automatic" and part.subject == "source"
    }
    assert about_source == {"composition.count", "composition.features", "preprocessing.steps"}


def test_count_is_named_as_noised_declared_or_chosen(facts: PublicFacts) -> None:
    source, synthetic = parts(facts)["composition.count"]
    assert "is private" in str(source.text)
    assert "9,105 synthetic rows" in str(synthetic.text)
    assert "noised" in str(synthetic.text)
    declared = changed(facts, "privacy", row_count=9000)
    source, _ = parts(changed(declared, "data", rows_chosen_by="declared row count"))["composition.count"]
    assert "declares that the source has 9,000 rows" in str(source.text)
    assert "not protected" in str(source.text)


def test_privacy_statement_is_complete(facts: PublicFacts) -> None:
    text = str(parts(facts)["composition.comments"][0].text)
    for word in ("epsilon = 1 ", "delta = 1e-5", "1.460213", "row", "1.835", "cap is epsilon = 4", "9f9f"):
        assert word in text


def test_nothing_excluded_is_said_aloud(facts: PublicFacts) -> None:
    text = str(parts(changed(facts, "privacy", not_covered=()))["composition.identification"][0].text)
    assert "None: it is asserted" in text


def test_procedure_names_every_release_and_setting(facts: PublicFacts) -> None:
    text = str(parts(facts)["collection.mechanisms"][0].text)
    for event in facts.privacy.events:
        assert event.name in text
        assert number(event.noise_scale) in text
    for word in ("284,113 parameters", "2 members", "512", "64", "256", "400 steps", "0.003", "2 of 15"):
        assert word in text
    assert "which pairs of columns are measured" not in text


def test_procedure_tells_of_chosen_pairs_and_a_cut_target_when_there_were_some(facts: PublicFacts) -> None:
    plan = plan_table(
        epsilon=1.0,
        delta=1e-5,
        histograms=dict.fromkeys(map(str, range(20)), 12),
        classes=5,
        details=0,
        detail_weight=2.0,
        candidate_pairs=190,
        classes_known=False,
        pairs_by_class=False,
    )
    text = str(parts(changed(facts, "privacy", events=plan.events))["collection.mechanisms"][0].text)
    assert "which pairs of columns are measured" in text
    assert "60 choices, one after the other, by the exponential mechanism" in text
    assert "the target is cut into classes" in text
    assert "a vector of counts" not in text


def test_it_tells_of_triples_when_some_were_measured(facts: PublicFacts) -> None:
    assert "among three or more columns at once was not measured" in str(parts(facts)["uses.comments"][0].text)
    plan = plan_table(
        epsilon=4.0,
        delta=1e-5,
        histograms=dict.fromkeys(("age", "sex", "edu", "city", "income", "stage"), 12),
        classes=2,
        details=0,
        detail_weight=2.0,
        candidate_pairs=15,
        candidate_triples=20,
        classes_known=True,
        pairs_by_class=True,
    )
    having = changed(changed(facts, "privacy", events=plan.events), "model", measured_triples=plan.measured_triples)
    found = parts(having)
    text = str(found["collection.mechanisms"][0].text)
    assert "12 choices, one after the other, by the exponential mechanism" in text
    assert "for 12 triples of columns, the table of counts of these groups" in text
    assert "a vector of counts" not in text
    assert "12 triples of columns were measured too, on about 8 groups" in str(found["uses.comments"][0].text)
    assert (
        "Beyond pairs within the classes of died, dependence among three or more other columns at once was not"
        in str(found["uses.comments"][0].text)
    )


def test_the_stated_noise_of_fine_histograms_is_the_planned_one(facts: PublicFacts) -> None:
    text = str(parts(facts)["collection.mechanisms"][0].text)
    assert "with 32 or more grid cells, also how many rows fall into each of 8 runs of them" in text
    assert "the runs have 1/3 and the cells 2/3" in text
    cells = {"age": 24, "sex": 2}
    plan = plan_table(
        epsilon=1.0,
        delta=1e-5,
        histograms=cells,
        coarse=["age"],
        classes=3,
        details=0,
        detail_weight=2.0,
        candidate_pairs=1,
        classes_known=True,
        pairs_by_class=True,
        max_rows_per_person=4,
    )
    fine = next(event for event in plan.events if event.name == FINE)
    weight = {name: size ** (2 / 3) for name, size in (cells | {"class": 3}).items()}

    def noise(w: float) -> float:
        return float((sum(weight.values()) / w) ** 0.5 / fine.sensitivity * 4)

    assert plan.fine_noise == pytest.approx({"age": noise(weight["age"] * 2 / 3), "sex": noise(weight["sex"])})
    assert plan.coarse_noise == pytest.approx({"age": noise(weight["age"] / 3)})


def test_noise_of_tables_that_differ_in_it_is_not_passed_off_as_rows(facts: PublicFacts) -> None:
    text = str(parts(facts)["composition.errors"][0].text)
    lines = [line for line in text.splitlines() if line.startswith(("- pair tables", "- fine", "- binned"))]
    assert len(lines) == 4
    assert all(line.endswith("standard deviation 1, in units of each table's own noise.") for line in lines)


def test_table_without_target_pairs_or_missing_values(facts: PublicFacts) -> None:
    columns = ({"name": "age", "kind": "integer", "bounds": [0, 9]},)
    bare = changed(changed(facts, "data", columns=columns, target=None, classes=1), "model", measured_pairs=0)
    found = parts(changed(bare, "quality", two_way=(), mean_two_way_distance=None, mean_two_way_noise=None))
    assert found["composition.labels"][0].text == "No column is declared as target."
    assert str(found["composition.missing"][0].text).startswith("No.")
    assert "No pair of columns was measured" in str(found["uses.comments"][0].text)


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (1e-5, "1e-5"), (1.000001, "1.000001"), (0.1, "0.1"), (5.8e-06, "5.8e-6")]
)
def test_epsilon_and_delta_are_never_rounded(value: float, text: str) -> None:
    assert exact(value) == text
