"""The boundary: whatever goes wrong with private data in hand, no value gets out."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from synth.errors import InvalidSource, SynthError
from synth.privacy.boundary import StageFailed, guarded, guarded_stage

SECRET = "canary-7731"


@dataclass(frozen=True)
class Folder:
    internal: Path


def fail_plainly() -> None:
    raise ValueError(f"could not convert {SECRET}")


def fail_in_a_library() -> None:
    pa.array([SECRET]).cast(pa.int64())


def fail_with_a_key() -> None:
    {}[SECRET]


def fail_while_handling() -> None:
    try:
        fail_plainly()
    except ValueError:
        fail_in_a_library()


def fail_with_a_cause() -> None:
    try:
        fail_plainly()
    except ValueError as error:
        raise RuntimeError(f"again {SECRET}") from error


def fail_in_a_group() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET)])


def fail_with_a_note() -> None:
    error = ValueError("x")
    error.add_note(SECRET)
    raise error


FAILURES = [
    fail_plainly,
    fail_in_a_library,
    fail_with_a_key,
    fail_while_handling,
    fail_with_a_cause,
    fail_in_a_group,
    fail_with_a_note,
]


def everything_shown(error: BaseException) -> str:
    """What a terminal, a log or a database of states would show of an error."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.handle(logging.LogRecord("x", 40, "f", 1, "m", (), (type(error), error, error.__traceback__)))
    return "".join(traceback.format_exception(error)) + repr(error) + str(error.args) + log.getvalue()


def stage(fail: Callable[[], None], folder: Folder) -> None:
    with guarded("measure", folder.internal):
        fail()


def decorated(fail: Callable[[], None], folder: Folder) -> None:
    @guarded_stage
    def measure(folder: Folder) -> None:
        fail()

    measure(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("run", [stage, decorated])
@pytest.mark.parametrize("fail", FAILURES)
class TestAnUnplannedError:
    def test_becomes_one_without_values(
        self, run: Callable[..., None], fail: Callable[[], None], folder: Folder
    ) -> None:
        with pytest.raises(StageFailed, match=r"measure failed with .*withheld") as caught:
            run(fail, folder)
        assert (caught.value.exit_code, caught.value.__cause__, caught.value.__context__) == (1, None, None)
        assert SECRET not in everything_shown(caught.value)

    def test_leaves_its_places_and_no_value(
        self, run: Callable[..., None], fail: Callable[[], None], folder: Folder
    ) -> None:
        with pytest.raises(StageFailed):
            run(fail, folder)
        text = (folder.internal / "failure-measure.txt").read_text()
        assert fail.__name__ in text
        assert "test_boundary.py" in text
        assert SECRET not in text

    def test_inside_of_a_handler_too(self, run: Callable[..., None], fail: Callable[[], None], folder: Folder) -> None:
        with pytest.raises(StageFailed) as caught:
            try:
                raise OSError("something harmless")
            except OSError:
                run(fail, folder)
        assert SECRET not in everything_shown(caught.value)


class TestAPlannedError:
    def test_passes_as_it_is(self, folder: Folder) -> None:
        error = InvalidSource("source: column age is missing")
        with pytest.raises(InvalidSource) as caught, guarded("encode", folder.internal):
            raise error
        assert caught.value is error
        assert not list(folder.internal.iterdir())

    @pytest.mark.parametrize("chained", [True, False])
    def test_loses_what_it_came_from(self, chained: bool) -> None:
        with pytest.raises(SynthError) as caught, guarded("encode"):
            try:
                fail_plainly()
            except ValueError as error:
                if chained:
                    raise InvalidSource("source: damaged") from error
                raise InvalidSource("source: damaged")  # noqa: B904
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert SECRET not in everything_shown(caught.value)

    def test_nested_boundaries_name_the_inner_stage(self, folder: Folder) -> None:
        with pytest.raises(StageFailed, match="inner failed") as caught, guarded("outer"), guarded("inner"):
            fail_plainly()
        assert SECRET not in everything_shown(caught.value)


class TestWhatIsNoError:
    def test_work_that_succeeds(self, folder: Folder) -> None:
        @guarded_stage
        def add(folder: Folder, first: int, *, second: int) -> int:
            """Add."""
            return first + second

        assert add(folder, 1, second=2) == 3
        assert (add.__name__, add.__doc__) == ("add", "Add.")

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_a_stop_is_a_stop(self, stop: type[BaseException], folder: Folder) -> None:
        with pytest.raises(stop), guarded("encode", folder.internal):
            raise stop

    def test_without_a_folder_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with contextlib.suppress(StageFailed), guarded("encode"):
            fail_plainly()
        assert not list(tmp_path.iterdir())

    def test_a_failing_generator_inside(self) -> None:
        def rows() -> Iterator[int]:
            yield 1
            fail_plainly()

        with pytest.raises(StageFailed) as caught, guarded("encode"):
            list(rows())
        assert SECRET not in everything_shown(caught.value)
